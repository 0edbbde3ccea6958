"""Builds of one engine: from a request to images, named, stated, put out and cached.

Owns the way of a build as a whole; one platform's part, planning, solving and the cache have
modules of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from estiba.build.cache import Session
from estiba.build.dockerfile.instructions import Dockerfile
from estiba.build.effects import finished, settled
from estiba.build.exchange import Exchange, ForClient
from estiba.build.failure import StepFailed
from estiba.build.planning import Planning, Tools
from estiba.build.platform import Built, PlatformBuild
from estiba.build.progress import Tell
from estiba.build.request import BuildRequest
from estiba.build.statements import Statements
from estiba.images.images import Images, Naming, NewImage
from estiba.images.record import ImageRecord
from estiba.model.image import Platform
from estiba.model.reference import Reference


@dataclass(frozen=True, slots=True)
class Finished:
    """What a build came to; `built` in the order of the platforms."""

    built: tuple[Built, ...] = ()
    for_client: tuple[ForClient, ...] = ()
    pushed: tuple[tuple[str, str], ...] = ()
    """Names, and the digests of their manifests."""

    passing: tuple[ImageRecord, ...] = ()
    """To be dropped once what is for the client stands on leases of its own."""


@dataclass(frozen=True, slots=True)
class Builder:
    images: Images
    tools: Tools
    statements: Statements

    async def check(self, request: BuildRequest, dockerfile: Dockerfile, tell: Tell) -> int:
        """Lints without building; how many warnings there are.

        Raises DockerfileError where the file itself makes them errors.
        """
        platform = self._platforms(request)[0]
        planning = Planning(self.tools, request, dockerfile, platform, tell)
        # What needs the base image is left out when there is none.
        with contextlib.suppress(StepFailed):
            await planning.make()
        return await planning.lint()

    def _platforms(self, request: BuildRequest) -> tuple[Platform, ...]:
        return request.platforms or (self.images.host,)

    async def build(
        self,
        request: BuildRequest,
        dockerfile: Dockerfile,
        tell: Tell,
        session: Session,
        exchange: Exchange,
    ) -> Finished:
        """The images of all platforms.

        Raises StepFailed, DockerfileError, NotFound and others of the tree; nothing but finished
        steps in the cache, and images that were to stay, is left then.
        """
        async with exchange.opened(session) as remote:
            builds = [
                PlatformBuild(
                    Planning(self.tools, request, dockerfile, platform, tell),
                    session,
                    number,
                    remote,
                )
                for number, platform in enumerate(self._platforms(request))
            ]
            tasks = [
                asyncio.create_task(one.run(), name=f"build {one.planning.platform}")
                for one in builds
            ]
            is_done = False
            try:
                await asyncio.gather(*tasks)
                stays = exchange.keeps
                built = [await one.record(exchange.inline, stays=stays) for one in builds]
                for one in built:
                    await self.statements.attach(request, one)
                names = exchange.names(request.tags)
                if names:
                    await settled(self._name, names, built)
                pushed, for_client = await exchange.put_out(built)
                is_done = True
                passing = () if stays else tuple(image for one in builds for image in one.added)
                return Finished(tuple(built), tuple(for_client), tuple(pushed), passing)
            finally:
                await finished(_end(tasks, builds))
                if not is_done and not exchange.keeps:
                    added = [image for one in builds for image in one.added]
                    await settled(self.tools.passing.drop, added)

    def _name(self, names: tuple[Reference, ...], built: list[Built]) -> None:
        """Side by side where there are several platforms."""
        beside = {one.image.id for one in built}
        for one in built:
            new = NewImage(
                one.image.config_json.encode(),
                [self.images.layer_info(layer) for layer in one.image.layers],
                parent=one.image.parent,
            )
            self.images.add(new, Naming(names, beside), "build")


async def _end(
    tasks: Sequence[asyncio.Task[PlatformBuild]], builds: Sequence[PlatformBuild]
) -> None:
    """All of them are over before what they hold is given up."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for each in builds:
        each.release()
