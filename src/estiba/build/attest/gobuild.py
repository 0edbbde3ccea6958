"""The modules that a Go program was built of: what the linker leaves in it (debug/buildinfo).

Only the form of Go 1.18 and later is read, out of ELF files with section headers.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from estiba.build.attest.packages import Package

_MAGIC = b"\xff Go buildinf:"
_SECTION = b".go.buildinfo"
_INLINE = 2
_STRINGS_AT = 32
_SENTINEL = 16
_MAX_SECTIONS = 512
_MAX_NAMES_BYTES = 64 << 10
MAX_INFO_BYTES = 1 << 20


def is_elf(head: bytes) -> bool:
    return head[:4] == b"\x7fELF" and head[4:5] in (b"\x01", b"\x02") and head[5:6] in b"\x01\x02"


def go_packages(fd: int, location: str) -> Iterator[Package]:
    """Of the ELF file behind `fd`; none when it is no Go program, or a damaged one."""
    section = _find_section(fd)
    if section is None:
        return
    version, modules = _strings(section)
    if not version.startswith("go"):
        return
    yield Package("golang", "stdlib", version[2:].partition(" ")[0], location=location)
    yield from _modules(modules, location)


def _modules(text: str, location: str) -> Iterator[Package]:
    """Lines of `mod`, `dep` and `=>` (what stands in for the one before): path, version, sum."""
    found: list[Package] = []
    for line in text.splitlines():
        kind, *words = line.split("\t")
        if kind not in ("mod", "dep", "=>") or len(words) < 2:
            continue
        name, version = words[0], words[1]
        if kind == "=>" and name.startswith((".", "/")):
            continue  # a folder of whoever built it
        if kind == "=>" and found:
            found.pop()
        found.append(
            Package("golang", name, "" if version == "(devel)" else version, location=location)
        )
    yield from found


def _find_section(fd: int) -> bytes | None:
    head = os.pread(fd, 64, 0)
    if not is_elf(head) or len(head) < 64:
        return None
    order = "<" if head[5] == 1 else ">"
    is_wide = head[4] == 2
    if is_wide:
        (table,) = struct.unpack_from(f"{order}Q", head, 0x28)
        size, count, names = struct.unpack_from(f"{order}HHH", head, 0x3A)
        entry = struct.Struct(f"{order}IIQQQQ")
    else:
        (table,) = struct.unpack_from(f"{order}I", head, 0x20)
        size, count, names = struct.unpack_from(f"{order}HHH", head, 0x2E)
        entry = struct.Struct(f"{order}IIIIII")
    if not 0 < count <= _MAX_SECTIONS or names >= count or not entry.size <= size <= 256:
        return None
    raw = _pread(fd, size * count, table)
    if len(raw) < size * count:
        return None
    sections = [entry.unpack_from(raw, size * number) for number in range(count)]
    _, _, _, _, at, length = sections[names]
    texts = _pread(fd, min(length, _MAX_NAMES_BYTES), at)
    for name, _, _, _, at, length in sections:
        if texts[name : name + len(_SECTION) + 1] == _SECTION + b"\0":
            return _pread(fd, min(length, MAX_INFO_BYTES), at)
    return None


def _pread(fd: int, size: int, at: int) -> bytes:
    """Nothing for an offset that no file has."""
    try:
        return os.pread(fd, size, at)
    except (OSError, OverflowError):
        return b""


def _strings(section: bytes) -> tuple[str, str]:
    """The compiler's version and the modules."""
    if not section.startswith(_MAGIC) or len(section) < _STRINGS_AT or not section[15] & _INLINE:
        return "", ""
    version, at = _string(section, _STRINGS_AT)
    modules, _ = _string(section, at)
    if len(modules) <= 2 * _SENTINEL or modules[-_SENTINEL - 1 : -_SENTINEL] != b"\n":
        modules = bytes(2 * _SENTINEL)
    text = modules[_SENTINEL:-_SENTINEL].decode(errors="replace")
    return version.decode(errors="replace"), text


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    """A length as varint, and as many bytes."""
    length = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return data[at : at + length], at + length
    return b"", len(data)
