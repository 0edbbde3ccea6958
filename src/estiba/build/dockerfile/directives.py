"""Parser directives, `# name=value` at the very top of the file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from estiba.build.dockerfile.errors import DockerfileError, nearest
from estiba.build.dockerfile.instructions import Directives, Position, Span

NAMES = ("syntax", "escape", "check")
_FORM = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*", re.DOTALL)
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


@dataclass(frozen=True, slots=True)
class Top:
    """`lines`: how many lines the directives take, a `#!` line included."""

    directives: Directives
    lines: int


def read_directives(lines: list[str]) -> Top:
    """The first line that is no directive ends them, be it a comment or an empty line."""
    found = Directives()
    seen: set[str] = set()
    at = 1 if lines and lines[0].startswith("#!") else 0
    while at < len(lines):
        line = lines[at].rstrip("\r\n")
        match = _FORM.fullmatch(line.lstrip())
        name = match[1].lower() if match else ""
        if match is None or name not in NAMES:
            break
        column = len(line) - len(line.lstrip())
        span = Span(Position(at + 1, column + 1), Position(at + 1, len(line) + 1))
        if name in seen:
            raise DockerfileError(span, f"a second {name} directive", f"one {name} directive")
        seen.add(name)
        start = column + match.start(2)
        value = Span(Position(at + 1, start + 1), Position(at + 1, start + len(match[2]) + 1))
        found = _with(found, name, match[2], value)
        at += 1
    return Top(found, at)


def _with(found: Directives, name: str, value: str, span: Span) -> Directives:
    match name:
        case "syntax":
            return replace(found, syntax=value.split(" ")[0])
        case "escape":
            if value not in ("\\", "`"):
                raise DockerfileError(
                    span, f"invalid escape character {value!r:.20}", "\\ or ` alone"
                )
            return replace(found, escape=value)
        case _:
            return with_check(found, value, span)


def with_check(found: Directives, value: str, span: Span) -> Directives:
    """The options of a check directive, or of the build argument that has its form."""
    setters: dict[str, Callable[[Directives, str], Directives]] = {
        "skip": lambda d, v: replace(d, check_skip=_rules(v)),
        "experimental": lambda d, v: replace(d, check_experimental=_rules(v)),
        "error": lambda d, v: replace(d, check_error=_boolean(v, span)),
    }
    for part in value.split(";"):
        name, equals, text = part.partition("=")
        name = name.strip()
        if not equals or name not in setters:
            raise DockerfileError(
                span,
                f"invalid check option {name!r:.40}{nearest(name, setters)}",
                "skip=RULE,… or error=true, with ; between them",
            )
        found = setters[name](found, text)
    return found


def _rules(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _boolean(text: str, span: Span) -> bool:
    text = text.strip()
    if text not in _TRUE | _FALSE:
        raise DockerfileError(span, f"error={text:.40} is no truth value", "true or false")
    return text in _TRUE
