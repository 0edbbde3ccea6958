"""WWW-Authenticate headers (RFC 9110, 11.6.1). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_MAX_CHARS = 8 << 10
_WORD = re.compile(r"[\s,]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)")
_VALUE = re.compile(r'\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """`scheme` and the names of `parameters` are in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """In the server's order. What cannot be understood ends the header that it is in."""
    found: list[Challenge] = []
    for text in headers:
        position = 0
        current: Challenge | None = None
        while len(text) <= _MAX_CHARS and (word := _WORD.match(text, position)):
            position = word.end()
            value = _VALUE.match(text, position) if current else None
            if current is None or value is None:
                current = Challenge(word[1].lower())
                found.append(current)
                continue
            position = value.end()
            quoted = value[1]
            plain = value[2] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            current.parameters.setdefault(word[1].lower(), plain)
    return found
