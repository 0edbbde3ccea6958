"""docs/dockerfile.md names every instruction, flag, option, directive and rule, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from estiba.build.dockerfile import directives, mounts
from estiba.build.dockerfile.flags import FLAGS
from estiba.build.dockerfile.lint import ADVICE
from estiba.build.dockerfile.parser import KEYWORDS

PAGE = (Path(__file__).parents[4] / "docs" / "dockerfile.md").read_text()


def _rows(title: str) -> dict[str, list[str]]:
    """Of the first table below the title: names of the first cell → the other cells."""
    table = PAGE.split(title, 1)[1].split("\n|---|", 1)[1].split("\n\n", 1)[0]
    rows = {}
    for line in table.split("\n")[1:]:
        first, *rest = line.strip("| ").split(" | ")
        for name in re.findall(r"`([^`]+)`", first):
            rows[name] = rest
    return rows


def test_every_instruction_and_its_flags() -> None:
    rows = _rows("## Instructions")
    assert set(rows) == set(KEYWORDS)
    for keyword, (flags, *_) in rows.items():
        assert re.findall(r"`--([a-z-]+)`", flags) == list(FLAGS.get(keyword, {}))


def test_every_option_of_a_mount() -> None:
    assert set(_rows("### Mounts")) | {"type"} == set(mounts.OPTIONS)
    assert f"type={'|'.join(mounts.TYPES)}" in PAGE
    assert "`shared`, `private` or `locked`" in PAGE


def test_every_directive() -> None:
    assert tuple(_rows("**Directives**")) == directives.NAMES


def test_every_rule_with_its_advice() -> None:
    rows = _rows("## Checks")
    assert {rule: " | ".join(advice) for rule, advice in rows.items()} == ADVICE
