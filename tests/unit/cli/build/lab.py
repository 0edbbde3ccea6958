"""A run of `estiba build` and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.support.buildserver import (
    BuildServer,
    Sent,
    finished,
    result,
    started,
)

ESTIBA = [sys.executable, "-m", "estiba.cli.main"]


def succeed(_sent: Sent) -> Iterator[dict]:
    yield started(1, "[1/1] FROM scratch")
    yield finished(1)
    yield result()


@dataclass
class Done:
    code: int
    out: str
    err: str
    server: BuildServer

    @property
    def sent(self) -> Sent:
        return self.server.builds[0]


Run = Callable[..., Done]
