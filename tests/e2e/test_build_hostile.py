"""Builds by clients that mean harm, or end at any moment: nothing leaks, nothing is left."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.bundles import begun, build, built, bundle, error_of, in_context, secrets, text
from tests.support.classicbuild import BUNDLE, Going, context_tar
from tests.support.daemon import PATIENCE, PrivateDaemon, wait_until
from tests.support.gitserver import git_server, make_repository

pytestmark = pytest.mark.e2e


def left_of(daemon: PrivateDaemon) -> list[str]:
    """What builds have on the host while they last, in words."""
    found = [str(path) for path in (daemon.data_root / "tmp").glob("build-*")]
    work = daemon.data_root / "build" / "work"
    found += [str(path) for name in ("work", "views") for path in (work / name).iterdir()]
    found += [str(path) for path in (daemon.exec_root / "build").iterdir()]
    scratch = daemon.data_root / "build" / "scratch"
    found += [str(path) for path in (scratch.iterdir() if scratch.is_dir() else ())]
    mounts = Path("/proc/self/mountinfo").read_text()
    roots = (f" {daemon.data_root}/build/", f" {daemon.exec_root}/build/")
    found += [line for line in mounts.splitlines() if any(root in line for root in roots)]
    groups = Path("/sys/fs/cgroup").glob(f"*/estiba-test-{daemon.bridge}/build-*")
    return found + [str(path) for path in groups]


def check_clean(daemon: PrivateDaemon) -> None:
    left = left_of(daemon)
    assert not left, "\n".join([*left, "The end of the log:", daemon.log.read_text()[-4000:]])


def wait_clean(daemon: PrivateDaemon) -> None:
    try:
        wait_until(lambda: not left_of(daemon), what="what the builds left to go")
    except AssertionError:
        check_clean(daemon)


def written(daemon: PrivateDaemon, image: str, path: str) -> str:
    return daemon.run("--network", "none", image, "cat", path)


# -- asked for in odd ways -----------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        {"memory": -10}, {"memory": 10**30}, {"shm_size": -5}, {"cpu_period": 1 << 63},
        {"cpuset_cpus": "0\0"}, {"cpuset_mems": "../x"}, {"cgroup_parent": "a\0b"},
        {"cgroup_parent": "../.."}, {"extra_hosts": ["a\n1.2.3.4 evil:1.1.1.1"]},
        {"network": "a\0b"}, {"build_args": {"HTTP_PROXY": "a\0b"}}, {"tags": ["a\x1b[2Jb"]},
        {"ulimits": [{"Name": "no\0file", "Soft": 1, "Hard": 1}]}, {"target": "\0"},
        {"platforms": [f"linux/{number}" for number in range(100)]},
        {"secrets": {"a": "%%%"}}, {"contexts": {"../../x": "local"}}, {"contexts": {"x": "local"}},
        {"unknown": 1}, {"labels": {"a": 1}}, {"cgroup_parent": ["x"]},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(daemon: PrivateDaemon, asked: dict[str, Any]) -> None:
    dockerfile = f"FROM busybox\nRUN echo {random.random()} >/made\n"
    message = error_of(build(daemon, dockerfile, **asked))
    assert message and "Traceback" not in message and "config.json" not in message
    wait_clean(daemon)


def busy_s(daemon: PrivateDaemon) -> float:
    """How long it has had a processor: the clock would tell of whoever else wants one too."""
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_dockerfile_that_means_to_keep_the_engine_busy(daemon: PrivateDaemon) -> None:
    lines = "\n".join(f"ENV N{number}=x$N{number - 1}" for number in range(3000))
    slowest = [0.0]
    over = threading.Event()

    def ping() -> None:
        while not over.wait(0.02):
            began = busy_s(daemon)
            assert daemon.request("GET", "/_ping")[0] == 200
            slowest[0] = max(slowest[0], busy_s(daemon) - began)

    watcher = threading.Thread(target=ping)
    watcher.start()
    try:
        built(daemon, f"FROM busybox\n{lines}\n")
    finally:
        over.set()
        watcher.join()
    assert slowest[0] < 2 * PATIENCE, "it did so much else before it answered"


# -- the wrong layer -----------------------------------------------------------------------


def test_trees_of_one_commit_are_told_apart(daemon: PrivateDaemon, tmp_path: Path) -> None:
    make_repository(tmp_path / "repo.git", {"one/file": "of one", "two/file": "of two"})
    with git_server(tmp_path) as server:
        url = server.url("repo.git")
        for end, content in (("#:one", "of one"), ("#:two", "of two"), ("#:one", "of one")):
            built(daemon, f"FROM busybox\nADD {url}{end} /there/\n", tags=["hostile:git"])
            assert written(daemon, "hostile:git", "/there/file") == content
        for end, files in (("", "one two"), ("?keep-git-dir=true", ".git one two")):
            built(daemon, f"FROM busybox\nADD {url}{end} /there/\n", tags=["hostile:git"])
            found = daemon.run("--network", "none", "hostile:git", "ls", "-A", "/there")
            assert found.split() == files.split()


def test_what_a_step_sees_of_its_limits_counts(daemon: PrivateDaemon) -> None:
    dockerfile = "FROM busybox\nRUN (ulimit -n; df -k /dev/shm | tail -n 1) >/made\n"
    seen = set()
    for asked in (
        {},
        {"ulimits": [{"Name": "nofile", "Soft": 77, "Hard": 77}]},
        {"shm_size": 8 << 20},
    ):
        built(daemon, dockerfile, tags=["hostile:limits"], **asked)
        seen.add(written(daemon, "hostile:limits", "/made"))
    assert len(seen) == 3


# -- ways out ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way", ["{outside}", "../../../../../../..{outside}", "/proc/1/root{outside}"]
)
def test_no_link_leads_out_of_the_tree(daemon: PrivateDaemon, tmp_path: Path, way: str) -> None:
    """A link to nowhere leads on inside, as with BuildKit."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("alive")
    to = way.format(outside=outside)
    made = f"RUN ln -s {to} /out && ln -s {to}/canary /canary\n"
    mounts = ["type=cache,target=/out/c", "type=tmpfs,target=/out/t", "type=bind,target=/out/b,rw"]
    mounts.append("type=secret,id=s,target=/out/s")
    for line in (
        "WORKDIR /out/evil\nRUN touch here",
        "COPY file /out/evil",
        "COPY file /canary",
        "COPY --link file /out/evil",
        "ADD file /out/",
        *(f"RUN --mount={mount} touch /out/evil; echo evil >/canary || true" for mount in mounts),
    ):
        dockerfile = f"FROM busybox\n{made}{line}\n"
        build(daemon, dockerfile, {"file": "evil"}, secrets=secrets(s=b"x"))
    for line in ("COPY --from=a /canary /got", "RUN --mount=from=a,source=/canary,target=/m true"):
        dockerfile = f"FROM busybox AS a\n{made}FROM busybox\n{line}\n"
        assert error_of(build(daemon, dockerfile))
    assert [path.name for path in outside.iterdir()] == ["canary"]
    assert (outside / "canary").read_text() == "alive"
    wait_clean(daemon)


def test_a_working_directory_behind_a_link_to_nowhere(daemon: PrivateDaemon) -> None:
    dockerfile = "FROM busybox\nRUN ln -s ../../nowhere/deep /x\nWORKDIR /x/y\nRUN pwd >/made\n"
    built(daemon, dockerfile, tags=["hostile:workdir"])
    assert written(daemon, "hostile:workdir", "/made") == "/nowhere/deep/y\n"


@pytest.mark.parametrize(
    "line", ["WORKDIR {deep}", "COPY file {deep}/", "COPY --link file {deep}/"]
)
def test_directories_that_are_too_deep(daemon: PrivateDaemon, line: str) -> None:
    dockerfile = f"FROM busybox\n{line.format(deep='/d' * 1500)}\n"
    message = error_of(build(daemon, dockerfile, {"file": "x"}))
    assert "internal" not in message
    wait_clean(daemon)


# -- ends at any moment --------------------------------------------------------------------

_BUSY = """FROM busybox AS a
RUN --mount=type=secret,id=s,target=/x/y/z (sleep 1000 &); cat /x/y/z >/dev/null; sleep 1000
FROM busybox
RUN --mount=type=cache,target=/c --mount=target=/m,rw {said}; touch /m/z; yes some more words
COPY --from=a / /a
"""
_PREPARING, _RUNNING, _UNREAD = "*", "*/state/*", "*/mount-*-rw/z"
_MUCH = "yes some words | head -c 12000000"
"""More than connections and the engine hold for a client that does not read."""


@pytest.mark.parametrize(("said", "sign"), [(":", _PREPARING), (":", _RUNNING), (_MUCH, _UNREAD)])
def test_the_engine_ends_its_builds(
    make_daemon: Callable[..., PrivateDaemon], said: str, sign: str
) -> None:
    """Also those of clients that read nothing, or have sent only a part of their request."""
    daemon = make_daemon()
    daemon.start()
    daemon.import_busybox()
    asked = {"secrets": secrets(s=b"never to be seen")}
    body = bundle(asked, text("dockerfile", _BUSY.format(said=said)), *in_context({"f": "x"}))
    connections = [begun(daemon, body), begun(daemon, body, whole=False)]
    runs = daemon.exec_root / "build"
    wait_until(lambda: list(runs.glob(sign)), what="a step to come so far")
    daemon.stop()
    check_clean(daemon)
    for connection in connections:
        connection.close()
    log = daemon.log.read_text()
    assert "not wholly" not in log and "Traceback" not in log
    assert "never to be seen" not in log


def test_half_a_request_holds_nobody_up(daemon: PrivateDaemon) -> None:
    body = bundle({}, text("dockerfile", "FROM busybox\n"), text("contexts/context/f", "x"))
    connections = [begun(daemon, body, whole=False) for _ in range(40)]
    wait_until(lambda: len(left_of(daemon)) == 40, what="all of them to be received")
    built(daemon, f"FROM busybox\nRUN echo {random.random()} >/made\n")
    for connection in connections:
        connection.close()
    wait_clean(daemon)


def test_a_client_that_leaves_ends_what_is_fetched_for_it(daemon: PrivateDaemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/context.tar"
        connection = begun(daemon, bundle({"remote": url}))
        fetching, _ = silent.accept()
        with fetching:
            fetching.settimeout(20 * PATIENCE)
            connection.close()
            while fetching.recv(1 << 16):
                pass
    wait_clean(daemon)


def test_a_request_that_is_no_text(daemon: PrivateDaemon) -> None:
    """Bytes in a build argument, as another client may send them."""
    body = context_tar({"request.json": b'{"build_args": {"A": "\xff"}}'})
    going = Going(daemon, "/v1.51/build", body, {"Content-Type": BUNDLE})
    answer = going.rest()
    assert answer.status == 400 and "request.json" in answer.error


@pytest.mark.parametrize("scheme", ["file", "gopher", "http+unix", "ext"])
def test_no_redirect_leaves_the_web(daemon: PrivateDaemon, scheme: str) -> None:
    answer = (
        f"HTTP/1.1 302 Found\r\nLocation: {scheme}://127.0.0.1:1/x\r\nContent-Length: 0\r\n\r\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:

        def redirect() -> None:
            wire, _ = server.accept()
            with wire:
                wire.recv(1 << 16)
                wire.sendall(answer.encode())

        helper = threading.Thread(target=redirect)
        helper.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/file"
        message = error_of(build(daemon, f"FROM busybox\nADD {url} /there\n"))
        helper.join()
    assert "the server names an invalid URL" in message and "https://HOST/PATH" in message
