"""An OCI layout as a tar stream, each blob once (image-spec 1.1, image-layout.md)."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from estiba.model.digest import Digest
from estiba.model.image import MEDIA_INDEX, Descriptor, Index


@dataclass(slots=True)
class LayoutWriter:
    """`begin`, then `blob` as often as needed, then `end`, unless other files are to follow."""

    _written: set[Digest] = field(default_factory=set)

    def begin(self) -> bytes:
        return _directory("blobs/") + _directory("blobs/sha256/")

    def blob(
        self, descriptor: Descriptor, pieces: Iterator[bytes], time_s: int = 0
    ) -> Iterator[bytes]:
        """`pieces` are as many bytes as the descriptor says; unread when it was written before."""
        if descriptor.digest in self._written:
            return
        self._written.add(descriptor.digest)
        yield _header(blob_name(descriptor.digest), descriptor.size, time_s)
        yield from pieces
        yield _padding(descriptor.size)

    def index(self, entries: Sequence[Descriptor]) -> bytes:
        """The two files that make it a layout."""
        index = Index(schema_version=2, media_type=MEDIA_INDEX, manifests=list(entries))
        body = msgspec.json.encode(index)
        return file_member("index.json", body) + file_member(
            "oci-layout", b'{"imageLayoutVersion":"1.0.0"}'
        )

    def end(self, entries: Sequence[Descriptor]) -> bytes:
        return self.index(entries) + END


END = bytes(tarfile.BLOCKSIZE * 2)


def blob_name(digest: Digest) -> str:
    algorithm, _, encoded = digest.partition(":")
    return f"blobs/{algorithm}/{encoded}"


def file_member(name: str, data: bytes, time_s: int = 0) -> bytes:
    return _header(name, len(data), time_s) + data + _padding(len(data))


def _header(name: str, size: int, time_s: int = 0) -> bytes:
    """The same image gives the same bytes: its members bear the time that it was made at."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mtime = time_s
    info.mode = 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def _directory(name: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
