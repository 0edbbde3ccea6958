"""Patterns of names: Go's `filepath.Match`, and the richer form of `.dockerignore`.

A pattern becomes tokens, and tokens become a regular expression that takes no more than linear
time for each `*`: whatever a `*` has passed by is never tried again (an atomic group). Where
that would miss a match, an automaton does the work. Whoever writes a pattern may be hostile.
Nothing here reads a file.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from estiba.model.automaton import NOT_SLASH, SKIPPABLE, Kind, Token
from estiba.model.errors import InvalidArgument

_END = r"(?:/|\Z)"
_DIRECTORIES = "(?:[^/]*/)*?"
_ANYTHING = r"[\s\S]"
_NOTHING = r"(?!)"
_REGEX_SPECIAL = frozenset(".+()|{}$")
_CONTROL = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_PERL = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\\t\\n\\f\\r "}
_NEGATED_PERL = {
    "D": "\\x00-/:-\U0010ffff",
    "W": "\\x00-/:-@\\[-^`{-\U0010ffff",
    "S": "\\x00-\\x08\\x0b\\x0e-\\x1f!-\U0010ffff",
}
_POSIX = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": "\\x00-\\x7f", "blank": "\\t ",
    "cntrl": "\\x00-\\x1f\\x7f", "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~",
    "punct": "!-/:-@\\[-`{-~", "space": "\\t-\\r ", "upper": "A-Z", "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}  # fmt: skip


_STAR = Token(Kind.STAR)


def literal(text: str) -> list[Token]:
    return [
        Token(Kind.SLASH, "/") if char == "/" else Token(Kind.ONE, re.escape(char)) for char in text
    ]


def bad_pattern(pattern: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"bad pattern {pattern[:200]!r}: {why}")


# -- Go's filepath.Match -------------------------------------------------------------------


def match_name(pattern: str, name: str) -> bool:
    """Go's `filepath.Match`: `*`, `?`, classes and escapes; a `*` passes no slash.

    Raises InvalidArgument for a malformed pattern.
    """
    return _name_regex(pattern).fullmatch(name) is not None


@functools.lru_cache(maxsize=1024)
def _name_regex(pattern: str) -> re.Pattern[str]:
    return re.compile(_chain(name_tokens(pattern), r"\Z"))


def has_wildcards(pattern: str) -> bool:
    """Whether a `*`, `?` or `[` stands in it that is not escaped."""
    return re.search(r"[*?\[]", re.sub(r"(?s)\\.", "", pattern)) is not None


def unescape(pattern: str) -> str:
    """A pattern without wildcards as the name that it matches."""
    return re.sub(r"(?s)\\(.)", r"\1", pattern)


def name_tokens(pattern: str) -> list[Token]:
    """Raises InvalidArgument for a malformed pattern."""
    tokens: list[Token] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            if tokens[-1:] != [_STAR]:
                tokens.append(_STAR)
        elif char == "?":
            tokens.append(Token(Kind.ONE))
        elif char == "[":
            token, position = _name_class(pattern, position)
            tokens.append(token)
        elif char == "\\":
            if position == len(pattern):
                raise bad_pattern(pattern, "nothing follows the last backslash")
            tokens += literal(pattern[position])
            position += 1
        else:
            tokens += literal(char)
    return tokens


def _name_class(pattern: str, position: int) -> tuple[Token, int]:
    """A class, from behind its `[`."""
    negated = pattern.startswith("^", position)
    position += negated
    ranges = ""
    is_first = True
    while is_first or not pattern.startswith("]", position):
        is_first = False
        low, position = _name_class_char(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _name_class_char(pattern, position + 1)
        if low <= high:
            ranges += f"{_in_class(low)}-{_in_class(high)}"
    if not ranges:
        return Token(Kind.ANY, _ANYTHING if negated else _NOTHING), position + 1
    return Token(Kind.ANY, f"[{'^' if negated else ''}{ranges}]"), position + 1


def _name_class_char(pattern: str, position: int) -> tuple[str, int]:
    if pattern.startswith("\\", position):
        position += 1
    elif pattern.startswith(("-", "]"), position):
        raise bad_pattern(pattern, "a class [...] with a range that has no beginning or no end")
    if position + 1 >= len(pattern):
        raise bad_pattern(pattern, "a class [...] that is not closed")
    return pattern[position], position + 1


def _in_class(char: str) -> str:
    return re.escape(char) if char.isascii() and not char.isalnum() else char


def _chain(tokens: Sequence[Token], end: str) -> str:
    """No TREE among them. Each `*` but the last takes as little as it can, once and for all."""
    chunks = [""]
    for token in tokens:
        if token.kind is Kind.STAR:
            chunks.append("")
        else:
            chunks[-1] += token.source
    if len(chunks) == 1:
        return chunks[0] + end
    middle = "".join(f"(?>[^/]*?{chunk})" for chunk in chunks[1:-1])
    return f"{chunks[0]}{middle}[^/]*{'?' if not end else ''}{chunks[-1]}{end}"


# -- patterns of .dockerignore -------------------------------------------------------------


def ignore_tokens(pattern: str) -> list[Token]:
    """Of a cleaned pattern without its `!`. `**` is any number of directories.

    moby/patternmatcher makes a regular expression of a pattern, except of the simplest; these
    tokens mean what that expression means, down to its oddities. Raises InvalidArgument.
    """
    name_tokens(pattern)
    if not any(char in pattern for char in "*?[]\\"):
        return literal(pattern)
    beginning, _, rest = pattern.partition("**")
    if not any(char in beginning + rest for char in "*?[]\\"):
        if not beginning:
            is_tree = rest.startswith("/")
            first = Token(Kind.TREE if is_tree else Kind.REST, _ANYTHING)
            return [first, *literal(rest[is_tree:])]
        if not rest:
            return [*literal(beginning), Token(Kind.REST, _ANYTHING)]
    return _regex_tokens(pattern, _as_go_regex(pattern))


def _as_go_regex(pattern: str) -> str:
    """`(.*/)?` is written as \\1 here, and `.*` as \\2: no pattern holds those characters."""
    if "\1" in pattern or "\2" in pattern:
        raise bad_pattern(pattern, "control characters")
    made = ""
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*" and pattern.startswith("*", position):
            position += 1
            position += pattern.startswith("/", position)
            made += "\2" if position == len(pattern) else "\1"
        elif char == "*":
            made += "[^/]*"
        elif char == "?":
            made += "[^/]"
        elif char == "\\":
            made += char + pattern[position]
            position += 1
        else:
            made += f"\\{char}" if char in _REGEX_SPECIAL else char
    return made


def _regex_tokens(pattern: str, regex: str) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    while position < len(regex):
        char = regex[position]
        position += 1
        if char == "\1":
            tokens.append(Token(Kind.TREE, "."))
        elif char == "\2":
            tokens.append(Token(Kind.REST, "."))
        elif char == "[":
            source, position = _regex_class(pattern, regex, position)
            is_repeated = regex.startswith("*", position)
            position += is_repeated
            tokens.append(_class_token(source, is_repeated=is_repeated))
        elif char == "\\":
            tokens.append(_escape_token(pattern, regex[position]))
            position += 1
        elif char == "^":
            # The beginning of the text: what stands before matches nothing, or cannot match.
            is_passed = any(token.kind not in SKIPPABLE for token in tokens)
            tokens = [Token(Kind.NEVER, _NOTHING)] if is_passed else []
        else:
            tokens += literal(char)
    return tokens


def _class_token(source: str, *, is_repeated: bool) -> Token:
    if is_repeated:
        return _STAR if source == NOT_SLASH else Token(Kind.MANY, source)
    return Token(Kind.ANY if re.match(source, "/") else Kind.ONE, source)


def _escape_token(pattern: str, char: str) -> Token:
    if char in _PERL or char in _NEGATED_PERL:
        return _class_token(f"[{(_PERL | _NEGATED_PERL)[char]}]", is_repeated=False)
    if char in "bBAz":
        return Token(Kind.NEVER, _NOTHING)
    return literal(_escaped(pattern, char))[0]


def _escaped(pattern: str, char: str) -> str:
    if char in _CONTROL:
        return _CONTROL[char]
    if char.isalnum() or not char.isascii():
        raise bad_pattern(pattern, f"\\{char} means nothing")
    return char


def _regex_class(pattern: str, regex: str, position: int) -> tuple[str, int]:
    """A class of a regular expression, from behind its `[`."""
    negated = regex.startswith("^", position)
    position += negated
    made = ""
    is_first = True
    while is_first or not regex.startswith("]", position):
        is_first = False
        posix = re.compile(r"\[:(\^?)([a-z]+):\]").match(regex, position)
        if posix and not posix[1] and posix[2] in _POSIX:
            made += _POSIX[posix[2]]
            position = posix.end()
            continue
        if regex.startswith("\\", position) and regex[position + 1 : position + 2] in _PERL:
            made += _PERL[regex[position + 1]]
            position += 2
            continue
        low, position = _regex_class_char(pattern, regex, position)
        high = low
        if regex.startswith("-", position) and not regex.startswith("]", position + 1):
            high, position = _regex_class_char(pattern, regex, position + 1)
        if low > high:
            raise bad_pattern(pattern, f"the range {low}-{high} is empty")
        made += _in_class(low) if low == high else f"{_in_class(low)}-{_in_class(high)}"
    return f"[{'^' if negated else ''}{made}]", position + 1


def _regex_class_char(pattern: str, regex: str, position: int) -> tuple[str, int]:
    if position >= len(regex):
        raise bad_pattern(pattern, "a class [...] that is not closed")
    if regex[position] != "\\":
        return regex[position], position + 1
    return _escaped(pattern, regex[position + 1]), position + 2


def needs_automaton(tokens: Sequence[Token]) -> bool:
    """Whether the first way to match a piece may be the wrong one."""
    return any(
        token.kind in (Kind.ANY, Kind.MANY)
        or (
            token.kind is Kind.TREE
            and index > 0
            and tokens[index - 1].kind not in (Kind.SLASH, Kind.TREE)
        )
        for index, token in enumerate(tokens)
    )


def fast_regex(tokens: Sequence[Token]) -> tuple[bool, str]:
    """(whether any number of directories may stand before, a regular expression).

    It matches a path when the pattern matches it or a parent of it, for paths without a line
    break and patterns that need no automaton.
    """
    if any(token.kind is Kind.NEVER for token in tokens):
        return False, _NOTHING
    parts: list[list[Token]] = [[]]
    for index, token in enumerate(tokens):
        if token.kind is not Kind.TREE:
            parts[-1].append(token)
        elif index == 0 or tokens[index - 1].kind is Kind.SLASH:
            parts.append([])
    last = _last_part(parts[-1])
    is_rooted = bool(parts[0]) or len(parts) == 1
    between = parts[0 if is_rooted else 1 : -1]
    if not between:
        return not is_rooted, last
    made = "".join(
        f"(?>{_DIRECTORIES if number or not is_rooted else ''}{_chain(part, '')})"
        for number, part in enumerate(between)
    )
    return False, f"{made}{_DIRECTORIES}{last}"


def _last_part(part: list[Token]) -> str:
    if part and part[0].kind is Kind.REST:
        return f"{_ANYTHING}*{_chain(part[1:], _END)}" if part[1:] else ""
    if part and part[-1].kind is Kind.REST:
        return _chain(part[:-1], "")
    return _chain(part, _END)
