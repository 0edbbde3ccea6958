"""Reading tar streams: ustar, pax and GNU, entry by entry, every field checked.

Own code because a layer must be reproduced bit for bit: the reader hands out the raw header
bytes of each entry beside its meaning, and the standard library's reader hides them, trusts
more than it may, and takes five times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from estiba.model.errors import InvalidArgument, LimitExceeded
from estiba.storage.tarfields import checksum, decimal, mtime, number, pax_records, repeated

BLOCK = 512
_MAX_PAX_BYTES = 1 << 20
_MAX_LINK_BYTES = 1 << 16
_MAX_SPARSE_PARTS = 1 << 16
_MAX_HEADER_BYTES = 4 << 20
_ZERO = bytes(BLOCK)
_SCHILY = b"SCHILY.xattr."
_CHUNK = 1 << 18
_NOTHING = memoryview(b"")


class Kind(Enum):
    FILE = b"0"
    HARDLINK = b"1"
    SYMLINK = b"2"
    CHAR = b"3"
    BLOCK = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"


_KINDS = {kind.value: kind for kind in Kind} | dict.fromkeys((b"\0", b"7", b"S"), Kind.FILE)


class Source(Protocol):
    """Where bytes come from; `b""` is the end."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class Entry:
    """One member. `name` and `link` are as written, unchecked; times in nanoseconds."""

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse: list[tuple[int, int]] | None = None
    """(offset, length) of the data parts; `stored` bytes of data follow in the archive."""

    stored: int = 0
    header: bytes = b""
    """All header bytes since the end of the entry before."""


def is_tar(head: bytes) -> bool:
    """Whether a file with these first 512 bytes says of itself that it is a tar."""
    return head[257:262] == b"ustar"


class TarReader:
    """Iterate for entries; read an entry's data before taking the next."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = b""
        self._view = _NOTHING
        self._offset = 0
        self._header = bytearray()
        self._remaining = 0
        self._padding = 0
        self.trailer = b""
        """What stands after the last entry, once the iteration has ended."""

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def data(self, limit: int = _CHUNK) -> memoryview:
        """The next bytes of the current entry's data; empty at its end."""
        if not self._remaining:
            return _NOTHING
        if self._offset == len(self._buffer) and not self._refill():
            raise InvalidArgument("tar: the archive is cut off")
        start = self._offset
        self._offset = min(start + min(limit, self._remaining), len(self._buffer))
        self._remaining -= self._offset - start
        return self._view[start : self._offset]

    def _next(self) -> Entry | None:
        while self.data():
            pass
        if self._padding:
            # The docker client's archive ends within the last padding after `build -f -`.
            self._keep(padding := self._read_upto(self._padding))
            if len(padding) < self._padding:
                self._read_trailer()
                return None
            self._padding = 0
        pax: dict[bytes, bytes] = {}
        name = link = b""
        while True:
            block = self._block()
            if block is None:
                return None
            kind = block[156:157]
            size = number(block[124:136], "size")
            if kind in (b"x", b"g"):
                records = self._long(size, _MAX_PAX_BYTES)
                if kind == b"x":
                    pax.update(pax_records(records))
            elif kind == b"L":
                name = self._long(size, _MAX_LINK_BYTES).rstrip(b"\0")
            elif kind == b"K":
                link = self._long(size, _MAX_LINK_BYTES).rstrip(b"\0")
            else:
                return self._entry(block, kind, size, pax, name, link)

    def _entry(
        self,
        block: bytes,
        kind: bytes,
        size: int,
        pax: dict[bytes, bytes],
        name: bytes,
        link: bytes,
    ) -> Entry:
        if b"size" in pax:
            size = decimal(pax[b"size"], "size")
        entry = Entry(
            name=name or pax.get(b"path") or _name(block),
            kind=_kind(kind, block),
            mode=repeated(block[100:108], "mode") & 0o7777,
            uid=decimal(pax[b"uid"], "uid") if b"uid" in pax else repeated(block[108:116], "uid"),
            gid=decimal(pax[b"gid"], "gid") if b"gid" in pax else repeated(block[116:124], "gid"),
            size=size,
            mtime_ns=mtime(block, pax),
            link=link or pax.get(b"linkpath") or _text(block[157:257]),
        )
        for key, value in pax.items():
            if key.startswith(_SCHILY):
                entry.xattrs[key[len(_SCHILY) :]] = value
        if entry.kind in (Kind.CHAR, Kind.BLOCK):
            entry.major = number(block[329:337], "device")
            entry.minor = number(block[337:345], "device")
        has_data = entry.kind is Kind.FILE
        entry.stored = size if has_data else 0
        if kind == b"S":
            self._old_sparse(entry, block)
        elif has_data and (b"GNU.sparse.major" in pax or b"GNU.sparse.map" in pax):
            self._pax_sparse(entry, pax)
        if not has_data:
            entry.size = 0
        entry.header = bytes(self._header)
        self._header.clear()
        self._remaining = entry.stored
        self._padding = -size % BLOCK if has_data else 0
        return entry

    # -- sparse files ----------------------------------------------------------------------

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        """GNU type S: four parts in the header, 21 in each block that follows."""
        parts = _sparse_fields(block[386:482], 4)
        entry.size = number(block[483:495], "real size")
        more = block[482] == 1
        while more:
            following = self._read_exact(BLOCK)
            self._keep(following)
            parts += _sparse_fields(following[:504], 21)
            more = following[504] == 1
            if len(parts) > _MAX_SPARSE_PARTS:
                raise LimitExceeded("tar: a sparse file with too many parts")
        entry.sparse = _checked_sparse(parts, entry)

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes]) -> None:
        """GNU formats 0.0 and 0.1 (map in the pax header) and 1.0 (map before the data)."""
        entry.name = pax.get(b"GNU.sparse.name", entry.name)
        entry.size = decimal(
            pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size") or b"0", "size"
        )
        if pax.get(b"GNU.sparse.major") == b"1":
            numbers = self._sparse_map(entry)
        else:
            text = pax.get(b"GNU.sparse.map", b"")
            numbers = [decimal(item, "sparse") for item in text.split(b",") if item]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
        entry.sparse = _checked_sparse(pairs, entry)

    def _sparse_map(self, entry: Entry) -> list[int]:
        """Decimal lines in whole blocks at the start of the data: a count, then pairs."""
        text = bytearray()
        lines, wanted = 0, 1
        while lines < wanted:
            block = self._read_exact(BLOCK)
            self._keep(block)
            entry.stored -= BLOCK
            text += block
            if not lines and b"\n" in block:
                wanted = 1 + 2 * decimal(bytes(text).split(b"\n", 1)[0], "sparse")
            lines += block.count(b"\n")
            if wanted > _MAX_SPARSE_PARTS or entry.stored < 0 or len(text) > _MAX_PAX_BYTES:
                raise LimitExceeded("tar: a sparse file with too many parts")
        return [decimal(line, "sparse") for line in bytes(text).split(b"\n")[1:wanted]]

    # -- blocks ----------------------------------------------------------------------------

    def _block(self) -> bytes | None:
        """The next header block; None at the end of the archive, with the trailer read."""
        block = self._read_upto(BLOCK)
        if not block:
            self.trailer = bytes(self._header)
            return None
        if len(block) < BLOCK:
            raise InvalidArgument("tar: the archive ends within a header")
        self._keep(block)
        if block == _ZERO:
            self._read_trailer()
            return None
        stored = number(block[148:156], "checksum")
        if stored != checksum(block) - checksum(block[148:156]) + 8 * 32:
            raise InvalidArgument(
                "tar: a header's checksum is wrong: not a tar archive, or damaged"
            )
        return block

    def _read_trailer(self) -> None:
        """Whatever follows the first zero block, within reason: padding of any length."""
        while rest := self._read_upto(_CHUNK):
            if len(self._header) > _MAX_PAX_BYTES * 16:
                raise LimitExceeded("tar: too much padding after the end")
            self._header += rest
        self.trailer = bytes(self._header)

    def _long(self, size: int, limit: int) -> bytes:
        if size > limit:
            raise LimitExceeded(f"tar: an extended header of {size} bytes")
        data = self._read_exact(size + -size % BLOCK)
        self._keep(data)
        return data[:size]

    def _keep(self, data: bytes) -> None:
        """Any number of extended headers may stand before an entry."""
        self._header += data
        if len(self._header) > _MAX_HEADER_BYTES:
            raise LimitExceeded(f"tar: headers of over {_MAX_HEADER_BYTES} bytes for one entry")

    def _read_exact(self, size: int) -> bytes:
        data = self._read_upto(size)
        if len(data) < size:
            raise InvalidArgument("tar: the archive is cut off")
        return data

    def _read_upto(self, size: int) -> bytes:
        end = self._offset + size
        if end <= len(self._buffer):
            piece = self._buffer[self._offset : end]
            self._offset = end
            return piece
        pieces = []
        missing = size
        while missing and (piece := self._read_some(missing)):
            pieces.append(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_some(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        if self._offset == len(self._buffer):
            self._refill()
        piece = self._buffer[self._offset : self._offset + size]
        self._offset += len(piece)
        return piece

    def _refill(self) -> bool:
        """False at the end."""
        self._buffer = self._source.read(_CHUNK)
        self._view = memoryview(self._buffer)
        self._offset = 0
        return bool(self._buffer)


def _kind(flag: bytes, block: bytes) -> Kind:
    kind = _KINDS.get(flag)
    if kind is None:
        raise InvalidArgument(f"tar: unknown entry type {flag!r}")
    # Before POSIX a directory was a file whose name ends in a slash.
    if flag == b"\0" and _name(block).endswith(b"/"):
        return Kind.DIRECTORY
    return kind


def _text(raw: bytes) -> bytes:
    return raw.split(b"\0", 1)[0]


def _name(block: bytes) -> bytes:
    name = _text(block[:100])
    if block[257:263] == b"ustar\0":
        prefix = _text(block[345:500])
        if prefix:
            return prefix + b"/" + name
    return name


def _sparse_fields(raw: bytes, count: int) -> list[tuple[int, int]]:
    parts = []
    for index in range(count):
        chunk = raw[index * 24 : index * 24 + 24]
        if not chunk.strip(b"\0 "):
            break
        parts.append((number(chunk[:12], "sparse"), number(chunk[12:], "sparse")))
    return parts


def _checked_sparse(parts: list[tuple[int, int]], entry: Entry) -> list[tuple[int, int]]:
    position = 0
    for offset, length in parts:
        if offset < position or offset + length > entry.size:
            raise InvalidArgument("tar: a sparse file's parts overlap or exceed its size")
        position = offset + length
    if sum(length for _, length in parts) != entry.stored:
        raise InvalidArgument("tar: a sparse file's parts do not match its data")
    return parts
