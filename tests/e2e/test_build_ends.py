"""Builds that end before they are done: clients that leave, daemons that are killed."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.buildremains import remains, wait_nothing_remains
from tests.support.classicbuild import (
    GATE,
    Going,
    begin,
    begin_bundle,
    build,
    context_tar,
    failed,
    open_gate,
    query_of,
    waits_for,
)
from tests.support.daemon import DEADLINE_S, PrivateDaemon, wait_until
from tests.support.ports import free_port

pytestmark = pytest.mark.e2e

STEPS = """FROM busybox
COPY f /f
RUN echo first > /first
RUN {slow}
"""


def says(text: str) -> Callable[[dict[str, Any]], bool]:
    """A program does, not the instruction."""
    return lambda line: text in line.get("stream", "") and "RUN" not in line["stream"]


def log_says(text: str) -> Callable[[dict[str, Any]], bool]:
    return lambda line: text in line.get("log", {}).get("text", "")


# -- the client goes away ------------------------------------------------------------------


@pytest.mark.parametrize(
    "slow",
    ["echo going && sleep 1000", "trap '' TERM INT HUP; echo going; while :; do sleep 1; done"],
)
def test_the_client_leaves_in_a_run(daemon: PrivateDaemon, slow: str) -> None:
    """Finished steps stay, the running one leaves nothing."""
    name = str(abs(hash(slow)) % 1000)
    files = {"Dockerfile": STEPS.format(slow=slow), "f": name}
    going = begin(daemon, files)
    going.until(says("going"))
    assert any("mount" in one for one in remains(daemon))
    going.leave()
    wait_nothing_remains(daemon)
    again = build(daemon, {"Dockerfile": STEPS.format(slow="true"), "f": name})
    assert again.done == ["RUN true"]


def test_the_client_leaves_while_nothing_is_said(daemon: PrivateDaemon) -> None:
    going = begin(daemon, {"Dockerfile": "FROM busybox\nRUN sleep 999\n"})
    going.until(lambda line: "RUN sleep" in line.get("stream", ""))
    wait_until(lambda: any("cgroup" in one for one in remains(daemon)), what="the step to run")
    going.leave()
    wait_nothing_remains(daemon)


@pytest.fixture
def on_tcp(make_daemon: Callable[..., PrivateDaemon]) -> tuple[PrivateDaemon, int]:
    port = free_port()
    daemon = make_daemon("-H", f"tcp://127.0.0.1:{port}", "--allow-insecure-tcp")
    daemon.start()
    daemon.import_busybox()
    return daemon, port


def test_a_client_on_tcp_that_leaves_or_has_no_more_to_say(
    on_tcp: tuple[PrivateDaemon, int],
) -> None:
    """Its end looks the same, and its kernel tells of it a minute later if it is not asked."""
    daemon, port = on_tcp

    def asked(run: str) -> socket.socket:
        body = context_tar({"Dockerfile": f"FROM busybox\nRUN {run}\n"})
        wire = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
        head = "POST /v1.51/build HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        wire.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return wire

    with asked("sleep 2; echo done") as patient:
        patient.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(patient)
        response.begin()
        lines = [json.loads(line) for line in response if line.strip()]
    assert {"stream": "done\n"} in lines and any("aux" in line for line in lines)
    with asked("sleep 1000") as leaving, leaving.makefile("rb") as answer:
        assert any(b"sleep 1000" in line for line in iter(answer.readline, b""))
        wait_until(lambda: any("process" in one for one in remains(daemon)), what="the step")
    wait_nothing_remains(daemon)


def test_the_client_leaves_several_stages_at_once(daemon: PrivateDaemon) -> None:
    stages = "".join(f"FROM busybox AS s{n}\nRUN echo going{n}; sleep 1000\n" for n in range(2))
    copies = "".join(f"COPY --from=s{n} /etc/passwd /{n}\n" for n in range(2))
    going = begin_bundle(daemon, {"Dockerfile": f"{stages}FROM busybox\n{copies}"})
    seen = set()
    while len(seen) < 2:
        line = going.until(log_says("going"))
        seen.add(line["log"]["id"])
    going.leave()
    wait_nothing_remains(daemon)


def test_the_client_leaves_while_it_sends_the_context(daemon: PrivateDaemon) -> None:
    body = context_tar({f"f{n}": random.Random(n).randbytes(100_000) for n in range(50)})
    for share in (3, 1):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(daemon.socket))
        head = (
            "POST /v1.51/build HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\n"
            f"Content-Length: {len(body) + 1}\r\n\r\n"
        )
        connection.sendall(head.encode() + body[: len(body) // share])
        wait_until(lambda: remains(daemon), what="the context to come")
        connection.close()
        wait_nothing_remains(daemon)


def test_the_client_leaves_at_any_moment(daemon: PrivateDaemon) -> None:
    """After each line that it can see."""
    slow = (
        "echo a; sleep 0.05; echo b; sleep 0.05; echo c; mkdir /d; "
        "dd if=/dev/zero of=/d/big bs=1M count=8 2>/dev/null; echo d"
    )
    for count in range(1, 16):
        text = f"FROM busybox\nARG N\nRUN : $N; {slow}\nCOPY . /ctx\nRUN {slow}\n"
        going = begin(daemon, {"Dockerfile": text, "f": str(count)}, buildargs={"N": str(count)})
        for _ in zip(range(count), going.read(), strict=False):
            pass
        going.leave()
    wait_nothing_remains(daemon)


@contextlib.contextmanager
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """Takes connections, and never answers; says when somebody has come."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        came, kept = threading.Event(), []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(server.accept()[0])
                    came.set()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}", came
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in kept:
                one.close()


@pytest.mark.parametrize(
    ("dockerfile", "remote"),
    [
        ("FROM {}/x\n", ""),
        ("FROM busybox\nADD http://{}/f /f\n", ""),
        ("FROM busybox\nADD http://{}/f.git /f\n", ""),
        ("", "http://{}/context.tar"),
        ("", "http://{}/context.git"),
    ],
)
def test_the_client_leaves_while_somebody_else_is_silent(
    daemon: PrivateDaemon, dockerfile: str, remote: str
) -> None:
    """Also before there was anything to tell."""
    with silent_server() as (address, came):
        body = b"" if remote else context_tar({"Dockerfile": dockerfile.format(address)})
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(daemon.socket))
        query = query_of({"remote": remote.format(address)}) if remote else ""
        connection.sendall(
            f"POST /v1.51/build?{query} HTTP/1.1\r\nHost: x\r\n"
            f"Content-Type: application/x-tar\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        assert came.wait(DEADLINE_S)
        assert remains(daemon)
        connection.close()
        wait_nothing_remains(daemon)


def test_others_go_on_when_one_leaves(daemon: PrivateDaemon) -> None:
    """Two builds of the same: the one that does the step goes, the other one does it."""
    text = f"FROM busybox\nRUN {GATE} echo going; {waits_for('left')}; echo done > /done-leaving\n"
    first = begin(daemon, {"Dockerfile": text})
    first.until(says("going"))
    second = begin(daemon, {"Dockerfile": text})
    second.until(lambda line: "Step 1/2" in line.get("stream", ""))
    first.leave()
    second.until(says("going"))
    open_gate(daemon, "left")
    answer = second.rest()
    assert not answer.error and "going" in answer.text, answer.lines
    wait_nothing_remains(daemon)


def test_others_go_on_when_one_that_waits_leaves(daemon: PrivateDaemon) -> None:
    run = f"RUN {GATE} echo going; {waits_for('waiter-left')}; echo done > /done-waiting"
    text = f"FROM busybox\n{run}\n"
    first = begin(daemon, {"Dockerfile": text})
    first.until(says("going"))
    second = begin(daemon, {"Dockerfile": text})
    second.until(lambda line: "Step 1/2" in line.get("stream", ""))
    second.leave()
    open_gate(daemon, "waiter-left")
    answer = first.rest()
    assert not answer.error, answer.lines
    wait_nothing_remains(daemon)


def test_a_failure_ends_the_others(daemon: PrivateDaemon) -> None:
    text = (
        "FROM busybox AS slow\nRUN sleep 1000\n"
        "FROM busybox AS bad\nRUN echo no >&2; sleep 1; exit 3\n"
        "FROM busybox\nCOPY --from=slow /f /f\nCOPY --from=bad /f /g\n"
    )
    answer = failed(daemon, {"Dockerfile": text})
    assert answer.lines[-1]["errorDetail"]["code"] == 3
    assert "no\n" in answer.text
    wait_nothing_remains(daemon)


# -- the daemon is killed ------------------------------------------------------------------

POINTS = [
    "build.run-prepared",
    "build.run-prepared#2",
    "workspace.frozen",
    "workspace.frozen#2",
    "workspace.packed",
    "workspace.packed#2",
    "workspace.renamed",
    "workspace.renamed#2",
    "cache.written",
    "cache.written#2",
    "cache.written#3",
    "image.writing",
    "image.written",
    "image.writing#2",
    "image.written#2",
]
CRASHED = """FROM busybox
COPY f /f
RUN echo one > /one
RUN echo two > /two
"""


@pytest.fixture
def mortal(make_daemon: Callable[..., PrivateDaemon]) -> PrivateDaemon:
    made = make_daemon()
    made.start()
    made.import_busybox()
    return made


@pytest.mark.parametrize("point", POINTS)
def test_killed_in_a_build(mortal: PrivateDaemon, point: str) -> None:
    """The next build starts clean, and does again only what was not finished."""
    files = {"Dockerfile": CRASHED, "f": "x"}
    mortal.restart({"ESTIBA_FAILPOINTS": f"{point}=kill"})
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        begin(mortal, files, t="crashed:1").rest()
    try:
        mortal.wait_death()
    except TimeoutError:
        pytest.fail(f"{point} was not reached")
    mortal.start()
    wait_nothing_remains(mortal)
    images = mortal.request("GET", "/images/json?all=1")[1]
    is_there = any("crashed:1" in one["RepoTags"] for one in images)
    assert is_there == (point == "image.written#2")
    again = build(mortal, files, t="crashed:1")
    if point.startswith("cache.written"):
        kept = int(point.partition("#")[2] or 1)
        assert len(again.done) <= 3 - kept
    if point.startswith("image"):
        assert again.done == []
    assert mortal.run("crashed:1", "cat", "/f", "/one", "/two") == "xone\ntwo\n"
    wait_nothing_remains(mortal)


def wait_recorded(daemon: PrivateDaemon, count: int) -> None:
    """Layers are hashed beside the next step. What the daemon lists may not be written yet."""
    url = f"file:{daemon.data_root}/estiba.db?mode=ro"
    query = "SELECT count(*) FROM records WHERE kind = 'build-cache'"

    def recorded() -> bool:
        with contextlib.closing(sqlite3.connect(url, uri=True)) as database:
            return database.execute(query).fetchone() == (count,)

    wait_until(recorded, what=f"{count} records")


def test_killed_in_the_middle_of_a_run(mortal: PrivateDaemon) -> None:
    """The program does not outlive it."""
    going = begin(mortal, {"Dockerfile": STEPS.format(slow="echo going; sleep 1000"), "f": "x"})
    going.until(says("going"))
    wait_recorded(mortal, 2)
    mortal.kill9()
    going.leave()
    mortal.start()
    wait_nothing_remains(mortal)
    again = build(mortal, {"Dockerfile": STEPS.format(slow="true"), "f": "x"})
    assert again.done == ["RUN true"]
    layers = sorted(path.name for path in (mortal.data_root / "images/layers").iterdir())
    assert len(layers) == 4


def test_killed_in_every_of_some_builds_at_once(mortal: PrivateDaemon) -> None:
    def start(number: int) -> Going:
        text = f"FROM busybox\nRUN echo {number} > /n\nRUN echo going; sleep 100\n"
        return begin(mortal, {"Dockerfile": text})

    goings = [start(number) for number in range(2)]
    for going in goings:
        going.until(says("going"))
    wait_recorded(mortal, 2)
    mortal.kill9()
    for going in goings:
        going.leave()
    mortal.start()
    wait_nothing_remains(mortal)
    for number in range(2):
        again = build(mortal, {"Dockerfile": f"FROM busybox\nRUN echo {number} > /n\n"})
        assert again.done == []


def test_a_stop_ends_builds(mortal: PrivateDaemon) -> None:
    going = begin(mortal, {"Dockerfile": STEPS.format(slow="echo going; sleep 1000"), "f": "x"})
    going.until(says("going"))
    mortal.stop()
    going.leave()
    mortal.start()
    wait_nothing_remains(mortal)


# -- the disk is full ----------------------------------------------------------------------


def test_no_space_left(make_daemon: Callable[..., PrivateDaemon]) -> None:
    """It is told, nothing stays, and the next build has all the room."""
    daemon = make_daemon()
    daemon.data_root.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(daemon.data_root)]
    subprocess.run(words, check=True)
    try:
        daemon.start()
        daemon.import_busybox()
        big = random.Random(1).randbytes(12 << 20)
        files = {"Dockerfile": "FROM busybox\nCOPY big /a\nCOPY big /b\n", "big": big}
        assert "No space left on device: make room" in failed(daemon, files).error
        wait_nothing_remains(daemon)
        text = "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=60\n"
        answer = failed(daemon, {"Dockerfile": text})
        assert "No space left" in answer.text
        wait_nothing_remains(daemon)
        # What filled the disk is not kept for a look at it.
        text = "FROM busybox\nRUN dd if=/dev/zero of=/small bs=1M count=5\n"
        assert build(daemon, {"Dockerfile": text}).done
        files = {"Dockerfile": "FROM busybox\n", "big": big * 4}
        assert "No space left" in failed(daemon, files).error
        wait_nothing_remains(daemon)
        daemon.request("POST", "/images/prune")
        daemon.request("POST", "/build/prune?all=1")
        small = {"Dockerfile": "FROM busybox\nCOPY big /a\n", "big": big}
        assert build(daemon, small).done == ["COPY big /a"]
        daemon.close()
    finally:
        subprocess.run(["umount", "-l", daemon.data_root], check=True)
