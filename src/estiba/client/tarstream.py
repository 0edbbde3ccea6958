"""Headers of a tar stream, made by hand: `tarfile` takes longer to import and to use.

What ustar has no room for stands in a PAX record before it. Knows nothing of files.
"""

from __future__ import annotations

import struct

BLOCK = 512
END = bytes(2 * BLOCK)
FILE, LINK, SYMLINK, DIRECTORY, FIFO = b"0", b"1", b"2", b"5", b"6"
_PAX = b"x"
_FORM = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_MOST_NAME = 100
_MOST_PREFIX = 155
_MOST_SIZE = 1 << 33
_BLANK = b" " * 8


def header(
    name: bytes, kind: bytes, *, mode: int, size: int = 0, mtime: int = 0, target: bytes = b""
) -> bytes:
    """Of an entry of root's; a directory's name ends with a slash. The content is to follow."""
    short, prefix = _split(name)
    records = b""
    if not short:
        records += _record(b"path", name)
        short = name[:_MOST_NAME]
    if len(target) > _MOST_NAME:
        records += _record(b"linkpath", target)
        target = target[:_MOST_NAME]
    if size >= _MOST_SIZE:
        records += _record(b"size", b"%d" % size)
    if not 0 <= mtime < _MOST_SIZE:
        records += _record(b"mtime", b"%d" % mtime)
        mtime = 0
    own = _block(short, prefix, kind, mode, size % _MOST_SIZE, mtime, target)
    if not records:
        return own
    first = _block(b"PaxHeaders/entry", b"", _PAX, 0o644, len(records), 0, b"")
    return first + padded(records) + own


def member(name: str, data: bytes, *, mode: int = 0o644) -> bytes:
    """A whole small file."""
    head = header(name.encode(errors="surrogateescape"), FILE, mode=mode, size=len(data))
    return head + padded(data)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Name and prefix as ustar has them; nothing when they do not fit."""
    if len(name) <= _MOST_NAME:
        return name, b""
    slash = name.find(b"/", max(len(name) - _MOST_NAME - 1, 1), len(name) - 1)
    if 0 < slash <= _MOST_PREFIX:
        return name[slash + 1 :], name[:slash]
    return b"", b""


def _record(key: bytes, value: bytes) -> bytes:
    """The length that it begins with counts its own digits."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d%b" % (length, rest)


def _block(
    name: bytes, prefix: bytes, kind: bytes, mode: int, size: int, mtime: int, target: bytes
) -> bytes:
    fields = (
        name, b"%07o" % mode, b"0000000", b"0000000", b"%011o" % size, b"%011o" % mtime, _BLANK,
        kind, target, b"ustar\x0000", b"", b"", b"0000000", b"0000000", prefix,
    )  # fmt: skip
    block = _FORM.pack(*fields)
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])
