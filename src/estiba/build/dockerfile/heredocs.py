"""Here-documents: which words of a line open one, and what a RUN makes of its documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from estiba.build.dockerfile.instructions import Heredoc, Run
from estiba.build.dockerfile.words import RAW, Style, WordError, expand_words

MAX_HEREDOCS = 1000
INSTRUCTIONS = frozenset({"ADD", "COPY", "RUN"})
_FORM = re.compile(r"\d*<<(-?)\s*([^<]*)", re.DOTALL)
_NAME = Style(keep_unset=True)
_NAME_RAW = Style(keep_unset=True, raw_quotes=True)
_QUOTES = ("'", '"')


@dataclass(frozen=True, slots=True)
class Delimiter:
    name: str
    expand: bool
    strips_tabs: bool


@dataclass(frozen=True, slots=True)
class Script:
    """What a RUN with here-documents runs: `text` for the shell, or with `is_file` a program of
    its own, which begins with `#!`."""

    text: str
    is_file: bool = False
    name: str = ""


def delimiter(word: str) -> Delimiter | None:
    """Of one word of a line, quotes as written. A descriptor in front of `<<` means nothing."""
    match = _FORM.fullmatch(word)
    if match is None or not match[2]:
        return None
    plain = expand_words(match[2], {}, style=_NAME).words
    if len(plain) != 1:
        return None
    raw = "".join(expand_words(match[2], {}, style=_NAME_RAW).words)
    quoted = _quotes(plain[0]) != _quotes(raw)
    return Delimiter(plain[0], expand=not quoted, strips_tabs=bool(match[1]))


def delimiters(line: str) -> list[Delimiter]:
    """Of a logical line, in their order; a line whose quotes do not close has none."""
    if "<<" not in line:
        return []
    try:
        words = expand_words(line, {}, style=RAW).words
    except WordError:
        return []
    return [found for word in words if (found := delimiter(word)) is not None]


def script(run: Run) -> Script:
    """A line that is nothing but `<<NAME` runs the document; any other is passed to the shell
    together with its documents."""
    return script_of(run.command.words[0], run.heredocs)


def script_of(text: str, documents: Sequence[Heredoc]) -> Script:
    if not documents:
        return Script(text)
    first = documents[0]
    if delimiter(text) is not None:
        return Script(first.content, first.content.startswith("#!"), first.name)
    return Script(text + written(documents))


def written(documents: Sequence[Heredoc]) -> str:
    """The lines below an instruction, as a trigger keeps them."""
    return "".join(f"\n{doc.content}{doc.name}" for doc in documents)


def _quotes(text: str) -> int:
    return sum(text.count(quote) for quote in _QUOTES)
