"""The forms in which instructions take arguments: JSON, words, names with values."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_SPACE = re.compile(r"[\t\v\f\r ]+")
_ORDINARY = re.compile(r"""[^\s'"\\`]+""")


class NotStrings(ValueError):
    """A JSON array that holds something else than strings."""


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    offset: int


def json_words(text: str) -> list[str] | None:
    """The JSON form's words, None where `text` is no JSON array and so of the other form."""
    text = text.lstrip()
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(word, str) for word in found):
        raise NotStrings("when using JSON array syntax, arrays must be comprised of strings only")
    return [_scalar(word) for word in found]


def _refuse(name: str) -> None:
    raise ValueError(name)


def _scalar(word: str) -> str:
    """Halves of surrogate pairs become U+FFFD."""
    return word.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain_words(text: str) -> list[Word]:
    """Split at white space; quotes mean nothing yet."""
    return [Word(match[0], match.start()) for match in re.finditer(r"[^\t\v\f\r ]+", text)]


def split_space(text: str) -> list[str]:
    """At the first white space."""
    return _SPACE.split(text, maxsplit=1)


def quoted_words(text: str, escape: str) -> list[Word]:
    """Split at white space outside of quotes; quotes and escapes stay in the words."""
    words: list[Word] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        start = at
        word, at = _quoted_word(text, at, escape)
        words.append(Word(word, start))
    return words


def _quoted_word(text: str, at: int, escape: str) -> tuple[str, int]:
    out: list[str] = []
    quote = ""
    while at < len(text):
        run = _ORDINARY.match(text, at)
        if run is not None:
            out.append(run[0])
            at = run.end()
            continue
        char = text[at]
        if not quote and char.isspace():
            break
        at += 1
        if char == escape and quote != "'":
            if at == len(text):
                break
            out += (char, text[at])
            at += 1
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        out.append(char)
    return "".join(out), at
