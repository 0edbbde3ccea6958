"""Registries: `estiba` and `docker` side by side on a genuine Docker Engine.

Pulls, pushes, logins and searches, with a Debian docker-registry that anyone may use, and one that
wants a password.
"""

# ruff: noqa: E501 - a command line a line

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.support.daemon import needs_docker
from tests.support.dockerd import GenuineDockerd
from tests.support.parity import ESTIBA, compare, neutral, run
from tests.support.peers import Peers, genuine_peers
from tests.support.registries import GenuineRegistry
from tests.support.terminal import Terminal

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not GenuineDockerd.is_installed(), reason="dockerd is not installed"),
    pytest.mark.skipif(
        not GenuineRegistry.is_installed(), reason="docker-registry is not installed"
    ),
    needs_docker(28),
]
_HELPER = """\
#!/bin/sh
[ "$1" = store ] && exec cat >{kept}
cat >/dev/null
[ "$1" = erase ] && exec rm -f {kept}
[ -e {kept} ] && exec cat {kept}
echo "credentials not found in native keychain"
exit 1
"""


class _Index(BaseHTTPRequestHandler):
    """The search of version 1, which docker-registry does not have."""

    def do_GET(self) -> None:
        body = {
            "num_results": 3,
            "results": [
                {"name": "a/b", "description": "few\nlines", "star_count": 3, "is_official": False},
                {"name": "top", "description": "x" * 60, "star_count": 90, "is_official": True},
                {"name": "c/d", "description": "", "star_count": 0, "is_automated": True},
            ],
        }
        data = json.dumps(body if "search" in self.path else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on the test's output."""


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    with genuine_peers(tmp_path_factory.mktemp("peers")) as made:
        yield made


@pytest.fixture(scope="module")
def index() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


WITHOUT_LOGIN = """\
push {plain}/team/app:1
push -q {plain}/team/app:1
push -a {plain}/team/app
push -aq {plain}/team/app
push {plain}/team/nosuch
push -a {plain}/team/app:1
push {plain}/team/app
image push {plain}/team/app:2
push {auth}/app
push UPPER
push --platform linux/amd64 {plain}/team/app:1
push --platform a/b/c/d {plain}/team/app:1
push --disable-content-trust {plain}/team/app:1
push
push a b
pull {plain}/team/app:1
pull -q {plain}/team/app:1
pull {plain}/team/app
pull -a {plain}/team/app
pull -aq {plain}/team/app
pull -a {plain}/team/app:1
pull --platform linux/amd64 {plain}/team/app:1
pull --disable-content-trust {plain}/team/app:1
pull UPPER
pull {plain}/team/UPPER:1
pull ''
pull a//b
pull a:b:c
pull {plain}/team/app:
pull {plain}/nosuch
pull -q {plain}/nosuch
pull {auth}/app
pull {plain}/team/app@sha256:0000000000000000000000000000000000000000000000000000000000000000
pull {plain}/team/app:1@sha256:0000000000000000000000000000000000000000000000000000000000000000
pull {plain}/team/app@sha256:00
pull busybox
pull
image pull a b
run --rm --network none {plain}/nosuch true
run --pull always --rm --network none {plain}/nosuch true
run --pull always --rm --network none {plain}/team/app:1 echo hi
run --pull always -q --rm --network none {plain}/team/app:1 echo hi
run --pull never {plain}/nosuch
run UPPER
run 'a b'
create {plain}/nosuch
create -q {plain}/nosuch
create --pull always {plain}/nosuch
create a:b:c
search {plain}/x
search --limit x a
search --filter foo a
search
search a b
save --platform linux/amd64 busybox
load --platform linux/amd64 -i /dev/null
history --platform linux/amd64 busybox
image inspect --platform linux/amd64 busybox
rmi --platform linux/amd64,linux/arm64 busybox
login {auth}
login -u joe {auth}
login -u joe -p wrong {auth}
login -p x {auth}
login --username= {auth}
login -u joe --password= {auth}
login --password-stdin {auth}
login -u joe --password-stdin {auth}
login -u joe -p x --password-stdin {auth}
login -u joe -p x localhost:1
login -u joe -p x
logout {auth}
logout nosuch
logout
"""


@pytest.mark.parametrize("line", WITHOUT_LOGIN.splitlines())
def test_answers(peers: Peers, line: str) -> None:
    compare(peers.engine, peers.line(line))


SEARCHES = """\
search HOST/x
search --no-trunc HOST/x
search --limit 1 HOST/x
search --filter is-official=true HOST/x
search --filter stars=50 HOST/x
search --format json HOST/x
search --format '{{.Name}} {{.StarCount}} {{.IsOfficial}} {{.Description}}' HOST/x
search --format 'table {{.Name}}\\t{{.StarCount}}' HOST/x
search --limit 1000 HOST/a
search --filter foo=bar HOST/a
"""


@pytest.mark.parametrize("line", SEARCHES.splitlines())
def test_searches(peers: Peers, index: str, line: str) -> None:
    compare(peers.engine, line.replace("HOST", index))


def test_a_missing_image_is_pulled(peers: Peers) -> None:
    """Its stream goes to STDERR, as docker's does; the engine may leave out a step."""
    name = f"{peers.plain}/gone:1"
    results = []
    for program in (["docker"], ESTIBA):
        run(peers.engine, ["docker"], f"rmi {name}")
        results.append(run(peers.engine, program, f"run --rm --network none {name} echo hi"))
    theirs, ours = (neutral(result) for result in results)
    assert (ours.code, ours.out) == (theirs.code, theirs.out) == (0, "hi\n")
    assert ours.err.splitlines()[0] == f"Unable to find image '{name}' locally"
    assert ours.err.splitlines()[-1] == theirs.err.splitlines()[-1]
    run(peers.engine, ["docker"], f"rmi {name}")
    quiet = run(peers.engine, ESTIBA, f"run -q --rm --network none {name} echo hi")
    assert quiet == (0, "hi\n", "")


_SESSIONS = {
    "nothing yet": {},
    "a helper for all": {"credsStore": "kept"},
    "a helper for one": {"credHelpers": {"{auth}": "kept"}, "credsStore": "missing"},
    "a helper that is missing": {"credsStore": "missing"},
    "an old client's entry": {"auths": {"http://{auth}/v1/": {"auth": "am9lOnMzY3JldA=="}}},
    "a token": {"auths": {"{auth}": {"auth": "am9lOg==", "identitytoken": "t"}}},
}
_SESSION = """\
pull {auth}/app
login -u joe --password-stdin {auth}
push {auth}/app
login {auth}
login https://{auth}/v2/
pull -q {auth}/app
logout https://{auth}/v2/
push {auth}/app
"""


@pytest.mark.parametrize("name", _SESSIONS)
def test_a_session(peers: Peers, name: str, tmp_path: Path) -> None:
    """Both clients leave the same file and the same key store behind."""
    kept = tmp_path / "kept"
    helper = tmp_path / "docker-credential-kept"
    helper.write_text(_HELPER.format(kept=kept))
    helper.chmod(0o755)
    shown = []
    for program in (["docker"], ESTIBA):
        folder = tmp_path / "config"
        shutil.rmtree(folder, ignore_errors=True)
        kept.unlink(missing_ok=True)
        folder.mkdir()
        text = json.dumps(_SESSIONS[name]).replace("{auth}", peers.auth)
        (folder / "config.json").write_text(text)
        env = {"DOCKER_CONFIG": str(folder), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        results = []
        for line in _SESSION.splitlines():
            result = neutral(run(peers.engine, program, peers.line(line), b"s3cret\n", env))
            # The second push finds what the first one left.
            settled = result.out.replace("Pushed", "Layer already exists")
            # Docker names the servers that it could not forget in any order.
            errors = "\n".join(sorted(result.err.splitlines()))
            results.append(result._replace(out=settled, err=errors))
            secret = kept.read_text().strip() if kept.exists() else ""
            results.append((json.loads((folder / "config.json").read_text()), secret))
        shown.append(results)
    for theirs, ours in zip(*shown, strict=True):
        assert ours == theirs


def test_login_on_a_terminal(peers: Peers, tmp_path: Path) -> None:
    """The password is not echoed, and a wrong one leaves nothing behind."""
    environment = {**peers.engine.environment(), "DOCKER_CONFIG": str(tmp_path)}
    for password, code, words in (("wrong", 1, b"401"), ("s3cret", 0, b"Login Succeeded")):
        with Terminal([*ESTIBA, "login", peers.auth], environment) as terminal:
            terminal.wait_for(b"Username: ")
            terminal.type("joe\n")
            terminal.wait_for(b"Password: ")
            terminal.type(f"{password}\n")
            terminal.wait_for(words)
            assert terminal.wait() == code
            assert password.encode() not in terminal.seen
        assert (tmp_path / "config.json").exists() == (code == 0)
    with Terminal([*ESTIBA, "login", peers.auth], environment) as terminal:
        terminal.wait_for(b"existing credentials... [Username: joe]")
        assert terminal.wait() == 0


def test_pulling_on_a_terminal(peers: Peers) -> None:
    name = f"{peers.plain}/own:1"
    for no_color in ("", "1"):
        environment = {**peers.engine.environment(), "NO_COLOR": no_color, "TERM": "xterm"}
        with Terminal([*ESTIBA, "pull", name], environment) as terminal:
            terminal.wait_for(b"Downloaded newer image")
            assert terminal.wait() == 0
            assert b"Pull complete" in terminal.seen and b"\x1b[K" in terminal.seen
            assert not no_color or b"\x1b[36m" not in terminal.seen
        run(peers.engine, ["docker"], f"rmi {name}")


def test_outdated(peers: Peers) -> None:
    engine = peers.engine
    old, new, foreign = (f"{peers.plain}/{name}" for name in ("old:1", "new:1", "gone:9"))
    for name in (old, new):
        run(engine, ["docker"], f"tag {peers.plain}/team/app:1 {name}")
        run(engine, ["docker"], f"push -q {name}")
    assert run(engine, ESTIBA, f"image outdated {peers.plain}/old {peers.plain}/new") == (0, "", "")
    # Somebody else moves the tag: here is still what it stood for before.
    engine.docker("run", "--name", "changed", "--network", "none", old, "touch", "/x")
    engine.docker("commit", "changed", foreign)
    engine.docker("rm", "changed")
    _move(engine, foreign, old)
    words = f"image outdated {peers.plain}/old {peers.plain}/new"
    code, out, err = run(engine, ESTIBA, words)
    assert (code, err) == (1, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:3] == ["REPOSITORY", "TAG", "STATUS"]
    assert [line[:3] for line in lines[1:]] == [[f"{peers.plain}/old", "1", "outdated"]]
    assert lines[1][3] != lines[1][4]
    found = [json.loads(line) for line in
             run(engine, ESTIBA, f"{words} -a --format json").out.splitlines()]  # fmt: skip
    assert {row["Repository"].rpartition("/")[2]: row["Status"] for row in found} == {
        "old": "outdated", "new": "up to date",
    }  # fmt: skip
    run(engine, ["docker"], f"tag {old} localhost:1/none:1")
    code, _, err = run(engine, ESTIBA, f"image outdated {peers.plain}/new localhost:1/none")
    assert (code, err) == (0, "")  # never pulled nor pushed: nothing stands behind it


def _move(engine: GenuineDockerd, source: str, target: str) -> None:
    """Makes the registry's `target` what `source` is, and keeps the engine's own as it was."""
    before = engine.docker("inspect", "-f", "{{.Id}}", target).decode().strip()
    engine.docker("tag", source, target)
    engine.docker("push", "-q", target)
    engine.docker("rmi", target)
    engine.docker("tag", before, target)


def test_headers_of_the_user_are_sent(tmp_path: Path) -> None:
    """`HttpHeaders` go with every request to the daemon; one that would break it is refused."""
    seen: list[dict[str, str]] = []

    class Daemon(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing on the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Daemon)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for value, code in (("v w", 0), ("v\r\nX-Injected: 1", 1)):
            (tmp_path / "config.json").write_text(json.dumps({"HttpHeaders": {"X-Meta": value}}))
            done = subprocess.run(
                [*ESTIBA, "-H", f"tcp://127.0.0.1:{server.server_port}", "ps"],
                env={**os.environ, "DOCKER_CONFIG": str(tmp_path)}, capture_output=True, check=False,
            )  # fmt: skip
            assert done.returncode == code, done.stderr
    finally:
        server.shutdown()
        server.server_close()
    assert seen and all(headers["X-Meta"] == "v w" for headers in seen)
    assert not any("X-Injected" in headers for headers in seen)
