"""Patterns of `${name#pattern}` and `${name/pattern/text}`: `*`, `?` and plain characters.

A pattern is hostile input, so matching is one pass over the text with the set of live states
in the bits of an integer, never a backtracking regular expression.
"""

from __future__ import annotations

from dataclasses import dataclass

from estiba.model.errors import InvalidArgument

_MAX_WORK = 1 << 28
"""Characters of a pattern times characters of a value."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One token a state: a character, or "" for any one; bit i of `stars`: a `*` before token i
    (before the end for i = len(tokens))."""

    tokens: tuple[str, ...]
    stars: int

    def reversed(self) -> Pattern:
        size = len(self.tokens)
        stars = sum(1 << (size - i) for i in range(size + 1) if self.stars >> i & 1)
        return Pattern(self.tokens[::-1], stars)


def compile_pattern(text: str) -> Pattern:
    tokens: list[str] = []
    stars = 0
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*":
            stars |= 1 << len(tokens)
            continue
        if char == "?":
            tokens.append("")
            continue
        if char == "\\":
            following = text[at : at + 1]
            if following in ("*", "?", "\\") and following:
                char = following
                at += 1
            elif following in ("}", "/") and following:
                continue
            else:
                raise InvalidArgument(
                    f"invalid pattern {text!r:.100}: a backslash stands before * ? \\ }} or / only"
                )
        tokens.append(char)
    return Pattern(tuple(tokens), stars)


def trim_prefix(value: str, pattern: Pattern, *, longest: bool) -> str:
    end = _States(value, pattern).end(value, 0, longest=longest)
    return value if end is None else value[end:]


def trim_suffix(value: str, pattern: Pattern, *, longest: bool) -> str:
    return trim_prefix(value[::-1], pattern.reversed(), longest=longest)[::-1]


def replace(value: str, pattern: Pattern, text: str, *, every: bool, limit: int) -> str:
    """The leftmost match, or every one, as long as it can be."""
    states = _States(value, pattern)
    out: list[str] = []
    size = done = 0
    last_end = -1
    for start in _starts(value, pattern):
        if start < done:
            continue
        end = states.end(value, start, longest=True)
        if end is None or (end == start == last_end):
            # An empty match right behind another one is none.
            continue
        out += (value[done:start], text)
        size += start - done + len(text)
        if size > limit:
            raise InvalidArgument(f"replacing makes more than {limit} characters: use less text")
        done = last_end = end
        if not every:
            break
    return "".join(out) + value[done:]


class _States:
    def __init__(self, value: str, pattern: Pattern) -> None:
        size = len(pattern.tokens)
        if size * len(value) > _MAX_WORK:
            raise InvalidArgument("the pattern and its value are too long: shorten one of them")
        self.accept = 1 << size
        self.stars = pattern.stars
        self._any = sum(1 << i for i, token in enumerate(pattern.tokens) if not token)
        self._of: dict[str, int] = {}
        for i, token in enumerate(pattern.tokens):
            if token:
                self._of[token] = self._of.get(token, 0) | 1 << i

    def step(self, live: int, char: str) -> int:
        plain = self._of.get(char, 0)
        if char == "\n":
            # Neither * nor ? matches the end of a line.
            return (live & plain) << 1
        return (live & (plain | self._any)) << 1 | (live & self.stars)

    def end(self, value: str, start: int, *, longest: bool) -> int | None:
        live, found = 1, None
        for at in range(start, len(value) + 1):
            if live & self.accept:
                found = at
                if not longest:
                    break
            if not live or at == len(value):
                break
            live = self.step(live, value[at])
        return found


def _starts(value: str, pattern: Pattern) -> list[int]:
    """Where a match can begin: the pattern and the text read backwards, from everywhere at once."""
    states = _States(value, pattern.reversed())
    live = 1
    found = []
    for at in range(len(value), -1, -1):
        live |= 1
        if live & states.accept:
            found.append(at)
        if at:
            live = states.step(live, value[at - 1])
    return found[::-1]
