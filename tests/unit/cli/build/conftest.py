"""`estiba build` as a whole, against a daemon of which only the wire format is real."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.buildserver import (
    BuildServer,
    Play,
    build_server,
)
from tests.unit.cli.build.lab import Done, Run, succeed

from estiba.cli import main
from estiba.client.host import forget_config


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a context `ctx`, and no configuration."""
    monkeypatch.setenv("ESTIBA_CONFIG", str(tmp_path / "config"))
    for name in ("SOURCE_DATE_EPOCH", "BUILDKIT_PROGRESS", "ESTIBA_DEBUG", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    context = tmp_path / "ctx"
    (context / "sub").mkdir(parents=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (context / "sub" / "file").write_text("content")
    forget_config()
    yield context
    forget_config()


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Run]:
    """Runs `estiba build WORDS` in this process, against a server that plays `play`."""

    def run_one(
        *words: str, play: Play = succeed, set_up: Callable[[BuildServer], None] | None = None
    ) -> Done:
        with build_server(play) as server:
            if set_up is not None:
                set_up(server)
            code = main._guarded(["-H", server.url, "build", *words])
            sys.stdout.flush()
            out, err = capfdbinary.readouterr()
            return Done(code, out.decode(errors="replace"), err.decode(), server)

    return run_one
