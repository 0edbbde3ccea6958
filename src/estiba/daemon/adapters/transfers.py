"""Images in and out for the routes: archives, file systems."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estiba.daemon.adapters.bridging import each, iterate
from estiba.daemon.adapters.download import Download
from estiba.http1 import Body
from estiba.http1.uploads import Upload
from estiba.images import saving
from estiba.images.images import Images, check_taggable
from estiba.images.importing import Description, import_tar
from estiba.images.loading import LoadedImage, load
from estiba.images.record import ImageRecord
from estiba.kernel.blocking import run_apart, run_blocking
from estiba.model.image import Platform, parse_platform
from estiba.model.reference import Reference, parse_reference
from estiba.storage.tar import Source

Json = dict[str, Any]


@dataclass(slots=True)
class ImageTransfers:
    """`api.ports.ImageTransfers`."""

    images: Images
    work: Path
    architecture: str

    def platform(self, text: str) -> Platform:
        if not text:
            return Platform(architecture=self.architecture)
        return parse_platform(text, self.architecture)

    async def load(
        self, body: Body, *, quiet: bool, platforms: list[Platform]
    ) -> AsyncIterator[Json]:
        source = Upload(body)
        work = load(self.images, source, self.work, tuple(platforms))
        async with aclosing(each(work)) as steps:
            try:
                async for loaded in steps:
                    for text in _told(loaded):
                        yield {"stream": f"{text}\n"}
            finally:
                # Before the iterator is closed, which waits for its step under way.
                source.close()

    async def save(
        self, names: list[str], *, platforms: list[Platform], form: str
    ) -> AsyncIterator[bytes]:
        pieces = saving.save(self.images, names, tuple(platforms), form)
        # What is wrong with the names must be told before the answer's head.
        head = await run_blocking(next, pieces)
        return iterate(_whole(head, pieces))

    async def import_(
        self,
        body: Body,
        *,
        source: str,
        repository: str,
        tag: str,
        message: str,
        changes: list[str],
        platform: Platform,
    ) -> AsyncIterator[Json]:
        stream: Upload | Download | None = None
        try:
            tags = [parse_reference(repository).with_tag(tag)] if repository else []
            for name in tags:
                check_taggable(name)
            if source == "-":
                stream = Upload(body)
            else:
                stream = Download(source)
                yield {"status": f"Downloading from {stream.url}"}
            record = await run_apart(
                self._import, stream, tags, message or f"Imported from {source}", changes, platform
            )
            yield {"status": record.id}
        finally:
            if stream is not None:
                stream.close()

    def _import(
        self,
        source: Source,
        tags: list[Reference],
        message: str,
        changes: list[str],
        platform: Platform,
    ) -> ImageRecord:
        return import_tar(
            self.images,
            source,
            tags=tags,
            description=Description(
                comment=message,
                changes=tuple(line for text in changes for line in text.split("\n")),
            ),
            platform=platform,
        )


def _told(loaded: LoadedImage) -> list[str]:
    lost = [
        f"The image {tag} already exists, renaming the old one with ID {holder} to empty string"
        for tag, holder in loaded.lost
    ]
    names = [f"Loaded image: {tag}" for tag in loaded.tags]
    return lost + (names or [f"Loaded image ID: {loaded.record.id}"])


def _whole(head: bytes, rest: Generator[bytes, None, None]) -> Iterator[bytes]:
    with closing(rest):
        yield head
        yield from rest
