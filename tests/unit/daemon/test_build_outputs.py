"""What a build put out is given once, and what it stands on is given back, fetched or not."""

from __future__ import annotations

from collections.abc import Iterator
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

    leases = Leases()
    nothing = cast(Any, None)
    elsewhere = cast(Any, SimpleNamespace(images=SimpleNamespace(leases=leases)))
    builds = Builds(nothing, nothing, elsewhere, nothing, nothing, Path("/nowhere"), UnderWay())
    token = builds.keep_output(ForClient(0, "tar", pieces, (LAYER,)))
    assert leases.held == [LAYER]
    given = cast(Any, await builds.output(token))
    for _ in range(taken):
        await anext(given, None)
    assert is_open == (taken == 1)
    await given.aclose()
    assert not is_open
    assert leases.held == []
    with pytest.raises(NotFound, match="given once"):
        await builds.output(token)
