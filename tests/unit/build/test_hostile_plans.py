"""Dockerfiles that are meant to keep the engine busy: refused, or planned within moments."""

from __future__ import annotations

import time

import pytest
from tests.support.daemon import PATIENCE

from estiba.build.argument_use import uses
from estiba.build.dockerfile.errors import DockerfileError
from estiba.build.dockerfile.parser import parse
from estiba.build.plan import PlanRequest, decide_plan
from estiba.model.image import Platform

_HOST = Platform(os="linux", architecture="amd64")


def planned(text: str) -> None:
    decide_plan(PlanRequest(dockerfile=parse(text.encode()), platform=_HOST, host=_HOST))


@pytest.mark.parametrize(
    "text",
    [
        "ENV " + " ".join(f"N{number}=x" for number in range(10_001)),
        "LABEL " + " ".join(f"n{number}=x" for number in range(10_001)),
        "ARG " + " ".join(f"N{number}=x" for number in range(10_001)),
        "VOLUME " + " ".join(f"/n{number}" for number in range(10_001)),
        "EXPOSE " + " ".join(f"1-65535/{protocol}" for protocol in ("tcp", "udp")),
        "EXPOSE 1-65535\nEXPOSE 1-65535/udp",
    ],
)
def test_too_many_of_anything_are_refused(text: str) -> None:
    with pytest.raises(DockerfileError, match=r"Dockerfile:[23]:1: \w+: more than \d+ of them"):
        planned(f"FROM scratch\n{text}\n")


@pytest.mark.parametrize("line", ["ENV N{}=x", "LABEL n{}=x", "ARG N{}=x", "VOLUME /n{}"])
def test_many_instructions_are_planned_in_moments(line: str) -> None:
    lines = "\n".join(line.format(number) for number in range(8000))
    began = time.monotonic()
    planned(f"FROM scratch\n{lines}\n")
    assert time.monotonic() - began < 20 * PATIENCE


def test_many_arguments_are_looked_for_in_one_go() -> None:
    names = [f"N{number}" for number in range(10_000)]
    text = "echo $N77 '" + "x " * 30_000 + "'"
    began = time.monotonic()
    assert uses(text, (), [*names, "a-b"], is_shell=True) == {"N77", "a-b"}
    assert time.monotonic() - began < 20 * PATIENCE
