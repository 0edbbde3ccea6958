"""A volume as an archive: tar compressed by zstd, and a new volume from one.

    volume.json     name, labels and options; no key and no place of files
    data/           the files: owners, modes, times to the nanosecond, attributes, hard links, holes

An archive is input like any other: nothing of it is reached by a path that leads out of the new
volume's directory, limits hold while it is unpacked, and what is cut off or wrong makes no volume.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import msgspec
import zstandard

from estiba.kernel.trees import opened_directory
from estiba.model.decoding import from_json
from estiba.model.errors import Conflict, InvalidArgument
from estiba.storage.compress import Decompressed
from estiba.storage.pack import Packer, pack_end
from estiba.storage.tar import BLOCK, Entry, Kind, Source, TarReader
from estiba.storage.tarheader import Member, header
from estiba.storage.unpack import Limits, Unpacker, UnpackOptions
from estiba.volumes.clones import is_elsewhere
from estiba.volumes.record import ANONYMOUS_LABEL, VolumeRecord
from estiba.volumes.volumes import Volumes
from estiba.volumes.whole import held, make_filled

FORMAT = 1
_DESCRIPTION, _DATA = b"volume.json", b"data"
_MAX_DESCRIPTION_BYTES = 1 << 20
_LEVEL = 3
_MAX_NAME = 255
_KEPT_OPTIONS = ("size", "encrypted")
"""Neither keys nor places of files: a stranger's archive might name any of this host's."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive tells of its volume."""

    format: int
    name: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}


def describe(volumes: Volumes, name: str, *, plain: bool) -> Description:
    """Raises NotFound, Conflict for an encrypted volume unless `plain` says that it is meant."""
    record = volumes.get(name)
    if "encrypted" in record.options and not plain:
        raise Conflict(
            f"volume {name} is encrypted and its backup would not be: say so with --plain, and "
            "keep the backup as you keep the key"
        )
    options = {} if is_elsewhere(volumes, record) else record.options
    return Description(
        format=FORMAT,
        name=name,
        labels={key: text for key, text in record.labels.items() if key != ANONYMOUS_LABEL},
        options=_kept_options(options),
    )


def archive(volumes: Volumes, description: Description) -> Generator[bytes, None, None]:
    """The volume's archive, as it is read. Of a volume in use each file is as it is at a moment
    of its own.

    Raises NotFound, OSError.
    """
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
    name = description.name
    with held(volumes, name), volumes.opened(name) as root:
        for piece in _members(root, msgspec.json.encode(description)):
            if compressed := compressor.compress(piece):
                yield compressed
    yield compressor.flush()


def _members(root: int, description: bytes) -> Iterator[bytes]:
    member = Member(_DESCRIPTION, Kind.FILE, 0o644, size=len(description))
    yield header(member) + description + bytes(-len(description) % BLOCK)
    packer = Packer(sparse=True)
    yield from packer.root(root, os.fsdecode(_DATA))
    yield from packer.tree(root, f"{os.fsdecode(_DATA)}/")
    yield pack_end()


def restore(
    volumes: Volumes,
    name: str,
    source: Source,
    *,
    limits: Limits,
    options: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> VolumeRecord:
    """A new volume `name` from an archive; it appears when all of it is there.

    Without `options` it has the archive's: the same limit, and a new key if it was encrypted.

    Raises InvalidArgument for what is no such archive or is damaged, LimitExceeded,
    AlreadyExists, OSError (a full disk).
    """
    reader = TarReader(Decompressed(source))
    entries = iter(reader)
    found = _read_description(next(entries, None), reader)

    def fill(target: Path) -> None:
        with opened_directory(target) as root:
            _unpack(reader, entries, root, limits)

    chosen = _kept_options(found.options) if options is None else options
    merged = {**found.labels, **(labels or {})}
    record = make_filled(volumes, name, fill, options=chosen, labels=merged)
    volumes.catalog.announce(name, "restore", {"from": found.name[:_MAX_NAME]})
    return record


def _kept_options(options: Mapping[str, str]) -> dict[str, str]:
    return {key: text for key, text in options.items() if key in _KEPT_OPTIONS}


def _read_description(entry: Entry | None, reader: TarReader) -> Description:
    if entry is None or entry.name != _DESCRIPTION or entry.kind is not Kind.FILE:
        raise InvalidArgument("this is no backup of a volume: it does not begin with volume.json")
    if entry.size > _MAX_DESCRIPTION_BYTES:
        raise InvalidArgument(f"volume.json: larger than {_MAX_DESCRIPTION_BYTES} bytes")
    data = b"".join(bytes(piece) for piece in iter(reader.data, b""))
    try:
        found = from_json(data, Description)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"volume.json: {error}") from error
    if found.format != FORMAT:
        raise InvalidArgument(
            f"this backup has the format {found.format}, and this engine knows {FORMAT}: use a "
            "newer one"
        )
    return found


def _unpack(reader: TarReader, entries: Iterator[Entry], root: int, limits: Limits) -> None:
    unpacker = Unpacker(root, UnpackOptions(limits=limits))
    try:
        for entry in entries:
            entry.name = _below(entry.name)
            if entry.kind is Kind.HARDLINK:
                entry.link = _below(entry.link)
            unpacker.apply(entry, reader)
        # Padding of the last member alone is shorter than the block that ends an archive.
        if len(reader.trailer) < BLOCK:
            raise InvalidArgument("the backup is cut off: its end is missing")
        unpacker.finish()
    finally:
        unpacker.close()


def _below(name: bytes) -> bytes:
    """The name within the volume."""
    first, _, rest = name.partition(b"/")
    if first != _DATA:
        shown = name[:200].decode(errors="replace")
        raise InvalidArgument(f"this is no backup of a volume: {shown!r} is not below data/")
    return rest
