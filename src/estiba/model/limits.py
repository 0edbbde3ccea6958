"""Bounds of limits, of containers and of a build's steps alike: in Docker's words. Pure."""

from __future__ import annotations

import re

from estiba.model.errors import InvalidArgument

MIN_MEMORY_BYTES = 6 << 20

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


def check_memory(memory_bytes: int, swap_bytes: int) -> None:
    """`swap_bytes` is of memory and swap together; 0 sets no limit. Raises InvalidArgument."""
    if memory_bytes and memory_bytes < MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if swap_bytes > 0 and not memory_bytes:
        raise InvalidArgument(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if 0 < swap_bytes < memory_bytes:
        raise InvalidArgument(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )


def check_cpu_times(period_us: int, quota_us: int) -> None:
    """0 sets no limit. Raises InvalidArgument."""
    if period_us and not 1000 <= period_us <= 1_000_000:
        raise InvalidArgument(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < quota_us < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")


def check_cpu_set(wanted: str, host_cpus: int) -> None:
    """A list (cpuset(7)) of the host's processors, as many as `host_cpus`; empty for all.

    Raises InvalidArgument.
    """
    available = f"0-{host_cpus - 1}" if host_cpus > 1 else "0"
    _check_set("cpus", "CPUs", wanted, available)


def check_memory_nodes(wanted: str, host_nodes: str) -> None:
    """A list of the host's NUMA nodes, of which `host_nodes` is one. Raises InvalidArgument."""
    _check_set("mems", "memory nodes", wanted, host_nodes)


def _check_set(name: str, what: str, wanted: str, available: str) -> None:
    found = parse_set(wanted)
    if found is None:
        shown = wanted[:64]
        raise InvalidArgument(f"Invalid value {shown} for cpuset {name}: invalid format: {shown}")
    if not found <= (parse_set(available) or set()):
        raise InvalidArgument(
            f"Requested {what} are not available - requested {wanted}, available: {available}"
        )


def parse_set(text: str) -> set[int] | None:
    """The numbers of a list such as 0-2,7 (cpuset(7)); None for one that is none."""
    numbers: set[int] = set()
    for part in text.split(",") if text else []:
        match = _RANGE.fullmatch(part)
        if match is None:
            return None
        first = int(match[1])
        last = int(match[2] or first)
        if last < first:
            return None
        numbers.update(range(first, last + 1))
    return numbers
