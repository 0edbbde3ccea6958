"""Bounds of limits, of containers and of a build's steps alike: in Docker's words. Pure."""

from __future__ import annotations

from estiba.model.errors import InvalidArgument

MIN_MEMORY_BYTES = 6 << 20


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
