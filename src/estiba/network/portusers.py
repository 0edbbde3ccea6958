"""Which program has a port of the host: for errors only, as it looks through all of /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TABLES = {"tcp": ("tcp", "tcp6"), "udp": ("udp", "udp6")}
_MAX_BYTES = 8 << 20
_LISTEN = {"tcp": "0A", "udp": "07"}


def program_at(protocol: str, port: int, proc: Path = Path("/proc")) -> str:
    """For example `nginx (process 812)`; empty when nobody is found."""
    inodes: set[str] = set()
    for table in _TABLES.get(protocol, ()):
        with contextlib.suppress(OSError), open(proc / "thread-self/net" / table) as file:
            inodes |= socket_inodes(file.read(_MAX_BYTES), port, _LISTEN[protocol])
    inodes.discard("0")
    return _owner_of(inodes, proc) if inodes else ""


def socket_inodes(table: str, port: int, state: str) -> set[str]:
    """The sockets of /proc/net/{tcp,udp} that are bound to a port. Pure."""
    found = set()
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) > 9 and words[3] == state and words[1].endswith(f":{port:04X}"):
            found.add(words[9])
    return found


def _owner_of(inodes: set[str], proc: Path) -> str:
    names = {f"socket:[{inode}]" for inode in inodes}
    for process in proc.iterdir():
        if not process.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            for entry in os.scandir(process / "fd"):
                if os.readlink(entry.path) in names:
                    command = (process / "comm").read_text(errors="replace").strip()
                    return f"{command} (process {process.name})"
    return ""
