"""A Dockerfile to its instructions: `parse`, and `parse_trigger` for what ONBUILD kept.

Expands nothing: what a word means depends on the base image, so words stay as written.
"""

from __future__ import annotations

from estiba.build.dockerfile import heredocs
from estiba.build.dockerfile.directives import read_directives
from estiba.build.dockerfile.errors import DockerfileError, nearest
from estiba.build.dockerfile.forms import FORMS
from estiba.build.dockerfile.instructions import (
    Arg,
    Dockerfile,
    From,
    Instruction,
    Onbuild,
    Position,
    Span,
    Stage,
    Warning,
)
from estiba.build.dockerfile.lines import (
    LogicalLine,
    decode,
    keyword_of,
    logical_lines,
)
from estiba.build.dockerfile.statement import Statement

KEYWORDS = (*sorted(FORMS), "ONBUILD")
_NO_TRIGGER = frozenset({"FROM", "MAINTAINER", "ONBUILD"})


def parse(source: bytes) -> Dockerfile:
    """Raises DockerfileError, which tells where."""
    lines = decode(source)
    top = read_directives(lines)
    escape = top.directives.escape
    global_args: list[Arg] = []
    stages: list[tuple[From, list[Instruction], str]] = []
    warnings: list[Warning] = []
    for line in logical_lines(lines, escape, top.lines):
        warnings += _warnings(line)
        instruction = parse_line(line, escape, stands_free=not stages)
        warnings += _description(instruction, line)
        if isinstance(instruction, From):
            stages.append((instruction, [], _doc(line, instruction.name)))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            global_args.append(instruction)
    if not stages:
        raise _nothing_to_build(lines, bool(global_args))
    return Dockerfile(
        source="".join(lines),
        global_args=tuple(global_args),
        stages=tuple(Stage(from_, tuple(rest), doc) for from_, rest, doc in stages),
        directives=top.directives,
        warnings=tuple(warnings),
    )


def parse_trigger(text: str) -> Instruction:
    """Of a base image's ONBUILD; its places count from the trigger's own first line."""
    lines = decode(text.encode("utf-8", "surrogateescape"))
    found = list(logical_lines(lines, "\\", 0))
    if len(found) != 1:
        place = found[1].span if found else Span(Position(1, 1), Position(1, 1))
        raise DockerfileError(place, "an ONBUILD trigger of the base image", "one instruction")
    return _trigger(found[0], 0)


def parse_line(line: LogicalLine, escape: str, *, stands_free: bool = False) -> Instruction:
    """`stands_free`: no FROM is above."""
    keyword, _ = keyword_of(line.text)
    written = line.text[: len(keyword)]
    span = line.at(0, len(keyword))
    if keyword not in KEYWORDS:
        raise DockerfileError(
            span,
            f"unknown instruction {written[:40]}{nearest(written, KEYWORDS)}",
            ", ".join(sorted(KEYWORDS)),
        )
    if stands_free and keyword not in ("ARG", "FROM"):
        raise DockerfileError(span, f"{written} before any FROM", "FROM, or ARG above it")
    if keyword == "ONBUILD":
        return _onbuild(line, escape)
    return FORMS[keyword](Statement.of(line, 0, escape))


def _onbuild(line: LogicalLine, escape: str) -> Onbuild:
    statement = Statement.of(line, 0, escape)
    if not statement.rest:
        raise statement.error("ONBUILD without an instruction", "ONBUILD INSTRUCTION arguments")
    _trigger(line, statement.rest_at)
    return Onbuild(
        keyword="ONBUILD",
        text=line.text,
        span=line.span,
        heredocs=line.heredocs,
        trigger=statement.rest + heredocs.written(line.heredocs),
    )


def _trigger(line: LogicalLine, offset: int) -> Instruction:
    """The escape directive of the file says nothing of what a later build reads."""
    keyword, _ = keyword_of(line.text[offset:])
    written = line.text[offset : offset + len(keyword)]
    span = line.at(offset, offset + len(keyword))
    if keyword in _NO_TRIGGER:
        raise DockerfileError(
            span, f"{keyword} cannot be an ONBUILD trigger", "any other instruction"
        )
    if keyword not in FORMS:
        raise DockerfileError(
            span,
            f"unknown instruction {written[:40]} as an ONBUILD trigger{nearest(written, FORMS)}",
            ", ".join(sorted(set(FORMS) - _NO_TRIGGER)),
        )
    return FORMS[keyword](Statement.of(line, offset, "\\"))


def _nothing_to_build(lines: list[str], has_args: bool) -> DockerfileError:
    last = max(1, len(lines))
    place = Span(Position(last, 1), Position(last, 1))
    if has_args:
        return DockerfileError(place, "no FROM below the ARGs", "FROM and a stage to build")
    if not lines:
        return DockerfileError(place, "the Dockerfile cannot be empty", "FROM first")
    return DockerfileError(place, "file with no instructions", "FROM first")


def _warnings(line: LogicalLine) -> list[Warning]:
    if line.empty is None:
        return []
    return [Warning("NoEmptyContinuation", "Empty continuation line", line.empty)]


def _doc(line: LogicalLine, name: str) -> str:
    if not name:
        return ""
    for comment in line.comments:
        if comment.startswith(f"{name} "):
            return comment.removeprefix(f"{name} ")
    return ""


def _description(instruction: Instruction, line: LogicalLine) -> list[Warning]:
    """A comment right above an ARG or a named stage is taken for its description."""
    match instruction:
        case From(name=name) if name:
            names = [name]
        case Arg(pairs=pairs):
            names = [name for name, _ in pairs]
        case _:
            return []
    if not line.comments or line.comments[-1].split(" ")[0] in names:
        return []
    example = names[0] if len(names) == 1 else "<arg_key>"
    message = (
        f"Comment for {instruction.keyword} should follow the format: `# {example} <description>`"
    )
    return [Warning("InvalidDefinitionDescription", message, instruction.span)]
