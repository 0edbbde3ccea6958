"""Paths in a container's layer that the engine itself makes, as places to mount on. Pure.

They are no changes of the container's: `diff` and `commit` leave them out.
"""

from __future__ import annotations

from collections.abc import Iterable

ENGINE_MADE = frozenset(
    {
        "/dev",
        "/proc",
        "/sys",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
    }
)
_ADDED, _MODIFIED = 1, 0


def without_engine_made(changes: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """`changes` without those paths, and without `/etc` when nothing else in it changed."""
    listed = list(changes)
    kept = [(path, kind) for path, kind in listed if not (kind == _ADDED and path in ENGINE_MADE)]
    hidden = {path for path, _ in listed} - {path for path, _ in kept}
    if any(path.startswith("/etc/") for path in hidden):
        others = [path for path, _ in kept if path.startswith("/etc/")]
        if not others:
            kept = [(path, kind) for path, kind in kept if path != "/etc"]
    return kept
