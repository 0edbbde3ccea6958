"""Agents that `estiba build` lends, its end by a signal, and its completion."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.buildserver import (
    DEADLINE_S,
    BuildServer,
    Sent,
    build_server,
    log,
    result,
    started,
)
from tests.unit.cli.build.lab import ESTIBA, Run

from estiba.cli.completion import complete


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """An agent that answers every question with the question, and its name."""
    path = tmp_path / "agent"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1000):
                connection.sendall(b"agent: " + data)

    def accept() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield path
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_an_agent_is_lent(run: Run, agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    servers: list[BuildServer] = []
    answers: list[bytes] = []

    def play(sent: Sent) -> Iterator[dict]:
        session, name, connection = servers[0].take_agent()
        assert (session, name) == (sent.request["session"], "default")
        connection.sendall(b"hello")
        answers.append(connection.recv(1000))
        second = servers[0].take_agent()[2]
        second.sendall(b"again")
        answers.append(second.recv(1000))
        connection.sendall(b"still here")
        answers.append(connection.recv(1000))
        for one in (connection, second):
            one.shutdown(socket.SHUT_RDWR)
            one.close()
        yield result()

    assert run("--ssh", "default", "ctx", play=play, set_up=servers.append).code == 0
    assert answers == [b"agent: hello", b"agent: again", b"agent: still here"]


@pytest.mark.skipif(not shutil.which("ssh-agent"), reason="needs OpenSSH's agent")
def test_a_key_gets_an_agent_of_its_own(run: Run, tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of the test", "-f", "key"],
        check=True,
    )
    servers: list[BuildServer] = []
    answers: list[bytes] = []

    def play(_sent: Sent) -> Iterator[dict]:
        connection = servers[0].take_agent()[2]
        connection.sendall(b"\x00\x00\x00\x01\x0b")  # which identities are there?
        answers.append(connection.recv(1000))
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        yield result()

    before = {path.name for path in Path("/tmp").glob("estiba-ssh-*")}
    assert run("--ssh", "git=key", "ctx", play=play, set_up=servers.append).code == 0
    assert b"of the test" in answers[0]
    assert {path.name for path in Path("/tmp").glob("estiba-ssh-*")} == before
    (tmp_path / "nokey").write_text("nothing")
    (tmp_path / "nokey").chmod(0o600)
    assert "the agent takes no such key" in run("--ssh", "git=nokey", "ctx").err
    assert {path.name for path in Path("/tmp").glob("estiba-ssh-*")} == before


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupt_cancels(number: int, code: int) -> None:
    servers: list[BuildServer] = []

    def play(_sent: Sent) -> Iterator[dict]:
        yield started(1, "[1/1] RUN sleep")
        while not servers[0].gone.wait(0.01):
            yield log(1, "tick\n")

    with build_server(play) as server:
        servers.append(server)
        command = [*ESTIBA, "-H", server.url, "build", "ctx"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            while b"tick" not in (line := process.stderr.readline()):
                assert line, "the build ended"
            process.send_signal(number)
            _, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == code
        assert server.gone.wait(DEADLINE_S)
        assert b"CANCELED" in err
        assert b"Traceback" not in err


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("build --target ", ["base", "final"]),
        ("build -f other --target ", ["o"]),
        ("image build ctx --no-cache-filter b", ["base"]),
        ("builder build -f none --target ", []),
        ("buildx build --progress j", ["json"]),
        ("build -o type=l", ["type=local,dest="]),
        ("build --ch", ["--check"]),
        ("builder ", ["build", "du", "prune"]),
    ],
)
def test_completion(
    line: str, found: list[str], surroundings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (surroundings / "Dockerfile").write_text(
        "FROM x AS base\nRUN a AS b\nfrom --x=y base as final\n"
    )
    (surroundings / "other").write_text("FROM x AS o\n")
    os.chdir(surroundings if "ctx" not in line else surroundings.parent)
    assert complete(line.split(" ")) == 0
    assert capsys.readouterr().out.split() == found
