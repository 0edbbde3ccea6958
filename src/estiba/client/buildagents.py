"""The user's ssh agents, lent to a build: one spare connection to the daemon for each.

A spare connection becomes an agent's when the daemon sends its first byte, and the next spare one
takes its place. Keys never leave the agent; a key that lies in a file gets an agent of its own for
as long as the build goes on.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import threading

from estiba.client.connection import Connection
from estiba.client.errors import ApiError, ClientError
from estiba.client.http import Client, part

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

_NOT_FOUND = 404
_PAUSE_S = 0.1
_PROGRAM = "echo $SSH_AGENT_PID; exec cat"
"""Tells the agent's pid, and stays for as long as its STDIN is open."""
_CHUNK = 1 << 16


class Agents:
    """Open for as long as the block runs. `sources` are paths by id, see `--ssh`.

    Raises ClientError for a source that is none.
    """

    def __init__(self, client: Client, session: str, sources: dict[str, list[str]]) -> None:
        self._client = client
        self._session = session
        self._sources = sources
        self._closed = threading.Event()
        self._own: list[_OwnAgent] = []

    def __enter__(self) -> Agents:
        if not self._sources:
            return self
        try:
            sockets = {name: self._socket(name, paths) for name, paths in self._sources.items()}
        except BaseException:
            self.__exit__()
            raise
        # Asked for here, so that no thread has to.
        _ = self._client.version
        for name, path in sockets.items():
            threading.Thread(target=self._offer, args=(name, path), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for agent in self._own:
            agent.close()

    def _socket(self, name: str, paths: list[str]) -> str:
        if not paths:
            path = os.environ.get("SSH_AUTH_SOCK", "")
            if not path:
                raise ClientError(
                    f"--ssh {name}: no ssh agent: SSH_AUTH_SOCK is not set; start one (eval "
                    f"$(ssh-agent); ssh-add) or name a key: --ssh {name}=PATH"
                )
            paths = [path]
        kinds = [_kind(name, path) for path in paths]
        if kinds == [stat.S_IFSOCK]:
            return paths[0]
        if stat.S_IFSOCK in kinds:
            raise ClientError(f"--ssh {name}: either one agent's socket or keys, not both")
        agent = _OwnAgent(name)
        self._own.append(agent)
        return agent.start(paths)

    def _offer(self, name: str, path: str) -> None:
        """Keeps a spare connection open until the build is over."""
        url = f"/build/agents/{part(self._session)}"
        while not self._closed.is_set():
            try:
                response = self._client.call("POST", url, {"id": name}, upgrade=True)
            except ApiError as error:
                if error.status != _NOT_FOUND:
                    return
                # The daemon has not heard of the build yet.
                self._closed.wait(_PAUSE_S)
                continue
            except (ClientError, OSError):
                return
            connection, first = response.hijacked()
            first = first or connection.receive()
            if first:
                arguments = (connection, first, path)
                threading.Thread(target=_lend, args=arguments, daemon=True).start()
            else:
                connection.close()
                self._closed.wait(_PAUSE_S)


def _kind(name: str, path: str) -> int:
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ClientError(f"--ssh {name}: {path}: {reason}") from error


def _lend(connection: Connection, first: bytes, path: str) -> None:
    """Copies both ways until one side ends."""
    try:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.connect(path)
            agent.sendall(first)
            poller = select.poll()
            poller.register(connection.fileno(), select.POLLIN)
            poller.register(agent.fileno(), select.POLLIN)
            while True:
                for fd, _ in poller.poll():
                    if not (_answer(agent, connection) if fd == agent.fileno()
                            else _ask(connection, agent)):  # fmt: skip
                        return
    except OSError:
        # The daemon sees its connection end, and the program that asked hears of it.
        return
    finally:
        connection.close()


def _ask(connection: Connection, agent: socket.socket) -> bool:
    while data := connection.try_receive():
        agent.sendall(data)
    return data is None


def _answer(agent: socket.socket, connection: Connection) -> bool:
    data = agent.recv(_CHUNK)
    if data:
        connection.send_all(data)
    return bool(data)


class _OwnAgent:
    """An ssh-agent that knows a few keys, in a directory that only the user can enter.

    It ends with the program that it was started for, which ends with this one's pipe: a client
    that is killed leaves no keys behind.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._folder = ""
        self._agent = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, keys: list[str]) -> str:
        """The path of its socket. Raises ClientError when a key cannot be taken."""
        import subprocess
        import tempfile

        self._folder = tempfile.mkdtemp(prefix="estiba-ssh-")
        path = os.path.join(self._folder, "agent")
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                ["ssh-agent", "-a", path, "sh", "-c", _PROGRAM], stdin=pipe, stdout=pipe
            )
            assert self._process.stdout is not None
            self._agent = int(self._process.stdout.readline() or 0)
            if not self._agent:
                raise ClientError(f"--ssh {self._name}: ssh-agent does not start")
            added = subprocess.run(
                ["ssh-add", "-q", "--", *keys],
                env={**os.environ, "SSH_AUTH_SOCK": path},
                stderr=pipe,
                check=False,
            )
        except FileNotFoundError as error:
            raise ClientError(
                f"--ssh {self._name}: {error.filename} is not installed: keys need OpenSSH's agent"
            ) from error
        if added.returncode:
            reason = added.stderr.decode(errors="replace").strip()
            raise ClientError(f"--ssh {self._name}: the agent takes no such key: {reason}")
        return path

    def close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            if self._agent:
                # Its parent waits for the pipe: the pid cannot be another's.
                os.kill(self._agent, signal.SIGTERM)
            self._process.stdin.close()
            self._process.wait()
        if self._folder:
            import shutil

            shutil.rmtree(self._folder, ignore_errors=True)
