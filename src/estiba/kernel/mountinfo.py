"""`/proc/self/mountinfo` (proc(5)), read as what it is: bytes.

A mount point may be called anything, and whoever has FUSE can make one. Only a line feed ends a
line and only a blank a field; the kernel writes both, tabs and backslashes in octal.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountLine:
    """One mount. `optional` are the fields that tell of its peers, without their numbers;
    `options` those of the file system, not of the mount.
    """

    id: str
    point: Path
    optional: frozenset[str]
    kind: str
    options: tuple[str, ...]


def read_lines() -> list[bytes]:
    with open("/proc/self/mountinfo", "rb") as file:
        return file.read().removesuffix(b"\n").split(b"\n")


def point_of(line: bytes) -> bytes:
    """The mount point alone, of a line of very many."""
    return _unescaped(line.split(b" ", 5)[4])


def parse_line(line: bytes) -> MountLine:
    before, _, after = line.partition(b" - ")
    fields = before.split(b" ")
    kind, _, options = after.split(b" ", 2)
    return MountLine(
        id=os.fsdecode(fields[0]),
        point=Path(os.fsdecode(_unescaped(fields[4]))),
        optional=frozenset(os.fsdecode(field.partition(b":")[0]) for field in fields[6:]),
        kind=os.fsdecode(kind),
        options=tuple(os.fsdecode(options).rpartition(" ")[2].split(",")),
    )


def _unescaped(field: bytes) -> bytes:
    if b"\\" not in field:
        return field
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field)
