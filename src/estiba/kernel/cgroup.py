"""Control groups of all three layouts: version 1, version 2, and hybrid (both mounted).

A group is one path below every hierarchy's mount point, such as `/estiba/<container id>`.
The OCI runtime makes groups and sets limits; this reads what they count and removes what is
left of them. Every function takes the mount points from `Hierarchies`, so that a test can show
it a tree of plain files.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from estiba.kernel.cgroup_stats import (
    BlkioStats,
    CpuStats,
    MemoryStats,
    PidsStats,
    Stats,
    V1Reader,
    V2Reader,
    flat,
    read,
)

_UNIFIED = ""
_V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
_REMOVE_TIMEOUT_S = 2.0

__all__ = [
    "BlkioStats",
    "CpuStats",
    "Hierarchies",
    "Limit",
    "MemoryStats",
    "Mode",
    "PidsStats",
    "Stats",
]


class Limit(StrEnum):
    """A limit that can be taken away."""

    CPU_QUOTA = "cpu"
    PIDS = "pids"


class Mode(StrEnum):
    V1 = "v1"
    HYBRID = "hybrid"
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class Features:
    """What this host's kernel can limit."""

    memory: bool
    swap: bool
    cpu_quota: bool
    cpuset: bool
    pids: bool
    blkio: bool
    blkio_weight: bool


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Where each controller is mounted; the key "" is the unified hierarchy."""

    mode: Mode
    mounts: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def detect(cls, mountinfo: str | None = None) -> Hierarchies:
        """Reads /proc/self/mountinfo (proc(5)), or the text given."""
        if mountinfo is None:
            mountinfo = Path("/proc/self/mountinfo").read_text()
        mounts: dict[str, Path] = {}
        for line in mountinfo.splitlines():
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            path = Path(before.split(" ")[4].replace("\\040", " "))
            if kind == "cgroup2":
                mounts.setdefault(_UNIFIED, path)
            elif kind == "cgroup":
                for name in options.rpartition(" ")[2].split(","):
                    if name in _V1_CONTROLLERS or name == "hugetlb" or name.startswith("name="):
                        mounts.setdefault(name, path)
        if not any(name in mounts for name in _V1_CONTROLLERS):
            return cls(Mode.V2, {_UNIFIED: mounts.get(_UNIFIED, Path("/sys/fs/cgroup"))})
        return cls(Mode.HYBRID if _UNIFIED in mounts else Mode.V1, mounts)

    def directories(self, group: str) -> list[Path]:
        """The group's directory in every hierarchy, whether it exists or not."""
        return [mount / group.lstrip("/") for mount in dict.fromkeys(self.mounts.values())]

    def features(self) -> Features:
        """What can be limited. A v2 controller counts when the root hands it down."""
        if self.mode == Mode.V2:
            controllers = read(self.mounts[_UNIFIED] / "cgroup.controllers").split()
            memory = "memory" in controllers
            return Features(
                memory=memory,
                swap=memory and _any_group_has(self.mounts[_UNIFIED], "memory.swap.max"),
                cpu_quota="cpu" in controllers,
                cpuset="cpuset" in controllers,
                pids="pids" in controllers,
                blkio="io" in controllers,
                blkio_weight="io" in controllers,
            )

        def has(controller: str, name: str) -> bool:
            return controller in self.mounts and (self.mounts[controller] / name).exists()

        return Features(
            memory="memory" in self.mounts,
            swap=has("memory", "memory.memsw.limit_in_bytes"),
            cpu_quota=has("cpu", "cpu.cfs_quota_us"),
            cpuset="cpuset" in self.mounts,
            pids="pids" in self.mounts,
            blkio="blkio" in self.mounts,
            blkio_weight="blkio" in self.mounts
            and _any_group_has(self.mounts["blkio"], "blkio.weight", "blkio.bfq.weight"),
        )

    def stats(self, group: str) -> Stats:
        """What the group has used; zeros where a controller is missing or the group is gone."""
        if self.mode == Mode.V2:
            return V2Reader(self.mounts[_UNIFIED] / group.lstrip("/")).stats()
        return V1Reader(
            {name: path / group.lstrip("/") for name, path in self.mounts.items()}
        ).stats()

    def oom_kills(self, group: str) -> int:
        """How many of its processes the kernel has killed for memory; 0 when it is gone."""
        relative = group.lstrip("/")
        if self.mode == Mode.V2:
            return flat(self.mounts[_UNIFIED] / relative / "memory.events").get("oom_kill", 0)
        memory = self.mounts.get("memory", Path("/nonexistent"))
        return flat(memory / relative / "memory.oom_control").get("oom_kill", 0)

    def processes(self, group: str) -> list[int]:
        """All pids of the group and of groups below it, in order."""
        pids: set[int] = set()
        directory = self._process_hierarchy() / group.lstrip("/")
        for path in (directory, *_below(directory)):
            pids.update(int(pid) for pid in read(path / "cgroup.procs").split())
        return sorted(pids)

    def lift(self, group: str, limit: Limit) -> None:
        """Takes a limit of the group away. Raises OSError when the group is gone."""
        if self.mode == Mode.V2:
            name = {Limit.CPU_QUOTA: "cpu.max", Limit.PIDS: "pids.max"}[limit]
            path, text = self.mounts[_UNIFIED] / group.lstrip("/") / name, "max"
        elif limit.value in self.mounts:
            name, text = {
                Limit.CPU_QUOTA: ("cpu.cfs_quota_us", "-1"),
                Limit.PIDS: ("pids.max", "max"),
            }[limit]
            path = self.mounts[limit.value] / group.lstrip("/") / name
        else:
            return
        path.write_text(text)

    def ensure(self, group: str) -> None:
        """Makes the group in every hierarchy."""
        for directory in self.directories(group):
            directory.mkdir(parents=True, exist_ok=True)

    def remove(self, group: str, *, patience_s: float = _REMOVE_TIMEOUT_S) -> None:
        """Removes the group and those below it; harmless when it is gone.

        A group whose last process has just died stays busy for a moment, so this retries for
        `patience_s`. Raises OSError(EBUSY) when it still holds processes.
        """
        for directory in self.directories(group):
            for path in (*reversed(list(_below(directory))), directory):
                _remove(path, patience_s)

    def _process_hierarchy(self) -> Path:
        for name in (_UNIFIED,) if self.mode == Mode.V2 else ("pids", "memory", "name=systemd"):
            if name in self.mounts:
                return self.mounts[name]
        return next(iter(self.mounts.values()))


def _below(directory: Path) -> Iterator[Path]:
    """Groups below, parents before children."""
    try:
        entries = [entry.path for entry in os.scandir(directory) if entry.is_dir()]
    except FileNotFoundError:
        return
    for entry in entries:
        yield Path(entry)
        yield from _below(Path(entry))


def _remove(path: Path, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _any_group_has(root: Path, *names: str) -> bool:
    """Whether one of the files exists in a group below the root, which itself lacks it."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(root):
            if entry.is_dir() and any(os.path.exists(f"{entry.path}/{name}") for name in names):
                return True
    return False
