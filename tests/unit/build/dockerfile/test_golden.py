"""Each folder of testfiles: a Dockerfile and what it is, one line an instruction.

`ESTIBA_WRITE_GOLDEN=1` writes the results anew, to be read before they are kept.
"""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import pytest

from estiba.build.dockerfile.instructions import (
    CommandLine,
    Dockerfile,
    Heredoc,
    Instruction,
    MountFlag,
    Span,
)
from estiba.build.dockerfile.parser import parse, parse_trigger

CASES = sorted(path for path in (Path(__file__).parent / "testfiles").iterdir() if path.is_dir())
COMMON = {field.name for field in fields(Instruction)}


def _place(span: Span) -> str:
    start, end = span.start, span.end
    return f"{start.line}:{start.column}-{end.line}:{end.column}"


def _value(value: object) -> str:
    match value:
        case CommandLine(words=words, is_shell=True):
            return f"shell {words[0]!r}"
        case CommandLine(words=words):
            return f"exec {list(words)!r}"
        case MountFlag(type=kind, options=options):
            return f"{kind}({', '.join(f'{name}={value!r}' for name, value in options)})"
        case tuple() if value and isinstance(value[0], MountFlag):
            return " ".join(_value(mount) for mount in value)
        case tuple() if value and isinstance(value[0], tuple):
            return " ".join(f"{name}={written!r}" for name, written in value)
        case tuple():
            return repr(list(value))
        case _:
            return repr(value)


def _heredoc(doc: Heredoc) -> str:
    kind = ("" if doc.expand else " quoted") + (" tabs stripped" if doc.strips_tabs else "")
    return f"<<{doc.name}{kind}: {doc.content!r}"


def described(instruction: Instruction) -> str:
    own = [
        f"{field.name}={_value(value)}"
        for field in fields(instruction)
        if field.name not in COMMON
        and (value := getattr(instruction, field.name)) not in ("", (), False, None, 0)
    ]
    docs = [_heredoc(doc) for doc in instruction.heredocs]
    return " ".join([_place(instruction.span), instruction.keyword, *own, *docs])


def result(dockerfile: Dockerfile) -> str:
    directives = dockerfile.directives
    lines = [
        f"directives syntax={directives.syntax!r} escape={directives.escape!r} "
        f"skip={list(directives.check_skip)} experimental={list(directives.check_experimental)} "
        f"error={directives.check_error}"
    ]
    lines += [described(arg) for arg in dockerfile.global_args]
    for stage in dockerfile.stages:
        lines.append(described(stage.from_) + (f" doc={stage.doc!r}" if stage.doc else ""))
        lines += [f"  {described(instruction)}" for instruction in stage.instructions]
    lines += [f"warning {_place(w.span)} {w.rule}: {w.message}" for w in dockerfile.warnings]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_dockerfile_is_read_as_its_result_says(case: Path) -> None:
    got = result(parse((case / "Dockerfile").read_bytes()))
    expected = case / "result"
    if os.environ.get("ESTIBA_WRITE_GOLDEN"):
        expected.write_text(got)
    assert got == expected.read_text()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_trigger_is_read_again_as_it_was_written(case: Path) -> None:
    """Every instruction that may be a trigger, its text and documents, parsed by itself."""
    dockerfile = parse((case / "Dockerfile").read_bytes())
    for stage in dockerfile.stages:
        for instruction in stage.instructions:
            if instruction.keyword != "ONBUILD" or dockerfile.directives.escape != "\\":
                continue
            trigger = parse_trigger(instruction.trigger)  # type: ignore[attr-defined]
            assert trigger.heredocs == instruction.heredocs
            assert instruction.text.endswith(trigger.text)
