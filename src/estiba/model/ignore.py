"""What `.dockerignore` leaves out of a build context, by Docker's rules. Pure.

The last rule that matches a path or one of its parent directories decides, as
`MatchesOrParentMatches` of moby/patternmatcher has it. Rules of one kind that follow each other
are one regular expression, and the last such group is asked first.
"""

from __future__ import annotations

import functools
import itertools
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from estiba.model.automaton import Automaton, Kind, Token
from estiba.model.errors import InvalidArgument, LimitExceeded
from estiba.model.wildcards import (
    fast_regex,
    ignore_tokens,
    match_name,
    needs_automaton,
)

__all__ = ["IgnoreRule", "IgnoreRules", "match_name"]

MAX_BYTES = 1 << 20
_MAX_RULES = 5_000
_MAX_SLOW_RULES = 200
_MAX_PATTERN_CHARS = 4_096
_RULES_A_REGEX = 256
_GO_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"  # noqa: E501
_DIRECTORIES = "(?:[^/]*/)*?"


@dataclass(frozen=True, slots=True)
class IgnoreRule:
    """`pattern` is as written, with its `!`; `line` is counted from 1, 0 for one of no file."""

    pattern: str
    file: str
    line: int
    is_exception: bool
    tokens: tuple[Token, ...]

    def __str__(self) -> str:
        where = f" ({self.file}:{self.line})" if self.line else ""
        return f'"{self.pattern}"{where}'

    def matches(self, path: str) -> bool:
        """Whether it matches the path or a parent of it."""
        return Automaton([self.tokens]).matches(path)


class IgnoreRules:
    """Paths are relative, clean and separated by slashes: `a/b`, never `./a/` or `/a`."""

    def __init__(self, rules: Sequence[IgnoreRule] = ()) -> None:
        self.rules = tuple(rules)
        self._groups = [
            _Group(is_exception=is_exception, rules=tuple(group))
            for is_exception, group in itertools.groupby(rules, lambda rule: rule.is_exception)
        ][::-1]

    @classmethod
    def parse(cls, text: str, file: str = ".dockerignore") -> IgnoreRules:
        """Raises InvalidArgument with the line of a bad pattern, LimitExceeded."""
        if len(text) > MAX_BYTES:
            raise LimitExceeded(f"{file}: more than {MAX_BYTES >> 20} MiB")
        lines = text.removeprefix("\ufeff").split("\n")
        return cls._of(((number, line) for number, line in enumerate(lines, 1)), file)

    @classmethod
    def of(cls, patterns: Iterable[str]) -> IgnoreRules:
        """The same of patterns that stand in no file, as `COPY --exclude` has them."""
        return cls._of(((0, pattern) for pattern in patterns), "")

    @classmethod
    def _of(cls, lines: Iterable[tuple[int, str]], file: str) -> IgnoreRules:
        rules: list[IgnoreRule] = []
        for number, line in lines:
            if (rule := _rule(line, file, number)) is not None:
                rules.append(rule)
            if len(rules) > _MAX_RULES:
                raise LimitExceeded(f"{file or 'exclude'}: more than {_MAX_RULES} patterns")
        if sum(needs_automaton(rule.tokens) for rule in rules) > _MAX_SLOW_RULES:
            raise LimitExceeded(
                f"{file or 'exclude'}: more than {_MAX_SLOW_RULES} patterns with [classes], or "
                "with ** behind other characters than a slash"
            )
        return cls(rules)

    def __bool__(self) -> bool:
        return bool(self.rules)

    def excludes(self, path: str) -> bool:
        """Whether the path is left out."""
        for group in self._groups:
            if group.matches(path):
                return not group.is_exception
        return False

    def reason(self, path: str) -> IgnoreRule | None:
        """The rule that leaves the path out, None when none does."""
        for rule in reversed(self.rules):
            if rule.matches(path):
                return None if rule.is_exception else rule
        return None

    def may_match_below(self, directory: str) -> bool:
        """Whether any rule, exception or not, could match something in the directory."""
        parts = directory.split("/")
        return any(group.may_match_below(parts) for group in self._groups)

    def may_hold_exceptions(self, directory: str) -> bool:
        """Whether anything below a directory that is left out could be taken all the same.

        When not, a walk need not enter it. Only exceptions count that stand behind the last
        rule that leaves the directory out.
        """
        parts = directory.split("/")
        for group in self._groups:
            if group.is_exception:
                if group.may_match_below(parts):
                    return True
            elif group.matches(directory):
                return False
        return False


class _Group:
    """Rules that follow each other and are all exceptions, or all none."""

    def __init__(self, *, is_exception: bool, rules: tuple[IgnoreRule, ...]) -> None:
        self.is_exception = is_exception
        self._rules = rules

    @functools.cached_property
    def _compiled(self) -> tuple[list[re.Pattern[str]], Automaton | None]:
        slow = [rule.tokens for rule in self._rules if needs_automaton(rule.tokens)]
        fast = [fast_regex(rule.tokens) for rule in self._rules if not needs_automaton(rule.tokens)]
        patterns = [
            re.compile(_joined(fast[start : start + _RULES_A_REGEX]))
            for start in range(0, len(fast), _RULES_A_REGEX)
        ]
        return patterns, Automaton(slow) if slow else None

    @functools.cached_property
    def _exact(self) -> Automaton:
        return Automaton([rule.tokens for rule in self._rules])

    def matches(self, path: str) -> bool:
        # `.` in the expressions that Docker makes stops at a line break.
        if "\n" in path:
            return self._exact.matches(path)
        patterns, automaton = self._compiled
        return any(pattern.match(path) for pattern in patterns) or (
            automaton is not None and automaton.matches(path)
        )

    @functools.cached_property
    def _beginnings(self) -> list[list[re.Pattern[str] | None]]:
        return [_beginning(rule.tokens) for rule in self._rules]

    def may_match_below(self, parts: list[str]) -> bool:
        return any(_may_match_below(beginning, parts) for beginning in self._beginnings)


def _rule(line: str, file: str, number: int) -> IgnoreRule | None:
    """None for a comment and an empty line."""
    if line.startswith("#") and number:
        return None
    pattern = written = line.strip(_GO_SPACE)
    if not pattern:
        return None
    where = f"{file}:{number}: " if number else ""
    is_exception = pattern.startswith("!")
    pattern = pattern[is_exception:].strip(_GO_SPACE)
    cleaned = _clean(pattern) if pattern else ""
    if not is_exception and cleaned != cleaned.strip(_GO_SPACE):
        # Docker trims again what stands behind the first slash, but for exceptions.
        cleaned = posixpath.normpath(cleaned.strip(_GO_SPACE))
    if is_exception and cleaned in ("", "/"):
        raise InvalidArgument(f'{where}illegal exclusion pattern: "!"')
    if len(cleaned) > _MAX_PATTERN_CHARS:
        raise LimitExceeded(f"{where}a pattern of over {_MAX_PATTERN_CHARS} characters")
    try:
        tokens = ignore_tokens(cleaned)
    except InvalidArgument as error:
        raise InvalidArgument(f"{where}{error}") from error
    return IgnoreRule(written, file, number, is_exception, tuple(tokens))


def _clean(pattern: str) -> str:
    """Go's `filepath.Clean`, then relative to the context."""
    cleaned = posixpath.normpath(pattern)
    if cleaned.startswith("//"):
        cleaned = cleaned[1:]
    return cleaned[1:] if len(cleaned) > 1 and cleaned.startswith("/") else cleaned


def _joined(regexes: Sequence[tuple[bool, str]]) -> str:
    """One expression of many; what may stand in any directory is looked for in one go."""
    rooted = [regex for is_anywhere, regex in regexes if not is_anywhere]
    anywhere = [regex for is_anywhere, regex in regexes if is_anywhere]
    if anywhere:
        rooted.append(f"{_DIRECTORIES}(?:{'|'.join(anywhere)})")
    return f"(?:{'|'.join(rooted)})"


def _beginning(tokens: Sequence[Token]) -> list[re.Pattern[str] | None]:
    """One expression for each directory that the pattern names; None ends it: anything."""
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token.kind is Kind.SLASH:
            parts.append([])
        else:
            parts[-1].append(token)
    made: list[re.Pattern[str] | None] = []
    for part in parts:
        if needs_automaton(part) or any(token.kind in (Kind.TREE, Kind.REST) for token in part):
            return [*made, None]
        made.append(re.compile(fast_regex(part)[1]))
    return made


def _may_match_below(beginning: list[re.Pattern[str] | None], parts: list[str]) -> bool:
    """Whether a path below the directory `parts` can match."""
    for index, regex in enumerate(beginning):
        if regex is None or index == len(parts):
            return True
        if not regex.match(parts[index]):
            return False
    return True
