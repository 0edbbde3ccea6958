"""Images that stages stand on or copy from: the ones here, or fetched from their registry."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from estiba.build.dockerfile.errors import nearest
from estiba.build.effects import finished
from estiba.build.failure import under_way
from estiba.build.ops import ImageInput
from estiba.build.progress import Status, Tell, Vertex
from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import Credentials
from estiba.images.images import Images
from estiba.images.progress import Progress
from estiba.images.record import ImageRecord
from estiba.kernel.blocking import run_apart
from estiba.model.errors import EstibaError, InvalidArgument, NotFound
from estiba.model.image import Platform
from estiba.model.reference import Reference, parse_reference

Pull = Callable[[Reference, Platform | None, Credentials, CancelToken], Iterator[Progress]]

_FIRST_ID = 1_000_000_000


@dataclass(slots=True)
class Bases:
    images: Images
    pull: Pull
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(_FIRST_ID))

    async def find(
        self,
        source: ImageInput,
        credentials: Callable[[str], Credentials],
        tell: Tell,
        *,
        pulls: bool,
    ) -> ImageRecord:
        """The image; with `pulls` its registry is asked although it is here.

        Raises NotFound, and what a pull raises.
        """
        record = self._local(source)
        if record is not None and (not pulls or self.images.id_of(source.name)):
            return record
        reference = parse_reference(source.name)
        try:
            await self._fetch(reference, source, credentials(reference.domain), tell)
        except NotFound as error:
            if record is not None:
                return record  # made here, and known nowhere else
            raise NotFound(f"{source.name}: {error}") from error
        record = self._local(source)
        if record is None:
            raise NotFound(f"{source.name}: no image for {source.platform} was found")
        return record

    def explained(
        self, error: EstibaError, source: ImageInput, stages: Iterable[str]
    ) -> EstibaError:
        """The error, with what may have been meant: a stage, or the image of a platform that is
        here."""
        names = sorted(set(stages) - {"", source.name.lower()})
        if hint := nearest(source.name, names):
            return NotFound(f"no stage is called {source.name}{hint}, and as an image: {error}")
        try:
            found = self.images.find_all(source.name)
        except (NotFound, InvalidArgument):
            return error
        if self._local(source) is not None:
            return error  # it is to be newer
        here = ", ".join(dict.fromkeys(str(record.platform) for record in found))
        return NotFound(f"{source.name} is here for {here}, not for {source.platform}: {error}")

    def _local(self, source: ImageInput) -> ImageRecord | None:
        try:
            return self.images.resolve(source.name, source.platform)
        except NotFound:
            return None

    async def _fetch(
        self, reference: Reference, source: ImageInput, credentials: Credentials, tell: Tell
    ) -> None:
        vertex = Vertex(next(self._ids), f"[internal] pull {source.name} for {source.platform}")
        cancel = CancelToken()

        def work() -> None:
            for one in self.pull(reference.tagged, source.platform, credentials, cancel):
                current, total = max(one.current, 0), max(one.total, 0)
                tell(Status(vertex, one.id, one.status, current, total))

        with under_way(tell, vertex):
            task = asyncio.ensure_future(run_apart(work))
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                cancel.cancel()
                await finished(asyncio.wait([task]))
                raise
