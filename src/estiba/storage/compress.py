"""Decompression by magic number: gzip, zstd, bzip2, xz, or none."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

import zstandard
from isal import isal_zlib

from estiba.model.errors import InvalidArgument
from estiba.storage.tar import Source

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = tuple(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))
"""Frames that mean nothing may come first (RFC 8878, 3.1.2)."""

_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\x00"
_CHUNK = 1 << 18
_DAMAGED: tuple[type[Exception], ...] = (
    zlib.error,
    isal_zlib.error,  # type: ignore[assignment,unused-ignore]
    lzma.LZMAError,
    zstandard.ZstdError,
    OSError,
    EOFError,
)
_GZIP_WINDOW = 31
_XZ_MEMORY_BYTES = 256 << 20


def is_compressed(head: bytes) -> bool:
    """Whether `head` begins as one of the compressed forms that are known."""
    return head.startswith((_GZIP, _ZSTD, *_ZSTD_SKIPPABLE, _BZIP2, _XZ))


class Decompressed:
    """A source that gives what another holds, whatever its compression.

    A few bytes can stand for many millions, so little is decompressed at a time: memory stays
    within some megabytes, and the limits of whoever reads see every byte.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._raw = self._head()
        self._offset = 0
        self._make, self._feed_bytes, self._limit = _choose(self._raw)
        self._stream: Any = self._make() if self._make else None

    def _head(self) -> bytes:
        head = b""
        while len(head) < len(_XZ) and (piece := self._source.read(_CHUNK)):
            head += piece
        return head

    def read(self, size: int = _CHUNK, /) -> bytes:
        """Raises InvalidArgument when the compressed data is damaged or cut off."""
        if self._stream is None:
            data, self._raw = self._raw, b""
            return data or self._source.read(size)
        pieces: list[bytes] = []
        missing = _CHUNK
        while missing > 0 and (raw := self._next()) is not None:
            piece = self._decompress(raw)
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _next(self) -> bytes | None:
        """The next few compressed bytes, none while the last ones still give; None at the end."""
        if not (self._stream.eof or getattr(self._stream, "needs_input", True)):
            return b""
        if self._offset >= len(self._raw):
            self._raw, self._offset = self._source.read(_CHUNK), 0
            if not self._raw and not self._stream.eof:
                raise InvalidArgument("the compressed data is cut off")
            if not self._raw:
                return None
        raw = self._raw[self._offset : self._offset + self._feed_bytes]
        self._offset += len(raw)
        return raw

    def _decompress(self, raw: bytes) -> bytes:
        if self._stream.eof:
            # Another member follows (RFC 1952, 2.2), or padding that means nothing.
            if not raw.strip(b"\0"):
                return b""
            self._stream = self._make() if self._make else None
        try:
            piece: bytes = self._stream.decompress(raw, *self._limit)
        except _DAMAGED as error:
            raise InvalidArgument(f"the compressed data is damaged: {error}") from error
        if self._stream.eof:
            self._offset -= len(self._stream.unused_data)
        return piece


def _choose(head: bytes) -> tuple[Callable[[], Any] | None, int, tuple[int, ...]]:
    """What makes the decompressor, how many bytes it gets at once, and how many it may give.

    Those without a limit of their own get so few that some megabytes come out at most: gzip
    makes up to 1,032 bytes of one, zstd 32,768.
    """
    if head.startswith(_GZIP):
        return lambda: isal_zlib.decompressobj(wbits=_GZIP_WINDOW), 16 << 10, ()
    if head.startswith((_ZSTD, *_ZSTD_SKIPPABLE)):
        return lambda: zstandard.ZstdDecompressor().decompressobj(), 1 << 10, ()
    if head.startswith(_BZIP2):
        return bz2.BZ2Decompressor, 16 << 10, (_CHUNK,)
    if head.startswith(_XZ):
        return lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES), 16 << 10, (_CHUNK,)
    return None, 0, ()
