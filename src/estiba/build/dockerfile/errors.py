"""Errors of the language: where, what, and what was expected there. Never reads files."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

from estiba.build.dockerfile.instructions import Span
from estiba.model.errors import InvalidArgument

_TAB = 4
_WIDEST = 400
"""Characters of a line that an excerpt shows."""
_LONGEST = 30
"""Marked lines that an excerpt shows."""
_LONGEST_NAME = 60
_MOST_DIFFERENT = 4
_MOST_NAMES = 200
"""Names that are compared with a misspelt one."""


class DockerfileError(InvalidArgument):
    """A Dockerfile that cannot be built as it is written."""

    def __init__(self, span: Span, what: str, expected: str = "") -> None:
        place = f"Dockerfile:{span.start.line}:{span.start.column}"
        super().__init__(f"{place}: {what}" + (f": expected {expected}" if expected else ""))
        self.span = span
        self.what = what
        self.expected = expected


def refusal(what: str, span: Span) -> DockerfileError:
    """For what is well formed and cannot be done, where `what` says enough."""
    return DockerfileError(span, what)


def nearest(word: str, names: Iterable[str]) -> str:
    """` (did you mean NAME?)`, or nothing where no name is near."""
    word = word[:_LONGEST_NAME]
    alike = (name for name in names if abs(len(name) - len(word)) <= _MOST_DIFFERENT)
    by_folded = {name.casefold(): name for name in islice(alike, _MOST_NAMES)}
    found = get_close_matches(word.casefold(), by_folded, 1, 0.6)
    return f" (did you mean {by_folded[found[0]]}?)" if found else ""


def excerpt(source: str, span: Span, context: int = 2) -> str:
    """The lines of `span` marked with `>>>`, a caret under its first column, and `context` lines
    around it, all with their numbers; of a very long span only the beginning."""
    lines = source.removeprefix("\ufeff").removesuffix("\n").split("\n")
    first = span.start.line
    last = min(max(first, _last_line(span)), first + _LONGEST - 1)
    start, end = max(1, first - context), min(len(lines), last + context)
    width = len(str(end))
    shown = []
    for number in range(start, end + 1):
        mark = ">>>" if first <= number <= last else "   "
        text = lines[number - 1].rstrip("\r")[:_WIDEST]
        shown.append(f"{number:>{width}} | {mark} {text.expandtabs(_TAB)}".rstrip())
        if number == first:
            before = text[: span.start.column - 1].expandtabs(_TAB)
            if len(before) < _WIDEST:
                shown.append(f"{'':>{width}} |     {'':{len(before)}}^")
    return "\n".join(shown)


def _last_line(span: Span) -> int:
    """A span that ends before the first column of a line has nothing of that line."""
    return span.end.line - (span.end.column == 1 and span.end.line > span.start.line)
