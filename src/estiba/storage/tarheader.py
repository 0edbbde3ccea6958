"""Headers of tar members, written: ustar, with a pax header before it for what does not fit.

The same member gives the same bytes, and names of users, which differ from host to host, stay
out. Own code because the standard library's writer takes ten times as long. Pure.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from estiba.storage.tar import BLOCK, Kind
from estiba.storage.tarfields import checksum

END = bytes(BLOCK * 2)
XATTR = b"SCHILY.xattr."
KINDS = {
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}
"""Of what is neither file nor directory."""

_BLOCK = struct.Struct("100s24s12s12s8s1s100s8s64s16s155s12x")
_MAGIC = b"ustar\x0000"
_SPACES = b" " * 8
_NO_DEVICE = b"0000000\0" * 2
_NAME_BYTES = 100
_PREFIX_BYTES = 155
_MAX_ID = 0o7777777
_MAX_NUMBER = 0o77777777777
_PAX = b"x"
_SECOND = 1_000_000_000


@dataclass(slots=True)
class Member:
    """One member. `name` of a directory ends in a slash; a fraction of a second takes a pax
    header of a kilobyte."""

    name: bytes
    kind: Kind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    device: tuple[int, int] | None = None


def sparse_map(parts: Sequence[tuple[int, int]]) -> bytes:
    """What stands before the parts (offset, length) of a sparse file (GNU tar, format 1.0)."""
    text = b"%d\n" % len(parts) + b"".join(b"%d\n%d\n" % part for part in parts)
    return text + bytes(-len(text) % BLOCK)


def header(
    member: Member,
    xattrs: Mapping[bytes, bytes] | None = None,
    *,
    sparse: Sequence[tuple[int, int]] | None = None,
) -> bytes:
    """All that stands before the member's content.

    With `sparse` the content is the map of these parts, and the parts one after another.
    """
    pax = {XATTR + name: value for name, value in xattrs.items()} if xattrs else {}
    if sparse is not None:
        pax[b"GNU.sparse.major"], pax[b"GNU.sparse.minor"] = b"1", b"0"
        pax[b"GNU.sparse.name"] = member.name
        pax[b"GNU.sparse.realsize"] = b"%d" % member.size
        size = len(sparse_map(sparse)) + sum(length for _, length in sparse)
        member = replace(member, size=size)
    uid, gid = _fitting(pax, b"uid", member.uid), _fitting(pax, b"gid", member.gid)
    size = _fitting(pax, b"size", member.size, _MAX_NUMBER)
    mtime, fraction = divmod(member.mtime_ns, _SECOND)
    mtime = _fitting(pax, b"mtime", mtime, _MAX_NUMBER)
    if fraction:
        pax[b"mtime"] = _decimal(member.mtime_ns)
    name, prefix, link = member.name, b"", member.link
    if len(name) > _NAME_BYTES:
        prefix, name = _split(name)
        if not prefix:
            pax[b"path"], name = name, name[:_NAME_BYTES]
    if len(link) > _NAME_BYTES:
        pax[b"linkpath"], link = link, link[:_NAME_BYTES]
    device = _NO_DEVICE if member.device is None else b"%07o\0%07o\0" % member.device
    block = _BLOCK.pack(
        name, _owner(member.mode, uid, gid), b"%011o\0" % size, b"%011o\0" % mtime, _SPACES,
        member.kind.value, link, _MAGIC, b"", device, prefix,
    )  # fmt: skip
    return _pax_header(pax, name) + _summed(block) if pax else _summed(block)


def _fitting(pax: dict[bytes, bytes], key: bytes, value: int, limit: int = _MAX_ID) -> int:
    """`value` if the field takes it; otherwise it is a pax record, and the field is 0."""
    if 0 <= value <= limit:
        return value
    pax[key] = b"%d" % value
    return 0


def _decimal(nanoseconds: int) -> bytes:
    """As seconds. What is before 1970 counts downwards, and so does its fraction."""
    sign = b"-" if nanoseconds < 0 else b""
    return b"%b%d.%09d" % (sign, *divmod(abs(nanoseconds), _SECOND))


@lru_cache(1024)
def _owner(mode: int, uid: int, gid: int) -> bytes:
    return b"%07o\0%07o\0%07o\0" % (mode, uid, gid)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """As prefix and name of ustar; no prefix when it cannot be split so."""
    slash = name.find(b"/", len(name) - _NAME_BYTES - 1, len(name) - 1)
    if not 0 < slash <= _PREFIX_BYTES:
        return b"", name
    return name[:slash], name[slash + 1 :]


def _summed(block: bytes) -> bytes:
    return b"%b%06o\0 %b" % (block[:148], checksum(block), block[156:])


def _pax_header(records: Mapping[bytes, bytes], name: bytes) -> bytes:
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    called = b"PaxHeaders/" + name.rstrip(b"/").rpartition(b"/")[2]
    block = _BLOCK.pack(
        called[:_NAME_BYTES], _owner(0o644, 0, 0), b"%011o\0" % len(data), b"%011o\0" % 0,
        _SPACES, _PAX, b"", _MAGIC, b"", _NO_DEVICE, b"",
    )  # fmt: skip
    return _summed(block) + data + bytes(-len(data) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, the length with its own digits (POSIX.1-2001, pax)."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if rest + len(str(length)) != length:
        length += 1
    return b"%d %b=%b\n" % (length, key, value)
