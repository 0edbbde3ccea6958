"""Decompression by magic number: gzip, zstd, bzip2, xz, or none."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Any

import zstandard
from isal import isal_zlib

from estiba.model.errors import InvalidArgument
from estiba.storage.tar import Source

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
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


class Decompressed:
    """A source that gives what another holds, whatever its compression."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pending = self._head()
        self._make = _choose(self._pending)
        self._stream: Any = self._make() if self._make else None

    def _head(self) -> bytes:
        head = b""
        while len(head) < len(_XZ) and (piece := self._source.read(_CHUNK)):
            head += piece
        return head

    def read(self, size: int = _CHUNK, /) -> bytes:
        """Raises InvalidArgument when the compressed data is damaged or cut off."""
        if self._stream is None:
            data, self._pending = self._pending, b""
            return data or self._source.read(size)
        while True:
            raw, self._pending = self._pending, b""
            if not raw:
                raw = self._source.read(_CHUNK)
            if not raw:
                if not self._stream.eof:
                    raise InvalidArgument("the compressed data is cut off")
                return b""
            if self._stream.eof:
                # Another member follows (RFC 1952, 2.2), or padding that means nothing.
                if not raw.strip(b"\0"):
                    continue
                self._stream = self._make() if self._make else None
            try:
                piece: bytes = self._stream.decompress(raw)
            except _DAMAGED as error:
                raise InvalidArgument(f"the compressed data is damaged: {error}") from error
            if self._stream.eof:
                self._pending = self._stream.unused_data
            if piece:
                return piece


def _choose(head: bytes) -> Any:
    if head.startswith(_GZIP):
        return lambda: isal_zlib.decompressobj(wbits=_GZIP_WINDOW)
    if head.startswith(_ZSTD):
        return lambda: zstandard.ZstdDecompressor().decompressobj()
    if head.startswith(_BZIP2):
        return bz2.BZ2Decompressor
    if head.startswith(_XZ):
        return lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)
    return None
