"""Every Dockerfile of `tests/corpus`, through the docker client and through `estiba build`.

What it must give was recorded from a genuine engine with BuildKit: config, history, layers and
every path that the build made, changed or took away.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.building import (
    ApiDoor,
    Built,
    ClassicDoor,
    ComposeDoor,
    DockerPyDoor,
    Door,
    EstibaDoor,
    differences,
    places,
    take,
)
from tests.support.corpus import Case, cases
from tests.support.daemon import PrivateDaemon
from tests.support.imagetree import Archived, read

pytestmark = pytest.mark.e2e
_DOORS = {door.name: door for door in (ClassicDoor, EstibaDoor, ApiDoor, DockerPyDoor, ComposeDoor)}
_CASES = cases()


@pytest.fixture(scope="module")
def base(daemon: PrivateDaemon) -> Iterator[Archived]:
    """The image busybox; what the corpus made goes at the end."""
    yield read(daemon.docker("save", "busybox:latest").stdout)


def _all() -> list[object]:
    return [
        pytest.param(case, name, id=f"{case.name}-{name}")
        for case in _CASES
        for name in _DOORS
        if case.goes_through(name)
    ]


@pytest.mark.parametrize(("case", "door"), _all())
def test_a_case_gives_what_a_genuine_engine_makes_of_it(
    case: Case, door: str, daemon: PrivateDaemon, base: Archived, tmp_path: Path
) -> None:
    if door == "compose" and not shutil.which("docker-compose"):
        pytest.skip("needs Debian's docker-compose 1")
    way: Door = _DOORS[door](daemon)
    outcome = take(case, way, base, tmp_path)
    if case.error:
        _fails_well(case, case.error, outcome.built)
        return
    assert outcome.built.code == 0, outcome.built.output
    differing = differences(outcome.found, case.expected())
    assert not differing, f"{differing}\n{outcome.built.output}"


def _fails_well(case: Case, error: dict[str, Any], built: Built) -> None:
    assert built.code != 0, built.output
    missing = [words for words in error["says"] if words not in built.output]
    assert not missing, f"not said: {missing}\n{built.output}"
    told = places(built.output)
    if "line" in error:
        lines = (case.folder / case.dockerfile).read_text().splitlines()
        # The classic stream shows the step before it fails.
        step = f" : {lines[error['line'] - 1].removesuffix(chr(92)).strip()}"
        told_step = built.output.rpartition("\nStep ")[2]
        assert error["line"] in {line for line, _ in told} or step in told_step, built.output
    if "column" in error:
        assert (error["line"], error["column"]) in told, built.output


def test_the_corpus_is_wide() -> None:
    """Every instruction is in it, and every case has what it must give."""
    assert len(_CASES) >= 100
    texts = [(case.folder / case.dockerfile).read_text(errors="replace") for case in _CASES]
    words = {
        line.split()[0].upper() for text in texts for line in text.splitlines() if line.split()
    }
    assert words >= {
        "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL",
        "MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
    }  # fmt: skip
    for case in _CASES:
        assert case.error or case.expected()
