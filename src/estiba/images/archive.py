"""Images as files: `docker save` archives and OCI layouts, in and out.

What comes in is spooled to numbered files first, because an archive names its parts in an
index that may stand at its end; no name in the archive ever becomes a path here.
"""

from __future__ import annotations

import json
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from estiba.images.images import Images, decode_config
from estiba.images.record import ImageRecord
from estiba.model.digest import Digest, digest_of, parse_digest
from estiba.model.errors import EstibaError, InvalidArgument, LimitExceeded
from estiba.model.image import (
    MEDIA_CONFIG,
    MEDIA_INDEX,
    MEDIA_LAYER,
    MEDIA_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
)
from estiba.model.reference import Reference, parse_reference
from estiba.storage.compress import Decompressed
from estiba.storage.layers import LayerInfo
from estiba.storage.tar import Kind, Source, TarReader

T = TypeVar("T")

_MAX_JSON_BYTES = 8 << 20
_MAX_PARTS = 20_000
_MAX_INDEX_DEPTH = 4
_MAX_NAMED = 1000
_MAX_NAME_BYTES = 4096
_REF_NAME = "org.opencontainers.image.ref.name"
_IMAGE_NAME = "io.containerd.image.name"


@dataclass(frozen=True, slots=True)
class LoadedImage:
    record: ImageRecord
    tags: list[str]


@dataclass(frozen=True, slots=True)
class _Part:
    """One image in an archive: its config and layers as spooled files, its tags."""

    config: Path
    layers: list[Path]
    tags: list[Reference]


class _Spool:
    """The archive's members by name, as files of our own naming."""

    def __init__(self, directory: Path, source: Source, max_bytes: int) -> None:
        self._files: dict[str, Path] = {}
        self._links: dict[str, str] = {}
        total = 0
        reader = TarReader(Decompressed(source))
        for number, entry in enumerate(reader):
            if number > _MAX_PARTS:
                raise LimitExceeded(f"an image archive with more than {_MAX_PARTS} members")
            if len(entry.name) > _MAX_NAME_BYTES or len(entry.link) > _MAX_NAME_BYTES:
                raise LimitExceeded("an image archive with a name of over 4,096 bytes")
            name = _normal(entry.name.decode(errors="replace"))
            if entry.kind in (Kind.SYMLINK, Kind.HARDLINK):
                link = entry.link.decode(errors="replace")
                base = name.rpartition("/")[0] if entry.kind == Kind.SYMLINK else ""
                self._links[name] = _normal(f"{base}/{link}")
            if entry.kind != Kind.FILE:
                continue
            path = directory / str(number)
            with path.open("wb") as file:
                while piece := reader.data():
                    total += len(piece)
                    if total > max_bytes:
                        raise LimitExceeded(f"an image archive of more than {max_bytes} bytes")
                    file.write(piece)
            self._files[name] = path

    def path(self, name: str) -> Path:
        """Raises InvalidArgument for a member that is not there."""
        normal = _normal(name)
        normal = self._links.get(normal, normal)
        path = self._files.get(normal)
        if path is None:
            raise InvalidArgument(f"the archive lacks {name[:200]!r}, which its index names")
        return path

    def has(self, name: str) -> bool:
        return name in self._files

    def json(self, name: str) -> Any:
        return _json(_small(self.path(name)), name)


def load(images: Images, source: Source, work: Path) -> Iterator[LoadedImage]:
    """Loads every image of an archive; yields each as it is done. Blocks.

    Raises InvalidArgument, LimitExceeded or DataLoss; images that were yielded stay.
    """
    directory = work / f"load-{secrets.token_hex(8)}"
    directory.mkdir(parents=True, mode=0o700)
    try:
        spool = _Spool(directory, source, images.layers.limits.total_bytes)
        for part in _parts(spool):
            yield _load_part(images, part)
    except BaseException:
        images.collect()
        raise
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _parts(spool: _Spool) -> list[_Part]:
    if spool.has("manifest.json"):
        return _docker_parts(spool)
    if spool.has("index.json"):
        return list(_oci_parts(spool))
    raise InvalidArgument(
        "not an image archive: neither manifest.json (docker save) nor index.json (OCI layout) "
        "is in it; a file system tar goes through `import`"
    )


def _docker_parts(spool: _Spool) -> list[_Part]:
    manifest = spool.json("manifest.json")
    if not isinstance(manifest, list):
        raise InvalidArgument("manifest.json in the archive is not a list")
    if len(manifest) > _MAX_NAMED:
        raise LimitExceeded(f"the archive names more than {_MAX_NAMED} images")
    parts = []
    for item in manifest:
        try:
            layers = [spool.path(str(name)) for name in item["Layers"] or []]
            tags = [parse_reference(str(tag)) for tag in item.get("RepoTags") or []]
            parts.append(_Part(spool.path(str(item["Config"])), layers, tags[:_MAX_NAMED]))
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument(f"manifest.json in the archive is damaged: {error}") from error
    return parts


def _oci_parts(spool: _Spool) -> Iterator[_Part]:
    """Images of the index and of those in it; of several platforms those that run on Linux."""
    waiting: list[tuple[Any, list[Reference], int]] = [(spool.json("index.json"), [], 0)]
    seen = 0
    while waiting:
        value, tags, depth = waiting.pop(0)
        if depth > _MAX_INDEX_DEPTH:
            raise LimitExceeded("the archive's indexes are nested too deeply")
        index = _converted(value, Index)
        seen += len(index.manifests)
        if seen > _MAX_NAMED:
            raise LimitExceeded(f"the archive names more than {_MAX_NAMED} images")
        for descriptor in index.manifests:
            notes = descriptor.annotations
            own = [*tags, *_optional_reference(notes.get(_IMAGE_NAME) or notes.get(_REF_NAME, ""))]
            if descriptor.platform is not None and descriptor.platform.os not in ("linux", ""):
                continue
            body = _json(_small(_verified(spool, descriptor.digest)), descriptor.digest)
            if isinstance(body, dict) and "manifests" in body:
                waiting.append((body, own, depth + 1))
                continue
            manifest = _converted(body, Manifest)
            layers = [spool.path(_blob(layer.digest)) for layer in manifest.layers]
            yield _Part(_verified(spool, manifest.config.digest), layers, own)


def _converted(value: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what = kind.__name__.lower()
        raise InvalidArgument(f"the archive's {what} is damaged: {error}") from error


def _optional_reference(name: str) -> list[Reference]:
    """The annotation may hold a whole reference or a bare tag, which names nothing by itself."""
    if not name or ("/" not in name and ":" not in name):
        return []
    try:
        return [parse_reference(name)]
    except InvalidArgument:
        return []


def _verified(spool: _Spool, digest: Digest) -> Path:
    path = spool.path(_blob(digest))
    if digest_of(_small(path)) != digest:
        raise InvalidArgument(f"the archive's blob {digest} has another digest")
    return path


def _small(path: Path) -> bytes:
    """The content of a file that belongs in memory."""
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise LimitExceeded(f"a config or manifest in the archive is over {_MAX_JSON_BYTES} bytes")
    return path.read_bytes()


def _json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{name[:200]!r} in the archive is not JSON: {error}") from error


def _blob(digest: Digest) -> str:
    algorithm, _, encoded = parse_digest(digest).partition(":")
    return f"blobs/{algorithm}/{encoded}"


def _load_part(images: Images, part: _Part) -> LoadedImage:
    config_json = _small(part.config)
    diff_ids = decode_config(config_json).rootfs.diff_ids
    if len(diff_ids) != len(part.layers):
        raise InvalidArgument("the image's config and manifest disagree on the number of layers")
    infos: list[LayerInfo] = []
    leased: list[Digest] = []
    try:
        for path, diff_id in zip(part.layers, diff_ids, strict=True):
            parent = infos[-1].chain_id if infos else None
            infos.append(images.ensure_layer(path, parent, parse_digest(diff_id)))
            leased.append(infos[-1].chain_id)
        record = images.add(config_json, infos, part.tags, "load")
    finally:
        images.release(leased)
    return LoadedImage(record, [tag.tagged.familiar for tag in part.tags])


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


# -- saving --------------------------------------------------------------------------------


def save(images: Images, names: list[str]) -> Iterator[bytes]:
    """An archive that is an OCI layout and a `docker save` archive in one (as Docker writes
    since 25). Layers stand in it as plain tar, so their digests are their DiffIDs.

    Raises NotFound before the first byte.
    """
    chosen = _choose(images, names)
    records = list(chosen.values())
    chains = [chain for record, _ in records for chain in record.chain_ids]
    images.lease(chains)
    try:
        yield from _write_archive(images, records)
        for record, _ in records:
            images.announce(record, "save")
    finally:
        images.release(chains)


def _choose(images: Images, names: list[str]) -> dict[Digest, tuple[ImageRecord, list[str]]]:
    """Each image once, with the tags that were asked for; a bare repository means all its tags."""
    chosen: dict[Digest, tuple[ImageRecord, list[str]]] = {}
    for name in names:
        for wanted in images.tags_of(name) or [name]:
            record = images.resolve(wanted)
            tags = chosen.setdefault(record.id, (record, []))[1]
            try:
                tag = parse_reference(wanted).tagged.familiar
            except EstibaError:
                continue
            if tag in record.repo_tags and tag not in tags:
                tags.append(tag)
    return chosen


def _write_archive(images: Images, records: list[tuple[ImageRecord, list[str]]]) -> Iterator[bytes]:
    yield _directory("blobs/")
    yield _directory("blobs/sha256/")
    written: set[Digest] = set()
    manifests: list[Descriptor] = []
    docker_manifest = []
    for record, tags in records:
        layers = []
        created_s = max(0, record.created_ns // 10**9)
        for chain in record.chain_ids:
            info = images.layer_info(chain)
            layers.append(
                Descriptor(media_type=MEDIA_LAYER, digest=info.diff_id, size=info.tar_bytes)
            )
            if info.diff_id not in written:
                written.add(info.diff_id)
                yield _header(_blob(info.diff_id), info.tar_bytes, created_s)
                yield from images.layers.tar(chain)
                yield _padding(info.tar_bytes)
        config = record.config_json.encode()
        descriptor = Descriptor(media_type=MEDIA_CONFIG, digest=record.id, size=len(config))
        manifest = msgspec.json.encode(
            Manifest(schema_version=2, media_type=MEDIA_MANIFEST, config=descriptor, layers=layers)
        )
        yield _file(_blob(record.id), config, created_s)
        yield _file(_blob(digest_of(manifest)), manifest, created_s)
        manifests += _index_entries(record, tags, manifest)
        docker_manifest.append(
            {
                "Config": _blob(record.id),
                "RepoTags": tags or None,
                "Layers": [_blob(layer.digest) for layer in layers],
            }
        )
    index = Index(schema_version=2, media_type=MEDIA_INDEX, manifests=manifests)
    yield _file("index.json", msgspec.json.encode(index))
    yield _file("manifest.json", json.dumps(docker_manifest).encode())
    yield _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    yield bytes(tarfile.BLOCKSIZE * 2)


def _index_entries(record: ImageRecord, tags: list[str], manifest: bytes) -> list[Descriptor]:
    config = record.config
    base = Descriptor(
        media_type=MEDIA_MANIFEST,
        digest=digest_of(manifest),
        size=len(manifest),
        platform=Platform(os=config.os, architecture=config.architecture, variant=config.variant),
    )
    entries = []
    for tag in tags:
        reference = parse_reference(tag)
        names = {_IMAGE_NAME: str(reference), _REF_NAME: reference.tag or ""}
        entries.append(msgspec.structs.replace(base, annotations=names))
    return entries or [base]


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


def _file(name: str, data: bytes, time_s: int = 0) -> bytes:
    return _header(name, len(data), time_s) + data + _padding(len(data))


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
