"""Maps of user and group ids for mounts (mount_setattr(2), MOUNT_ATTR_IDMAP, Linux 5.12).

A map is a user namespace. It needs a process to be made, and lives on by its descriptor.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from estiba.kernel.mounts import MountAttribute, attach_tree, clone_tree, set_attributes

MAX_ID = (1 << 32) - 2
"""The last id: 4294967295 is none (chown(2))."""

MAX_RANGES = 340
"""Lines that uid_map and gid_map take (user_namespaces(7), Linux 4.15)."""


@dataclass(frozen=True, slots=True)
class IdRange:
    """`length` ids from `stored`, as the file system has them, are shown from `shown`."""

    stored: int
    shown: int
    length: int

    def __str__(self) -> str:
        return f"{self.stored} {self.shown} {self.length}"


@dataclass(frozen=True, slots=True)
class IdMap:
    """An id that no range names is shown as 65534, and no file can be made with it."""

    uids: Sequence[IdRange]
    gids: Sequence[IdRange]


def swap(one: int, other: int) -> tuple[IdRange, ...]:
    """Every id is itself, but for two that are each other."""
    low, high = sorted((one, other))
    if low == high:
        return (IdRange(0, 0, MAX_ID + 1),)
    ranges = (
        IdRange(0, 0, low),
        IdRange(low, high, 1),
        IdRange(low + 1, low + 1, high - low - 1),
        IdRange(high, low, 1),
        IdRange(high + 1, high + 1, MAX_ID - high),
    )
    return tuple(each for each in ranges if each.length)


@contextmanager
def user_namespace(wanted: IdMap) -> Iterator[int]:
    """The descriptor of a user namespace with that map.

    Raises OSError: EINVAL for ranges that overlap.
    """
    argv = ["unshare", "--user", "--", "sh", "-c", "echo; read end"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        try:
            if not child.stdout.readline():
                raise OSError(errno.EPERM, "cannot make a user namespace for an id map")
            process = Path(f"/proc/{child.pid}")
            for name, ranges in (("uid_map", wanted.uids), ("gid_map", wanted.gids)):
                (process / name).write_text("\n".join(map(str, ranges)))
            namespace = os.open(process / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            child.kill()
    try:
        yield namespace
    finally:
        os.close(namespace)


def mount_mapped(
    source: Path | int, target: Path, wanted: IdMap, *, recursive: bool = True
) -> None:
    """Mounts what is at `source` once more at `target`, with owners mapped.

    Raises OSError: EINVAL where a file system knows no id mapping, EPERM where it is mapped
    already.
    """
    tree = clone_tree(source, recursive=recursive)
    try:
        with user_namespace(wanted) as namespace:
            set_attributes(
                tree, MountAttribute.IDMAP, user_namespace=namespace, recursive=recursive
            )
        attach_tree(tree, target)
    finally:
        os.close(tree)
