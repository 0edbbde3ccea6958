"""Images from a file system: `import` of a tar, and `commit` of a container."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from estiba.images.changes import apply_changes
from estiba.images.images import Images
from estiba.images.record import ImageRecord, now_text
from estiba.model.image import HistoryEntry, ImageProcessConfig, Platform
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
    tags: Iterable[Reference],
    description: Description,
    platform: Platform,
) -> ImageRecord:
    """An image of one layer; the tar may be compressed. Blocks.

    Raises InvalidArgument or LimitExceeded for a bad archive or change.
    """
    process = apply_changes(ImageProcessConfig(), description.changes)
    entry = HistoryEntry(created=now_text(), comment=description.comment)
    layer = images.ingest(Decompressed(source), None)
    try:
        return images.add_layer(
            None,
            layer,
            process,
            entry=entry,
            author=description.author,
            platform=platform,
            tags=tags,
            action="import",
        )
    finally:
        images.release([layer.chain_id])


def commit_layer(
    images: Images,
    diff: Iterator[bytes],
    base: ImageRecord | None,
    process: ImageProcessConfig,
    *,
    tags: Iterable[Reference],
    description: Description,
    platform: Platform,
) -> ImageRecord:
    """An image of `base` and the container's layer, given as tar. Blocks."""
    parent = base.chain_ids[-1] if base and base.chain_ids else None
    entry = HistoryEntry(
        created=now_text(),
        created_by=description.created_by,
        author=description.author,
        comment=description.comment,
    )
    changed = apply_changes(process, description.changes)
    layer = images.ingest(IteratorSource(diff), parent)
    try:
        return images.add_layer(
            base,
            layer,
            changed,
            entry=entry,
            author=description.author,
            platform=platform,
            tags=tags,
            action="commit",
        )
    finally:
        images.release([layer.chain_id])
