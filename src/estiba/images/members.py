"""The members of an image archive: layers unpacked as they come by, all else spooled."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estiba.images.images import Images
from estiba.images.importing import IteratorSource
from estiba.kernel.files import write_all
from estiba.model.digest import Digest, hex_of
from estiba.model.errors import DataLoss, InvalidArgument, LimitExceeded
from estiba.model.image import Descriptor
from estiba.storage.compress import Decompressed, is_compressed
from estiba.storage.encoding import PLAIN, Blob, Probe
from estiba.storage.layers import LayerInfo
from estiba.storage.tar import Kind, Source, TarReader, is_tar

_MAX_JSON_BYTES = 8 << 20
_MAX_MEMBERS = 20_000
_MAX_NAME_BYTES = 4096
_CHUNK = 1 << 18
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Member:
    """`path` is None for a layer that was not spooled, `layer` for what was not unpacked.

    `digest` is that of its bytes, in the algorithm that its name asks for.
    """

    digest: Digest
    size: int
    path: Path | None
    layer: LayerInfo | None = None


class Members:
    """By their names in the archive; what it takes is leased until `close`."""

    def __init__(self, images: Images, directory: Path) -> None:
        self._images = images
        self._directory = directory
        self._members: dict[str, _Member] = {}
        self._links: dict[str, str] = {}
        self._held: list[Digest] = []

    def read(self, source: Source) -> None:
        """Takes the whole archive. Raises InvalidArgument or LimitExceeded."""
        limit = self._images.layers.limits.total_bytes
        total = 0
        reader = TarReader(Decompressed(source))
        for number, entry in enumerate(reader):
            if number > _MAX_MEMBERS:
                raise LimitExceeded(f"an image archive with more than {_MAX_MEMBERS} members")
            if len(entry.name) > _MAX_NAME_BYTES or len(entry.link) > _MAX_NAME_BYTES:
                raise LimitExceeded("an image archive with a name of over 4,096 bytes")
            name = _normal(entry.name.decode(errors="replace"))
            if entry.kind in (Kind.SYMLINK, Kind.HARDLINK):
                link = entry.link.decode(errors="replace")
                base = name.rpartition("/")[0] if entry.kind == Kind.SYMLINK else ""
                self._links[name] = _normal(f"{base}/{link}")
            if entry.kind != Kind.FILE:
                continue
            total += entry.size
            if total > limit:
                raise LimitExceeded(f"an image archive of more than {limit} bytes")
            self._members[name] = self._take(name, self._directory / str(number), reader)

    def _take(self, name: str, path: Path, reader: TarReader) -> _Member:
        data = _MemberData(reader)
        head = data.peek()
        if is_tar(head):
            known = self._known(name.rpartition("/")[2])
            if known is not None:
                self._held.append(known.diff_id)
                return _Member(known.diff_id, known.tar_bytes, None, known)
            return self._unpack(name, data, None)
        if is_compressed(head):
            return self._unpack(name, data, path)
        tee = _Tee(data, path, _algorithm(name))
        with closing(tee):
            tee.drain()
        return _Member(tee.digest, tee.size, path)

    def _known(self, encoded: str) -> LayerInfo | None:
        """The layer that a member of this name has to be, if it is here; what it holds instead
        is never looked at.
        """
        if not _HEX.fullmatch(encoded):
            return None
        return self._images.held_layer(f"sha256:{encoded}")

    def _unpack(self, name: str, data: _MemberData, path: Path | None) -> _Member:
        """A layer, or what looks like one: `path` gets its bytes, if they could be lost."""
        tee = _Tee(data, path, _algorithm(name))
        with closing(tee):
            try:
                info = self._images.ingest(tee.plain())
            except InvalidArgument:
                if path is None:
                    raise
                tee.drain()
                return _Member(tee.digest, tee.size, path)
        self._held.append(info.diff_id)
        if path is None:
            blob = Blob(digest=info.diff_id, size=info.tar_bytes, encoding=PLAIN, is_proven=True)
        else:
            blob = Blob(digest=tee.digest, size=tee.size, encoding=tee.encoding())
        self._images.layers.note_blob(info.diff_id, blob)
        return _Member(blob.digest, blob.size, path, info)

    def _find(self, name: str) -> _Member:
        """Raises InvalidArgument for a member that is not there."""
        normal = _normal(name)
        normal = self._links.get(normal, normal)
        member = self._members.get(normal)
        if member is None:
            raise InvalidArgument(f"the archive lacks {name[:200]!r}, which its index names")
        return member

    def has(self, name: str) -> bool:
        return name in self._members

    def small(self, name: str) -> bytes:
        """The content of a member that belongs in memory."""
        path = self._find(name).path
        if path is None or path.stat().st_size > _MAX_JSON_BYTES:
            raise LimitExceeded(f"{name[:200]!r} in the archive is over {_MAX_JSON_BYTES} bytes")
        return path.read_bytes()

    def json(self, name: str) -> Any:
        try:
            return json.loads(self.small(name))
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"{name[:200]!r} in the archive is not JSON: {error}") from error

    def checked(self, name: str, digest: Digest) -> bytes:
        """Raises InvalidArgument when the member's content has another digest."""
        data = self.small(name)
        if hashlib.new(digest.partition(":")[0], data).hexdigest() != hex_of(digest):
            raise InvalidArgument(f"the archive's blob {digest} has another digest")
        return data

    def check(self, name: str, descriptor: Descriptor) -> None:
        """Raises DataLoss when the member is not the blob that a manifest names."""
        member = self._find(name)
        if (member.digest, member.size) != (descriptor.digest, descriptor.size):
            raise DataLoss(
                f"the archive's blob {descriptor.digest} of {descriptor.size} bytes has "
                f"{member.size} bytes and the digest {member.digest}"
            )

    def layer(self, name: str, diff_id: Digest) -> LayerInfo:
        """Raises DataLoss when the member holds another layer."""
        member = self._find(name)
        info = member.layer
        if info is None and member.digest == diff_id:
            info = self._images.held_layer(diff_id)
        if info is None and member.path is not None:
            with member.path.open("rb", buffering=0) as file:
                info = self._images.ingest(Decompressed(file), expected=diff_id)
        if info is None:
            raise InvalidArgument(f"{name[:200]!r} in the archive is no layer")
        if member.layer is None:
            self._held.append(info.diff_id)
        if info.diff_id != diff_id:
            raise DataLoss(f"layer digest mismatch: expected {diff_id}, got {info.diff_id}")
        return info

    def keep(self, name: str, digest: Digest, size_bytes: int) -> None:
        """A member's own bytes into the content store. Raises InvalidArgument, DataLoss."""
        member = self._find(name)
        content = self._images.content
        if member.path is not None:
            with member.path.open("rb", buffering=0) as file:
                content.ingest(file, digest, size_bytes)
        elif member.layer is not None:
            tar = self._images.layers.tar(member.layer.diff_id)
            content.ingest(IteratorSource(tar), digest, size_bytes)

    def hold(self, digests: Iterable[Digest]) -> None:
        """Leases content until `close`."""
        kept = list(digests)
        self._images.leases.take(kept)
        self._held += kept

    def close(self) -> None:
        self._images.leases.release(self._held)
        self._held.clear()


class _MemberData:
    """One member's data as a source."""

    def __init__(self, reader: TarReader) -> None:
        self._reader = reader
        self._head = b""

    def peek(self) -> bytes:
        while len(self._head) < 512 and (piece := self._reader.data(_CHUNK)):
            self._head += piece
        return self._head

    def read(self, size: int = _CHUNK, /) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        return bytes(self._reader.data(size))


class _Tee:
    """Hashes, probes and copies a layer's blob while its tar is drawn from it."""

    def __init__(self, source: Source, path: Path | None, algorithm: str) -> None:
        self._source = source
        self._file = path.open("wb", buffering=0) if path else None
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self.size = 0
        self._probe = Probe()
        self._plain: Source | None = None

    def plain(self) -> Source:
        """The tar."""
        self._plain = Decompressed(_Reading(self.read)) if self._file else self._source
        return _Reading(self._draw) if self._file else self._plain

    def _draw(self, size: int) -> bytes:
        assert self._plain is not None
        piece = self._plain.read(size)
        self._probe.plain(piece)
        return piece

    def read(self, size: int) -> bytes:
        """The blob."""
        piece = self._source.read(size)
        self._hash.update(piece)
        self.size += len(piece)
        self._probe.raw(piece)
        if self._file is not None:
            write_all(self._file, piece)
        return piece

    def drain(self) -> None:
        while self.read(_CHUNK):
            pass

    @property
    def digest(self) -> Digest:
        return f"{self._algorithm}:{self._hash.hexdigest()}"

    def encoding(self) -> str:
        return self._probe.encoding()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Reading:
    """A source out of a function."""

    def __init__(self, read: Any) -> None:
        self.read = read


def _algorithm(name: str) -> str:
    """The digest by which an OCI layout names the member."""
    return "sha512" if name.startswith("blobs/sha512/") else "sha256"


def _normal(name: str) -> str:
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise InvalidArgument(f"the archive's name {name[:200]!r} leads out of it")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
