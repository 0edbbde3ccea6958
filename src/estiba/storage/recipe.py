"""Recipes: all bytes of a layer's tar that are not content of its files, and where that goes.

With the files of the layer a recipe gives back the very tar. It is zstd-compressed records:
length of header bytes, length of content, length of path; then header, path.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from estiba.kernel.confined import open_in_root
from estiba.model.errors import DataLoss, InvalidArgument
from estiba.storage.tar import Entry, TarReader

_RECORD = struct.Struct("<IQH")
_CHUNK = 1 << 18


class RecipeWriter:
    """Content of a sparse file stands in the recipe itself, because the file on disk has holes."""

    def __init__(self, path: Path) -> None:
        self._file = zstandard.open(path, "wb", cctx=zstandard.ZstdCompressor(level=1))
        self._pending = bytearray()

    def __enter__(self) -> RecipeWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tee(self, entry: Entry, reader: TarReader) -> TarReader:
        """`reader`, writing down the data if the entry's file cannot give it back."""
        if entry.sparse is None:
            return reader
        self.put(entry.header)
        return _Tee(reader, lambda data: self.put(data))

    def add(self, entry: Entry, path: bytes | None) -> None:
        if entry.sparse is not None:
            return
        if entry.stored and path is None:
            raise InvalidArgument("tar: a whiteout with content")
        self.put(entry.header, entry.stored, path or b"" if entry.stored else b"")

    def finish(self, trailer: bytes) -> None:
        self.put(trailer)
        self._flush()

    def put(self, header: bytes, content: int = 0, path: bytes = b"") -> None:
        """Bytes of the tar, and after them so many bytes of the file at `path`."""
        self._pending += _RECORD.pack(len(header), content, len(path)) + header + path
        if len(self._pending) > _CHUNK:
            self._flush()

    def _flush(self) -> None:
        self._file.write(self._pending)
        self._pending.clear()


class _Tee(TarReader):
    def __init__(self, reader: TarReader, copy: Callable[[bytes], None]) -> None:
        self._reader, self._copy = reader, copy

    def data(self, limit: int = _CHUNK) -> memoryview:
        piece = self._reader.data(limit)
        self._copy(bytes(piece))
        return piece


def read_recipe(path: Path, root: int) -> Iterator[bytes]:
    """The tar, with the files below the directory behind `root`. Raises DataLoss, OSError."""
    with zstandard.open(path, "rb") as recipe:
        while head := recipe.read(_RECORD.size):
            header_bytes, content, path_bytes = _RECORD.unpack(head)
            yield recipe.read(header_bytes)
            name = recipe.read(path_bytes)
            if content:
                yield from _file_content(root, name, content)


def _file_content(root: int, name: bytes, size: int) -> Iterator[bytes]:
    fd = open_in_root(root, name, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        remaining = size
        while remaining:
            piece = os.read(fd, min(_CHUNK * 4, remaining))
            if not piece:
                raise DataLoss(f"{os.fsdecode(name)} in a layer is shorter than it was")
            remaining -= len(piece)
            yield piece
    finally:
        os.close(fd)
