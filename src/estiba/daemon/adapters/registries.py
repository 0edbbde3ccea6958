"""Registries for the routes: pull, push, what a name stands for, search."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from estiba.daemon.adapters.bridging import each
from estiba.daemon.adapters.image_filters import Filters, found_filter
from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import ANONYMOUS, Credentials, decode_auth_header
from estiba.distribution.settings import RegistrySettings
from estiba.images.images import Images
from estiba.images.progress import Progress
from estiba.kernel.blocking import run_apart
from estiba.model.digest import parse_digest
from estiba.model.errors import InvalidArgument
from estiba.model.image import Platform
from estiba.model.reference import Reference, parse_reference

if TYPE_CHECKING:
    from estiba.images.pulling import Puller

Json = dict[str, Any]
_MAX_FOUND = 100


@dataclass(slots=True)
class Registries:
    """`api.ports.Registries`. The parts that speak with registries are imported when used."""

    images: Images
    settings: RegistrySettings
    downloads: int
    uploads: int
    _puller: Puller | None = None

    @property
    def puller(self) -> Puller:
        """All pulls of the engine share its fetches."""
        from estiba.images.fetching import Fetches
        from estiba.images.pulling import Puller

        if self._puller is None:
            fetches = Fetches(self.images, self.downloads)
            self._puller = Puller(self.images, self.settings, fetches)
        return self._puller

    def pull(
        self, image: str, tag: str, platform: Platform | None, auth: str
    ) -> AsyncIterator[Json]:
        reference = _with_tag(parse_reference(image), tag)
        credentials = credentials_of(auth)
        is_one = reference.tag or reference.digest
        work = self.puller.pull if is_one else self.puller.pull_all
        cancel = CancelToken()
        return progress_lines(work(reference, platform, credentials, cancel), cancel)

    def push(
        self, image: str, tag: str, platform: Platform | None, auth: str
    ) -> AsyncIterator[Json]:
        from estiba.images.pushing import Pusher

        reference = parse_reference(image).with_tag(tag)
        credentials = credentials_of(auth)
        pusher = Pusher(self.images, self.settings, self.uploads)
        cancel = CancelToken()
        return progress_lines(pusher.push(reference, platform, credentials, cancel), cancel)

    async def inspect(self, name: str, auth: str) -> Json:
        reference = parse_reference(name).tagged
        if reference.path == "library/sha256":
            raise InvalidArgument("no manifest found for full image ID")
        return await run_apart(self._inspect, reference, credentials_of(auth))

    def _inspect(self, reference: Reference, credentials: Credentials) -> Json:
        from estiba.distribution.repository import Repository
        from estiba.images.images import decode_config
        from estiba.images.manifests import is_image, parse
        from estiba.model.image import Index

        with Repository(reference, self.settings, credentials) as repository:
            fetched = repository.manifest(reference.digest or reference.tag or "")
            content = fetched.content
            value = parse(fetched.body, content.digest, content.media_type).value
            if isinstance(value, Index):
                platforms = [e.platform for e in value.manifests if e.platform is not None]
            elif is_image(value):
                config = value.config
                found = decode_config(repository.read_blob(config.digest, config.size))
                platforms = [
                    Platform(os=found.os, architecture=found.architecture, variant=found.variant)
                ]
            else:
                platforms = []
        return {
            "Descriptor": {
                "mediaType": content.media_type,
                "digest": content.digest,
                "size": content.size,
            },
            "Platforms": [_platform_view(platform) for platform in platforms],
        }

    async def search(self, term: str, limit: int, filters: Filters, auth: str) -> list[Json]:
        is_wanted = found_filter(filters)
        found = await run_apart(self._search, term, limit or 25, credentials_of(auth))
        return [one for one in found if is_wanted(one)]

    def _search(self, term: str, limit: int, credentials: Credentials) -> list[Json]:
        from estiba.distribution.search import search

        if not 0 < limit <= _MAX_FOUND:
            raise InvalidArgument(f"Limit {limit} is outside the range of [1, {_MAX_FOUND}]")
        return [msgspec.to_builtins(one) for one in search(term, limit, self.settings, credentials)]


def _with_tag(reference: Reference, tag: str) -> Reference:
    """The API gives tag or digest apart. Raises InvalidArgument."""
    if tag.startswith(("sha256:", "sha512:")):
        return Reference(reference.domain, reference.path, digest=parse_digest(tag))
    if tag:
        return Reference(reference.domain, reference.path).with_tag(tag)
    return reference


def credentials_of(auth: str) -> Credentials:
    """Nobody's when the header is none: so Docker has it, and clients send all sorts."""
    try:
        return decode_auth_header(auth)
    except InvalidArgument:
        return ANONYMOUS


def _platform_view(platform: Platform) -> Json:
    view: Json = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        view["variant"] = platform.variant
    if platform.os_version:
        view["os.version"] = platform.os_version
    return view


async def progress_lines(progress: Iterator[Progress], cancel: CancelToken) -> AsyncIterator[Json]:
    """Docker's JSON messages. A client that leaves ends the transfer, as Docker has it."""
    async with aclosing(each(progress)) as steps:
        try:
            async for one in steps:
                yield _line(one)
                if one.pushed is not None:
                    tag, digest, size = one.pushed
                    aux = {"Tag": tag, "Digest": digest, "Size": size}
                    yield {"progressDetail": {}, "aux": aux}
        finally:
            # Before the iterator is closed, which waits for its step under way.
            cancel.cancel()


def _line(one: Progress) -> Json:
    line: Json = {"status": one.status}
    if one.id:
        line["id"] = one.id
        line["progressDetail"] = {}
    if one.current >= 0:
        line["progressDetail"] = {"current": one.current, "total": one.total}
        line["progress"] = _bar(one.current, one.total)
    return line


def _bar(current: int, total: int) -> str:
    """What programs print that do not draw it themselves, as Docker draws it."""
    if total <= 0:
        return f"{_size(current):>8}"
    done = min(50, 50 * current // total)
    return f"[{'=' * done}>{' ' * (50 - done)}] {_size(current):>8}/{_size(total)}"


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.4g}{unit}"
        size_bytes /= 1000
    return f"{size_bytes:.4g}TB"
