"""ssh:// hosts: the far daemon's socket through the `ssh` program and `system dial-stdio`."""

from __future__ import annotations

import _socket
import shlex
import subprocess

from estiba.client.connection import Connection
from estiba.client.errors import ClientError, NoDaemon

TYPE_CHECKING = False
if TYPE_CHECKING:
    from estiba.client.host import Host

# Whichever of the two clients is there; sh, as the user's shell may be any.
_DIAL = "command -v estiba >/dev/null 2>&1 && exec estiba {0} || exec docker {0}"


class SshConnection(Connection):
    """One end of a socket pair, with `ssh` at the other."""

    def __init__(self, sock: _socket.socket, process: subprocess.Popen[bytes], url: str) -> None:
        super().__init__(sock)
        self._process = process
        self._url = url
        self._heard = False

    def receive(self) -> bytes:
        data = super().receive()
        if not data and not self._heard:
            code = self._process.wait()
            raise NoDaemon(
                f"Cannot connect to the daemon at {self._url}: ssh ended with status {code}. Is "
                "the address right, and estiba or docker installed there?"
            )
        self._heard = True
        return data


def command(address: str) -> list[str]:
    """`[USER@]HOST[:PORT][/SOCKET]` as a command line. Raises ClientError."""
    authority, slash, path = address.partition("/")
    user, at, place = authority.rpartition("@")
    name, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        name, colon, port = place, "", ""
    name = name.strip("[]")
    if not name or name.startswith("-") or user.startswith("-") or (colon and not port.isdecimal()):
        raise ClientError(f"not an ssh address: 'ssh://{address}': use ssh://[USER@]HOST[:PORT]")
    words = ["ssh", "-o", "ConnectTimeout=30", "-T"]
    words += ["-l", user] if at else []
    words += ["-p", port] if port else []
    socket = f"-H unix://{shlex.quote(slash + path)} " if path else ""
    dial = _DIAL.format(f"{socket}system dial-stdio")
    return [*words, "--", name, f"sh -c {shlex.quote(dial)}"]


def connect_ssh(host: Host) -> SshConnection:
    """Raises NoDaemon when there is no ssh here."""
    ours, theirs = _socket.socketpair()
    try:
        # A session of its own: the terminal's interrupt is for the program, not for ssh.
        process = subprocess.Popen(
            command(host.address), stdin=theirs.fileno(), stdout=theirs.fileno(),
            start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise NoDaemon(f"Cannot connect to {host.url}: there is no ssh program here") from None
    finally:
        theirs.close()
    return SshConnection(ours, process, host.url)
