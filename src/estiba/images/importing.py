"""Images from a file system: `import` of a tar, and `commit` of a container."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from estiba.images.changes import apply_changes
from estiba.images.images import Images, Naming, NewImage, check_taggable
from estiba.images.record import ImageRecord, now_text
from estiba.model.image import (
    HistoryEntry,
    ImageConfig,
    ImageProcessConfig,
    Platform,
    RootFs,
    encode_config,
)
from estiba.model.reference import Reference
from estiba.storage.compress import Decompressed
from estiba.storage.tar import Source


@dataclass(frozen=True, slots=True)
class Description:
    """What the new image says of itself."""

    comment: str = ""
    author: str = ""
    created_by: str = ""
    changes: tuple[str, ...] = ()


class IteratorSource:
    """A source over an iterator of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, _size: int, /) -> bytes:
        for piece in self._pieces:
            if piece:
                return piece
        return b""


def import_tar(
    images: Images,
    source: Source,
    *,
    tags: Sequence[Reference],
    description: Description,
    platform: Platform,
) -> ImageRecord:
    """An image of one layer; the tar may be compressed. Blocks.

    Raises InvalidArgument or LimitExceeded for a bad archive or change.
    """
    process = apply_changes(ImageProcessConfig(), description.changes)
    entry = HistoryEntry(created=now_text(), comment=description.comment)
    empty = ImageConfig(
        architecture=platform.architecture, variant=platform.variant, author=description.author
    )
    return _add_layer(images, Decompressed(source), None, empty, process, entry, tags, "import")


def commit_layer(
    images: Images,
    diff: Iterator[bytes],
    base: ImageRecord | None,
    process: ImageProcessConfig,
    *,
    tags: Sequence[Reference],
    description: Description,
    platform: Platform,
) -> ImageRecord:
    """An image of `base` and the container's layer, given as tar. Blocks."""
    entry = HistoryEntry(
        created=now_text(),
        created_by=description.created_by,
        author=description.author,
        comment=description.comment,
    )
    changed = apply_changes(process, description.changes)
    before = (
        base.config
        if base
        else ImageConfig(architecture=platform.architecture, variant=platform.variant)
    )
    if description.author:
        before = msgspec.structs.replace(before, author=description.author)
    return _add_layer(images, IteratorSource(diff), base, before, changed, entry, tags, "commit")


def _add_layer(
    images: Images,
    source: Source,
    base: ImageRecord | None,
    before: ImageConfig,
    process: ImageProcessConfig,
    entry: HistoryEntry,
    tags: Sequence[Reference],
    action: str,
) -> ImageRecord:
    """An image of `base`, whose config is `before`, and one more layer."""
    for tag in tags:
        check_taggable(tag)
    below = base.layers if base else []
    # The container under it, and with that its snapshot, may go meanwhile.
    with images.leases.held(below):
        layer = images.ingest(source)
        try:
            infos = [*(images.layer_info(one) for one in below), layer]
            config = msgspec.structs.replace(
                before,
                created=entry.created,
                config=process,
                rootfs=RootFs(diff_ids=[info.diff_id for info in infos]),
                history=[*before.history, entry],
            )
            new = NewImage(encode_config(config), infos, parent=base.id if base else "")
            return images.add(new, Naming(tuple(tags)), action)
        finally:
            images.leases.release([layer.diff_id])
