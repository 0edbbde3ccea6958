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
from collections.abc import Iterable, Iterator, Mapping
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
    read,
)
from estiba.kernel.mountinfo import parse_line, read_lines

_UNIFIED = ""
_V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
_REMOVE_TIMEOUT_S = 2.0

__all__ = [
    "BlkioStats",
    "CpuStats",
    "Feature",
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


class Feature(StrEnum):
    """Something that the kernel can limit for a group."""

    MEMORY = "memory"
    MEMORY_RESERVATION = "memory reservation"
    SWAP = "swap"
    SWAPPINESS = "swappiness"
    OOM_KILL_DISABLE = "OOM kill disable"
    CPU_SHARES = "CPU shares"
    CPU_QUOTA = "CPU quota"
    CPU_REALTIME = "CPU real-time"
    CPUSET = "cpuset"
    PIDS = "pids"
    BLKIO_WEIGHT = "block I/O weight"
    BLKIO_THROTTLE = "block I/O throttle"


# The files whose presence shows a feature: a controller may be there in part (no swap accounting,
# no BFQ, no CFS bandwidth). Those of version 1 stand in the directory of their first word.
_FEATURE_FILES: Mapping[Feature, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Feature.MEMORY: (("memory.limit_in_bytes",), ("memory.max",)),
    Feature.MEMORY_RESERVATION: (("memory.soft_limit_in_bytes",), ("memory.low",)),
    Feature.SWAP: (("memory.memsw.limit_in_bytes",), ("memory.swap.max",)),
    Feature.SWAPPINESS: (("memory.swappiness",), ()),
    Feature.OOM_KILL_DISABLE: (("memory.oom_control",), ()),
    Feature.CPU_SHARES: (("cpu.shares",), ("cpu.weight",)),
    Feature.CPU_QUOTA: (("cpu.cfs_quota_us",), ("cpu.max",)),
    Feature.CPU_REALTIME: (("cpu.rt_runtime_us",), ()),
    Feature.CPUSET: (("cpuset.cpus",), ("cpuset.cpus",)),
    Feature.PIDS: (("pids.max",), ("pids.max",)),
    # crun writes no blkio.bfq.weight.
    Feature.BLKIO_WEIGHT: (("blkio.weight",), ("io.weight", "io.bfq.weight")),
    Feature.BLKIO_THROTTLE: (("blkio.throttle.read_bps_device",), ("io.max",)),
}


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Where each controller is mounted; the key "" is the unified hierarchy."""

    mode: Mode
    mounts: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def detect(cls, lines: Iterable[bytes] | None = None) -> Hierarchies:
        """Reads /proc/self/mountinfo (proc(5)), or the lines given."""
        mounts: dict[str, Path] = {}
        for one in map(parse_line, read_lines() if lines is None else lines):
            if one.kind == "cgroup2":
                mounts.setdefault(_UNIFIED, one.point)
            elif one.kind == "cgroup":
                for name in one.options:
                    if name in _V1_CONTROLLERS or name == "hugetlb" or name.startswith("name="):
                        mounts.setdefault(name, one.point)
        if not any(name in mounts for name in _V1_CONTROLLERS):
            return cls(Mode.V2, {_UNIFIED: mounts.get(_UNIFIED, Path("/sys/fs/cgroup"))})
        return cls(Mode.HYBRID if _UNIFIED in mounts else Mode.V1, mounts)

    def directories(self, group: str) -> list[Path]:
        """The group's directory in every hierarchy, whether it exists or not."""
        return [mount / group.lstrip("/") for mount in dict.fromkeys(self.mounts.values())]

    def features(self, group: str) -> frozenset[Feature]:
        """What can be limited in groups such as this one, which exists and is not a root."""
        version = int(self.mode == Mode.V2)
        return frozenset(
            feature
            for feature, names in _FEATURE_FILES.items()
            if any(self._has(group, name) for name in names[version])
        )

    def _has(self, group: str, name: str) -> bool:
        controller = _UNIFIED if self.mode == Mode.V2 else name.partition(".")[0]
        mount = self.mounts.get(controller)
        return mount is not None and (mount / group.lstrip("/") / name).exists()

    def stats(self, group: str) -> Stats:
        """What the group has used; zeros where a controller is missing or the group is gone."""
        if self.mode == Mode.V2:
            return V2Reader(self.mounts[_UNIFIED] / group.lstrip("/")).stats()
        return V1Reader(
            {name: path / group.lstrip("/") for name, path in self.mounts.items()}
        ).stats()

    def memory_events(self, group: str) -> Path | None:
        """The file that changes when the group lacks memory (cgroup v2 has one)."""
        if self.mode != Mode.V2:
            return None
        return self.mounts[_UNIFIED] / group.lstrip("/") / "memory.events"

    def oom_counter(self, group: str) -> Path | None:
        """The file for `oom_kills`; None without a memory controller."""
        if self.mode == Mode.V2:
            return self.memory_events(group)
        memory = self.mounts.get("memory")
        return memory / group.lstrip("/") / "memory.oom_control" if memory else None

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

    def ensure_parent(self, group: str) -> None:
        """Makes a group whose children can be limited; what the kernel refuses is left out.

        On version 2 a group has the controllers that its parent hands down, and systemd takes
        back from the root those that none of its own units needs. It cannot while a group below
        hands them down in its turn (cgroups(7)), so this group does so from now on.
        """
        with contextlib.suppress(OSError):
            self.ensure(group)
        if self.mode == Mode.V2:
            directory = self.mounts[_UNIFIED]
            for part in ("", *group.strip("/").split("/")):
                directory /= part
                _hand_down(directory)

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


def _hand_down(directory: Path) -> None:
    """One controller a write: the kernel takes all of a write or nothing."""
    for controller in read(directory / "cgroup.controllers").split():
        with contextlib.suppress(OSError):
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")
