"""glibc's allocator (mallopt(3), malloc_trim(3)): memory that was needed once is given back."""

from __future__ import annotations

from estiba.kernel.libc import libc

_M_ARENA_MAX = -8


def limit_arenas(count: int) -> None:
    """Threads share so many arenas; by default each of the engine's would keep its own."""
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, count)


def give_back() -> None:
    """Returns what is free to the kernel; for after large pieces of work."""
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
