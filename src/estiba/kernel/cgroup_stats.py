"""What control groups count, read from their files in both versions' formats.

A file that is missing counts as zeros: a controller may not be mounted, and a group may vanish
between two reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_NO_LIMIT = 2**63 - 1
_CLOCK_TICK_NS = 10_000_000  # USER_HZ is 100 on every architecture that Linux has


@dataclass(frozen=True, slots=True)
class CpuStats:
    """Times in nanoseconds; `per_cpu_ns` on version 1 only."""

    total_ns: int = 0
    user_ns: int = 0
    kernel_ns: int = 0
    per_cpu_ns: tuple[int, ...] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """Bytes; `limit` None means none. `details` is memory.stat as the kernel words it."""

    usage: int = 0
    max_usage: int = 0
    limit: int | None = None
    failures: int = 0
    details: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PidsStats:
    current: int = 0
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class BlkioEntry:
    """`operation` is read, write, sync, async, discard or total."""

    major: int
    minor: int
    operation: str
    value: int


@dataclass(frozen=True, slots=True)
class BlkioStats:
    service_bytes: tuple[BlkioEntry, ...] = ()
    serviced: tuple[BlkioEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Stats:
    cpu: CpuStats
    memory: MemoryStats
    pids: PidsStats
    blkio: BlkioStats


@dataclass(frozen=True, slots=True)
class V1Reader:
    """`directories` holds the group's directory of each controller."""

    directories: Mapping[str, Path]

    def stats(self) -> Stats:
        return Stats(self._cpu(), self._memory(), self._pids(), self._blkio())

    def _file(self, controller: str, name: str) -> Path:
        return self.directories.get(controller, Path("/nonexistent")) / f"{controller}.{name}"

    def _cpu(self) -> CpuStats:
        ticks = flat(self._file("cpuacct", "stat"))
        throttling = flat(self._file("cpu", "stat"))
        return CpuStats(
            total_ns=number(self._file("cpuacct", "usage")) or 0,
            user_ns=ticks.get("user", 0) * _CLOCK_TICK_NS,
            kernel_ns=ticks.get("system", 0) * _CLOCK_TICK_NS,
            per_cpu_ns=tuple(int(n) for n in read(self._file("cpuacct", "usage_percpu")).split()),
            periods=throttling.get("nr_periods", 0),
            throttled_periods=throttling.get("nr_throttled", 0),
            throttled_ns=throttling.get("throttled_time", 0),
        )

    def _memory(self) -> MemoryStats:
        limit = number(self._file("memory", "limit_in_bytes"))
        return MemoryStats(
            usage=number(self._file("memory", "usage_in_bytes")) or 0,
            max_usage=number(self._file("memory", "max_usage_in_bytes")) or 0,
            # The kernel rounds "no limit" down to whole pages.
            limit=None if limit is None or limit > _NO_LIMIT - (1 << 20) else limit,
            failures=number(self._file("memory", "failcnt")) or 0,
            details=flat(self._file("memory", "stat")),
        )

    def _pids(self) -> PidsStats:
        return PidsStats(
            number(self._file("pids", "current")) or 0, number(self._file("pids", "max"))
        )

    def _blkio(self) -> BlkioStats:
        def entries(kind: str) -> tuple[BlkioEntry, ...]:
            # BFQ counts what it schedules; the throttle layer sees everything.
            found = self._entries(f"throttle.{kind}_recursive")
            return found or self._entries(f"bfq.{kind}_recursive")

        return BlkioStats(entries("io_service_bytes"), entries("io_serviced"))

    def _entries(self, name: str) -> tuple[BlkioEntry, ...]:
        entries = []
        for line in read(self._file("blkio", name)).splitlines():
            fields = line.split()
            if len(fields) == 3:
                major, _, minor = fields[0].partition(":")
                entry = BlkioEntry(int(major), int(minor), fields[1].lower(), int(fields[2]))
                entries.append(entry)
        return tuple(entries)


@dataclass(frozen=True, slots=True)
class V2Reader:
    directory: Path

    def stats(self) -> Stats:
        return Stats(self._cpu(), self._memory(), self._pids(), self._blkio())

    def _cpu(self) -> CpuStats:
        values = flat(self.directory / "cpu.stat")
        return CpuStats(
            total_ns=values.get("usage_usec", 0) * 1000,
            user_ns=values.get("user_usec", 0) * 1000,
            kernel_ns=values.get("system_usec", 0) * 1000,
            periods=values.get("nr_periods", 0),
            throttled_periods=values.get("nr_throttled", 0),
            throttled_ns=values.get("throttled_usec", 0) * 1000,
        )

    def _memory(self) -> MemoryStats:
        return MemoryStats(
            usage=number(self.directory / "memory.current") or 0,
            max_usage=number(self.directory / "memory.peak") or 0,
            limit=number(self.directory / "memory.max"),
            failures=flat(self.directory / "memory.events").get("max", 0),
            details=flat(self.directory / "memory.stat"),
        )

    def _pids(self) -> PidsStats:
        return PidsStats(
            number(self.directory / "pids.current") or 0, number(self.directory / "pids.max")
        )

    def _blkio(self) -> BlkioStats:
        """io.stat: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`, a line a device."""
        sizes: list[BlkioEntry] = []
        counts: list[BlkioEntry] = []
        for line in read(self.directory / "io.stat").splitlines():
            device, *fields = line.split()
            major, _, minor = device.partition(":")
            values = dict(field.split("=", 1) for field in fields if "=" in field)
            for key, entries, operation in (
                ("rbytes", sizes, "read"),
                ("wbytes", sizes, "write"),
                ("rios", counts, "read"),
                ("wios", counts, "write"),
            ):
                if key in values:
                    entry = BlkioEntry(int(major), int(minor), operation, int(values[key]))
                    entries.append(entry)
        return BlkioStats(tuple(sizes), tuple(counts))


def oom_kills(counter: Path) -> int:
    """How many processes the kernel has killed for memory; 0 when the group is gone.

    `counter` is memory.events, or on version 1 memory.oom_control (Linux 4.13).
    """
    return flat(counter).get("oom_kill", 0)


def read(path: Path) -> str:
    """The file's text; "" when it is missing or cannot be read now."""
    try:
        return path.read_text()
    except OSError:
        return ""


def number(path: Path) -> int | None:
    """The file's number; None for `max`, and when it is missing."""
    text = read(path).strip()
    return int(text) if text.isdigit() else None


def flat(path: Path) -> dict[str, int]:
    """A "flat keyed" file: `name value` on each line."""
    values = {}
    for line in read(path).splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            values[name] = int(value)
    return values
