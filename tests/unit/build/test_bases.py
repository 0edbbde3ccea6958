"""What is told of an image that is fetched for a build."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator

import pytest

from estiba.build.bases import Bases, Pull
from estiba.build.ops import ImageInput
from estiba.build.progress import CANCELLED, Event, Finished, Started
from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import ANONYMOUS, Credentials
from estiba.images.progress import Progress
from estiba.model.errors import NotFound, Unavailable
from estiba.model.image import Platform
from estiba.model.reference import Reference


class NoImages:
    """`images.images.Images` without any."""

    def resolve(self, name: str, platform: Platform) -> None:
        raise NotFound(name)


async def fetch(pull: Pull, told: list[Event]) -> None:
    bases = Bases(NoImages(), pull)  # type: ignore[arg-type]
    source = ImageInput("busybox", Platform())
    await bases.find(source, lambda _: ANONYMOUS, told.append, pulls=False)


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (Unavailable("the registry is away"), "the registry is away"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            "No space left on device: make room, `builder prune` and `image prune` do",
        ),
    ],
)
async def test_a_pull_that_fails_has_ended(failure: Exception, text: str) -> None:
    def pull(*_: object) -> Iterator[Progress]:
        raise failure

    told: list[Event] = []
    with pytest.raises(type(failure)):
        await fetch(pull, told)
    started, finished = told
    assert isinstance(started, Started) and isinstance(finished, Finished)
    assert (finished.vertex, finished.error) == (started.vertex, text)


async def test_a_pull_that_is_cancelled_has_ended() -> None:
    is_under_way = threading.Event()

    def pull(
        _reference: Reference, _platform: Platform | None, _: Credentials, cancel: CancelToken
    ) -> Iterator[Progress]:
        is_under_way.set()
        cancel.wait(30)
        yield Progress("Downloading")

    told: list[Event] = []
    fetching = asyncio.create_task(fetch(pull, told))
    await asyncio.to_thread(is_under_way.wait)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert isinstance(told[-1], Finished) and told[-1].error == CANCELLED
