"""What a plugin has on the disk, and its two ways there: a tar of the user's, and a registry.

    <root>/content/<place>/rootfs           its file system, in which it runs and may write
    <root>/content/<place>/layers/<sha256>  its layers as they are pushed
    <root>/mounts/<id>                      what it mounts there the host sees

All blocks. Archives and configs are a stranger's: the unpacker and the limits of images hold.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from estiba.distribution.repository import Repository
from estiba.images.manifests import parse
from estiba.images.progress import Progress, short
from estiba.kernel.trees import opened_directory
from estiba.managed.config import MAX_BYTES, MEDIA_CONFIG, PluginConfig, Rootfs, parse_config
from estiba.model.digest import Digest
from estiba.model.errors import InvalidArgument, LimitExceeded
from estiba.model.image import Descriptor, Manifest, encode_manifest
from estiba.storage.compress import Decompressed
from estiba.storage.pack import pack_tree
from estiba.storage.tar import Entry, Kind, Source, TarReader
from estiba.storage.unpack import WHITEOUT, Limits, Unpacker, UnpackOptions

MEDIA_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MEDIA_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
LIMITS = Limits(total_bytes=16 << 30, entries=500_000)

_ROOT = b"rootfs"
_CONFIG = b"config.json"
_MAX_LAYERS = 32
_MAX_LAYER_BYTES = 8 << 30
_CHUNK = 256 << 10


@dataclass(frozen=True, slots=True)
class Content:
    """What came; the files are in the directory that was given."""

    config: PluginConfig
    config_body: bytes
    config_digest: Digest
    layers: list[Descriptor]


# -- from a tar --------------------------------------------------------------------------------


def from_tar(source: Source, directory: Path, version: str) -> Content:
    """`config.json` and `rootfs/` of a tar, compressed or not.

    Raises InvalidArgument, LimitExceeded, OSError.
    """
    rootfs = _make(directory)
    body = _unpack_context(TarReader(Decompressed(source)), rootfs)
    layer = _pack(rootfs, directory / "layers")
    config = msgspec.structs.replace(
        parse_config(body), docker_version=version, rootfs=Rootfs(diff_ids=[layer.digest])
    )
    encoded = msgspec.json.encode(config)
    return Content(config, encoded, _digest(encoded), [layer])


def _unpack_context(reader: TarReader, rootfs: Path) -> bytes:
    """The config's bytes; what is neither it nor below rootfs/ is passed over."""
    body: bytes | None = None
    has_root = False
    with opened_directory(rootfs) as root:
        unpacker = Unpacker(root, UnpackOptions(limits=LIMITS))
        try:
            for entry in reader:
                name = os.path.normpath(b"/" + entry.name).lstrip(b"/")
                if name == _CONFIG and entry.kind == Kind.FILE:
                    body = _read(reader, entry)
                elif name == _ROOT or name.startswith(_ROOT + b"/"):
                    has_root = True
                    entry.name = name[len(_ROOT) :].lstrip(b"/") or b"."
                    if entry.kind == Kind.HARDLINK:
                        entry.link = _below_root(entry.link)
                    unpacker.apply(entry, reader)
            unpacker.finish()
        finally:
            unpacker.close()
    if body is None:
        raise InvalidArgument("config not found: the archive needs config.json at its top")
    if not has_root:
        raise InvalidArgument("no rootfs found: the archive needs a directory rootfs at its top")
    return body


def _below_root(link: bytes) -> bytes:
    name = os.path.normpath(b"/" + link).lstrip(b"/")
    return name[len(_ROOT) + 1 :] if name.startswith(_ROOT + b"/") else name


def _read(reader: TarReader, entry: Entry) -> bytes:
    if entry.size > MAX_BYTES:
        raise LimitExceeded(f"the plugin's config.json is larger than {MAX_BYTES} bytes")
    pieces = []
    while piece := bytes(reader.data()):
        pieces.append(piece)
    return b"".join(pieces)


def _pack(rootfs: Path, layers: Path) -> Descriptor:
    """The layer that a push sends; the same tree gives the same bytes."""
    temporary = layers / ".new"
    with temporary.open("wb") as file, opened_directory(rootfs) as root:
        hashed = _Hashed(file)
        with gzip.GzipFile(filename="", mode="wb", fileobj=hashed, compresslevel=6, mtime=0) as out:
            for piece in pack_tree(root):
                out.write(piece)
        digest = hashed.digest
        size = hashed.size
    temporary.rename(layers / digest.partition(":")[2])
    return Descriptor(media_type=MEDIA_LAYER, digest=digest, size=size)


class _Hashed:
    """A file that says what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> Digest:
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


# -- from and to a registry --------------------------------------------------------------------


def fetch_config(repository: Repository, target: str) -> tuple[Manifest, PluginConfig, bytes]:
    """Raises NotFound, Unauthorized, Unavailable, and InvalidArgument for what is no plugin."""
    fetched = repository.manifest(target)
    content = fetched.content
    value = parse(fetched.body, content.digest, content.media_type).value
    if not isinstance(value, Manifest) or value.config.media_type != MEDIA_CONFIG:
        raise InvalidArgument(
            f"did not find plugin config for specified reference {repository.reference}: "
            "target is image or another artifact"
        )
    if value.config.size > MAX_BYTES:
        raise LimitExceeded(f"the plugin's config is larger than {MAX_BYTES} bytes")
    body = repository.read_blob(value.config.digest, value.config.size)
    return value, parse_config(body), body


def fetch_layers(repository: Repository, manifest: Manifest, directory: Path) -> Iterator[Progress]:
    """Its layers, unpacked and kept as they came. Raises as `fetch_config`, and DataLoss."""
    rootfs = _make(directory)
    if not 0 < len(manifest.layers) <= _MAX_LAYERS:
        raise InvalidArgument(f"a plugin has 1 to {_MAX_LAYERS} layers, not {len(manifest.layers)}")
    if sum(layer.size for layer in manifest.layers) > _MAX_LAYER_BYTES:
        raise LimitExceeded(f"the plugin's layers are larger than {_MAX_LAYER_BYTES} bytes")
    for layer in manifest.layers:
        yield Progress("Downloading", short(layer.digest), 0, layer.size)
        path = directory / "layers" / layer.digest.partition(":")[2]
        with path.open("wb") as file, repository.blob(layer.digest, layer.size) as stream:
            while piece := stream.read(_CHUNK):
                file.write(piece)
        with path.open("rb") as file, opened_directory(rootfs) as root:
            _apply_layer(TarReader(Decompressed(file)), root)
        yield Progress("Download complete", short(layer.digest))


def _apply_layer(reader: TarReader, root: int) -> None:
    """A plugin has no layers below it: what a whiteout takes away must not matter."""
    unpacker = Unpacker(root, UnpackOptions(limits=LIMITS))
    try:
        for entry in reader:
            if entry.name.rstrip(b"/").rpartition(b"/")[2].startswith(WHITEOUT):
                raise InvalidArgument(
                    "layers of plugins that take files away (whiteouts) are not supported: "
                    "make the plugin of one layer"
                )
            unpacker.apply(entry, reader)
        unpacker.finish()
    finally:
        unpacker.close()


def push(
    repository: Repository, target: str, content: Content, directory: Path
) -> Iterator[Progress]:
    """Raises Unauthorized, Forbidden, Unavailable, DataLoss."""
    for layer in content.layers:
        name = short(layer.digest)
        yield Progress("Preparing", name)
        if repository.has_blob(layer.digest):
            yield Progress("Layer already exists", name)
            continue
        path = directory / "layers" / layer.digest.partition(":")[2]
        with path.open("rb") as file:
            repository.upload_blob(file, size=layer.size, digest=layer.digest)
        yield Progress("Pushed", name)
    body = content.config_body
    config = Descriptor(media_type=MEDIA_CONFIG, digest=content.config_digest, size=len(body))
    if not repository.has_blob(config.digest):
        repository.upload_blob(_Bytes(body), size=config.size, digest=config.digest)
    manifest = Manifest(
        schema_version=2, media_type=MEDIA_MANIFEST, config=config, layers=content.layers
    )
    stored = repository.put_manifest(target, encode_manifest(manifest), MEDIA_MANIFEST)
    told = f"{target}: digest: {stored.digest} size: {stored.size}"
    yield Progress(told, pushed=(target, stored.digest, stored.size))


class _Bytes:
    """`distribution.uploads.Source` of bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int, /) -> bytes:
        piece, self._data = self._data[:size], self._data[size:]
        return piece


def _make(directory: Path) -> Path:
    rootfs = directory / "rootfs"
    rootfs.mkdir(mode=0o755, parents=True)
    rootfs.chmod(0o755)
    directory.chmod(0o700)
    (directory / "layers").mkdir(mode=0o700)
    return rootfs


def _digest(data: bytes) -> Digest:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
