"""What a build put out is given once, and what it stands on is given back, fetched or not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from estiba.build.exchange import ForClient
from estiba.build.underway import UnderWay
from estiba.daemon.adapters.builds import Builds
from estiba.model.errors import NotFound

LAYER = "sha256:" + "1" * 64


class Leases:
    def __init__(self) -> None:
        self.held: list[str] = []

    def take(self, layers: tuple[str, ...]) -> None:
        self.held += layers

    def release(self, layers: tuple[str, ...]) -> None:
        for layer in layers:
            self.held.remove(layer)

    @contextmanager
    def frozen(self) -> Iterator[set[str]]:
        yield set(self.held)


class Blobs:
    """One layer that no image needs."""

    def __init__(self) -> None:
        self.kept = {LAYER}

    def diff_ids(self) -> list[str]:
        return sorted(self.kept)

    def digests(self) -> list[str]:
        return []

    partials = digests

    def remove(self, *layers: str) -> None:
        self.kept -= set(layers)


def images_of(leases: Leases, blobs: Blobs) -> Any:
    return SimpleNamespace(
        leases=leases,
        layers=blobs,
        content=blobs,
        lock=threading.RLock(),
        list_all=list,
        snapshot_layers=set,
    )


@pytest.mark.parametrize("taken", [0, 1, 9])
async def test_an_output_gives_back_what_it_stands_on(taken: int) -> None:
    is_open = False

    def pieces() -> Iterator[bytes]:
        nonlocal is_open
        is_open = True
        try:
            yield b"a" * (1 << 20)
            yield b"b"
        finally:
            is_open = False

    leases, blobs = Leases(), Blobs()
    nothing = cast(Any, None)
    elsewhere = cast(Any, SimpleNamespace(images=images_of(leases, blobs)))
    builds = Builds(nothing, nothing, elsewhere, nothing, nothing, Path("/nowhere"), UnderWay())
    token = builds.keep_output(ForClient(0, "tar", pieces, (LAYER,)))
    assert leases.held == [LAYER]
    given = cast(Any, await builds.output(token))
    for _ in range(taken):
        await anext(given, None)
    assert is_open == (taken == 1)
    assert bool(blobs.kept) == (taken < 9)
    await given.aclose()
    assert not is_open
    assert leases.held == [] and blobs.kept == set()
    with pytest.raises(NotFound, match="given once"):
        await builds.output(token)
