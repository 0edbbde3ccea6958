"""What a test may leave on the host: nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.daemon import wait_until

_PROGRAMS = ("conmon", "crun", "runc", "gocryptfs")


@dataclass(frozen=True, slots=True)
class HostState:
    """Everything that the engine makes on a host, by name."""

    mounts: frozenset[str]
    links: frozenset[str]
    tables: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[str]
    loops: frozenset[str]

    @classmethod
    def read(cls, *, only: str = "") -> HostState:
        """With `only`, what bears that word in its name: suites may run side by side."""
        mounts = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
        links = [f"{name} {_master(name)}" for name in os.listdir("/sys/class/net")]
        # Version 2 has no directory of its own for each controller.
        groups = _groups()
        kept = [
            frozenset(item for item in items if only in item)
            for items in (mounts, links, _tables(), groups, _processes(), _loops())
        ]
        return cls(*kept)

    def leaked_since(self, before: HostState) -> list[str]:
        """What is here now and was not before."""
        return sorted(
            f"{field} {item}"
            for field in ("mounts", "links", "tables", "cgroups", "processes", "loops")
            for item in getattr(self, field) - getattr(before, field)
        )


def assert_clean(before: HostState, *, only: str = "") -> None:
    """Waits, because the kernel deletes links in its own time, one after the other."""
    try:
        wait_until(
            lambda: not HostState.read(only=only).leaked_since(before),
            what="the host to be clean",
        )
    except AssertionError:
        leaked = HostState.read(only=only).leaked_since(before)
        raise AssertionError("left on the host: " + ", ".join(leaked)) from None


def _groups() -> list[str]:
    """Read again when a suite beside this one removes a group meanwhile."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            return [
                str(path)
                for pattern in ("estiba*/*", "*/estiba*/*")
                for path in Path("/sys/fs/cgroup").glob(pattern)
                if not path.is_file()
            ]


def _master(link: str) -> str:
    """The bridge that a link belongs to; a veth's own name does not tell."""
    try:
        return os.path.basename(os.readlink(f"/sys/class/net/{link}/master"))
    except OSError:
        return ""


def _tables() -> list[str]:
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return [line.removeprefix("table ") for line in done.stdout.splitlines()]


def _processes() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if Path(words[0].decode(errors="replace")).name in _PROGRAMS:
            found.append(f"{entry.name} {b' '.join(words).decode(errors='replace')}")
    return found


def _loops() -> list[str]:
    """The files that loop devices have."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found.append(path.read_text().strip())
    return found
