"""The client's ssh agent in a step."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.kernel.build.running.running_lab import Lab, layer

from estiba.build.ports import BindMount, SshMount
from estiba.build.running.agents import AgentSocket

pytestmark = pytest.mark.kernel


class Agent:
    """Connects to a socket as the front door would, and counts."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.opened = self.done = 0

    async def __call__(self) -> tuple[int, Callable[[], None]]:
        with socket.socket(socket.AF_UNIX) as made:
            made.connect(self.path)
            fd = os.dup(made.fileno())
        self.opened += 1

        def done() -> None:
            os.close(fd)
            self.done += 1

        return fd, done


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """A real one with a key."""
    path = f"/tmp/estiba-agent-{os.getpid()}"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        key = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of-a-test",
                        "-f", key], check=True)  # fmt: skip
        add = ["ssh-add", "-q", key]
        while subprocess.run(
            add, env={**os.environ, "SSH_AUTH_SOCK": path}, capture_output=True, check=False
        ).returncode:
            assert process.poll() is None
        yield Agent(path)
    finally:
        process.kill()
        process.wait()
        Path(path).unlink(missing_ok=True)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The host's ssh-add and its libraries, to be mounted."""
    path = shutil.which("ssh-add")
    assert path
    made = layer(tmp_path / "tools", etc__passwd="")
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    for word in [path, *(word for word in listed.split() if word.startswith("/"))]:
        shutil.copy(os.path.realpath(word), made / os.path.basename(word))
    return made


async def test_keys_are_seen_through_the_agent(lab: Lab, agent: Agent, tools: Path) -> None:
    loader = next(path.name for path in tools.iterdir() if path.name.startswith("ld-linux"))
    ssh_add = f"/tools/{loader} --library-path /tools /tools/ssh-add -l"
    mounts = (BindMount("/tools", tools), SshMount(agent, "/run/buildkit/ssh_agent.0"))
    said = await lab.sh(f"echo $SSH_AUTH_SOCK; {ssh_add}; {ssh_add}", mounts=mounts)
    lines = said.splitlines()
    assert lines[0] == "/run/buildkit/ssh_agent.0"
    assert "of-a-test" in lines[1]
    assert lines[1] == lines[2]
    assert (agent.opened, agent.done) == (2, 2)


async def test_mode_owner_and_the_name_of_the_socket(lab: Lab, agent: Agent) -> None:
    mounts = (
        SshMount(agent, "/a.sock", mode=0o660, uid=1000, gid=12),
        SshMount(agent, "/b.sock"),
    )
    said = await lab.sh("echo $SSH_AUTH_SOCK; stat -c '%a %u %g %F' /a.sock /b.sock", mounts=mounts)
    assert said.splitlines() == ["/a.sock", "660 1000 12 socket", "600 0 0 socket"]
    env = ("PATH=/bin", "SSH_AUTH_SOCK=/b.sock")
    assert await lab.sh("echo $SSH_AUTH_SOCK", mounts=mounts, env=env) == "/b.sock\n"


async def ask(path: Path, *, half_close: bool) -> bytes:
    """What the socket answers to a word."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"hello")
    if half_close:
        writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer


async def test_an_answer_after_the_end_of_the_question(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"you said " + await reader.read())
        writer.close()

    path = f"/tmp/estiba-answer-{os.getpid()}"
    server = await asyncio.start_unix_server(answer, path)
    agent = Agent(path)
    listener = AgentSocket(SshMount(agent, "/x"), tmp_path / "agent")
    asking: list[asyncio.Task[bytes]] = []
    try:
        assert await ask(tmp_path / "agent", half_close=True) == b"you said hello"
        asking += [
            asyncio.create_task(ask(tmp_path / "agent", half_close=False)) for _ in range(50)
        ]
        # No more than so many at once: the others are hung up on.
        refused, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result() for task in refused if task.exception() is None} <= {b""}
    finally:
        await listener.close()
        await asyncio.gather(*asking, return_exceptions=True)
        server.close()
        Path(path).unlink(missing_ok=True)
    assert agent.opened == agent.done


async def test_who_asks_while_descriptors_are_short_is_answered_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, refusals = socket.socket.accept, iter(range(1))

    def short(listener: socket.socket) -> tuple[socket.socket, object]:
        if next(refusals, None) is not None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return accept(listener)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"you said " + await reader.read())
        writer.close()

    path = f"/tmp/estiba-answer-{os.getpid()}"
    server = await asyncio.start_unix_server(answer, path)
    monkeypatch.setattr(socket.socket, "accept", short)
    listener = AgentSocket(SshMount(Agent(path), "/x"), tmp_path / "agent")
    try:
        assert await ask(tmp_path / "agent", half_close=True) == b"you said hello"
    finally:
        await listener.close()
        server.close()
        Path(path).unlink(missing_ok=True)
