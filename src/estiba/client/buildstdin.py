"""A context that comes as a tar, through a pipe: its members, told again below another name.

Owns telling an archive from text, and the archive's copy. What it holds is for the daemon to
judge; only names that lead out of it are refused.
"""

from __future__ import annotations

import tarfile

from estiba.client.errors import ClientError
from estiba.client.tarstream import BLOCK, DIRECTORY, FILE, LINK, SYMLINK, header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_CHUNK = 1 << 18
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
_ZSTD = b"\x28\xb5\x2f\xfd"
_CHECKSUM = slice(148, 156)


class Begun:
    """A stream whose first bytes have been looked at, for `tarfile` and for reading whole."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        head = bytearray()
        while len(head) < BLOCK and (data := stream.read(BLOCK - len(head))):
            head += data
        self.head = bytes(head)
        self._rest = self.head

    def read(self, size: int) -> bytes:
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken + self._stream.read(size - len(taken)) if len(taken) < size else taken

    def is_archive(self) -> bool:
        """Raises ClientError for one that cannot be unpacked here."""
        if self.head.startswith(_ZSTD):
            raise ClientError(
                "the context from STDIN is packed with zstd: unpack it first, zstd -dc FILE | "
                "estiba build -"
            )
        return self.head.startswith(_PACKED) or _is_header(self.head)


def _is_header(block: bytes) -> bool:
    """By its checksum, which is all that tars of every age have."""
    if len(block) < BLOCK or not any(block):
        return False
    digits = block[_CHECKSUM].strip(b" \0")
    try:
        wanted = int(digits, 8)
    except ValueError:
        return False
    return sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ") == wanted


def members(stream: Begun, prefix: str) -> Iterator[bytes]:
    """Raises ClientError for a damaged archive."""
    try:
        with tarfile.open(fileobj=stream, mode="r|*", errorlevel=1) as tar:  # type: ignore[call-overload]
            for info in tar:
                yield from _member(tar, info, prefix)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ClientError(f"the context from STDIN is a damaged archive: {error}") from error


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo, prefix: str) -> Iterator[bytes]:
    name = _inside(info.name, prefix)
    mode, mtime = info.mode & 0o7777, int(info.mtime)
    if info.isdir():
        yield header(name + b"/", DIRECTORY, mode=mode, mtime=mtime)
    elif info.issym():
        target = info.linkname.encode(errors="surrogateescape")
        yield header(name, SYMLINK, mode=mode, mtime=mtime, target=target)
    elif info.islnk():
        target = _inside(info.linkname, prefix)
        yield header(name, LINK, mode=mode, mtime=mtime, target=target)
    elif info.isreg():
        yield header(name, FILE, mode=mode, mtime=mtime, size=info.size)
        source = tar.extractfile(info)
        assert source is not None
        while data := source.read(_CHUNK):
            yield data
        yield bytes(-info.size % BLOCK)


def _inside(name: str, prefix: str) -> bytes:
    words = [word for word in name.split("/") if word not in ("", ".")]
    if ".." in words:
        raise ClientError(f"the context from STDIN has an entry that leads out of it: {name!r}")
    return "/".join([prefix, *words]).encode(errors="surrogateescape")
