"""Words of a Dockerfile: quotes, escapes, variables and splitting, as BuildKit's shell lexer has
them. Never looks at an environment of its own: variables are an argument.

What comes out is bounded, so that a few nested words cannot fill the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from estiba.build.dockerfile import globs
from estiba.model.errors import InvalidArgument

MAX_SIZE = 1 << 20
MAX_DEPTH = 32
_SPECIAL = frozenset("@*#?-$!0")
_SPACES = frozenset(" \t")
_MODIFIERS = frozenset("+-?#%")


class WordError(InvalidArgument):
    """A word that cannot be expanded."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """`used`: names that had a value; `unset`: names that were looked up and had none."""

    text: str
    used: frozenset[str]
    unset: frozenset[str]


@dataclass(frozen=True, slots=True)
class ExpandedWords:
    words: tuple[str, ...]
    used: frozenset[str]
    unset: frozenset[str]


@dataclass(frozen=True, slots=True)
class Style:
    """What stays as it is written: quotes, escapes, variables without a value."""

    raw_quotes: bool = False
    raw_escapes: bool = False
    keep_unset: bool = False
    quotes_are_text: bool = False
    """Quotes mean nothing at all, as in here-documents."""


PLAIN = Style()
RAW = Style(raw_quotes=True, raw_escapes=True, keep_unset=True)
HEREDOC = Style(quotes_are_text=True)


def expand(
    word: str, variables: Mapping[str, str], escape: str = "\\", style: Style = PLAIN
) -> Expanded:
    """`word` with its variables in and its quotes and escapes out; never split."""
    lexer = _Lexer(word, variables, escape, style)
    text, _ = lexer.read(None, style.raw_escapes)
    return Expanded(text, frozenset(lexer.used), frozenset(lexer.unset))


def expand_words(
    word: str, variables: Mapping[str, str], escape: str = "\\", style: Style = PLAIN
) -> ExpandedWords:
    """As `expand`, then split at white space that is neither quoted nor escaped."""
    lexer = _Lexer(word, variables, escape, style)
    _, words = lexer.read(None, style.raw_escapes)
    return ExpandedWords(tuple(words), frozenset(lexer.used), frozenset(lexer.unset))


class _Splitter:
    """Collects words; white space ends one only where it is neither quoted nor escaped."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._word: list[str] = []

    def add(self, text: str) -> None:
        for char in text:
            if not char.isspace():
                self._word.append(char)
            else:
                self.end()

    def add_raw(self, text: str) -> None:
        if text:
            self._word.append(text)

    def end(self) -> None:
        if self._word:
            self.words.append("".join(self._word))
            self._word = []


class _Lexer:
    def __init__(self, text: str, variables: Mapping[str, str], escape: str, style: Style) -> None:
        self._text = text
        self._at = 0
        self._variables = variables
        self._escape = escape
        self._style = style
        self._size = 0
        self._depth = 0
        self.used: set[str] = set()
        self.unset: set[str] = set()

    def read(self, stop: str | None, raw_escapes: bool) -> tuple[str, list[str]]:
        """To the end, or behind `stop`."""
        out: list[str] = []
        words = _Splitter()
        quotes = not self._style.quotes_are_text
        while (char := self._peek()) != "":
            if char == stop:
                self._at += 1
                return "".join(out), self._done(words)
            if char == "$":
                value = self._dollar(raw_escapes)
                words.add(value)
            elif quotes and char == "'":
                value = self._single_quoted()
                words.add_raw(value)
            elif quotes and char == '"':
                value = self._double_quoted(raw_escapes)
                words.add_raw(value)
            elif char == "<":
                value = self._less_than()
                words.add_raw(value)
            elif char == self._escape:
                value = self._escaped(raw_escapes)
                words.add_raw(value)
            else:
                self._at += 1
                value = char
                words.add(char)
            out.append(self._counted(value))
        if stop is not None:
            raise WordError(f"{self._text!r:.200} has no closing {stop}: add it or quote the $")
        return "".join(out), self._done(words)

    @staticmethod
    def _done(words: _Splitter) -> list[str]:
        words.end()
        return words.words

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _counted(self, value: str) -> str:
        self._size += len(value)
        if self._size > MAX_SIZE:
            raise WordError(
                f"the variables in {self._text!r:.100} make more than {MAX_SIZE} characters"
            )
        return value

    def _escaped(self, raw: bool) -> str:
        self._at += 1
        char = self._next()
        if char == "":
            return self._escape if raw else ""
        return self._escape + char if raw else char

    def _less_than(self) -> str:
        """White space behind `<<` belongs to the word: it may be a here-document."""
        start = self._at
        self._at += 1
        if self._peek() == "<":
            self._at += 1
            while self._peek() in _SPACES and self._peek():
                self._at += 1
        return self._text[start : self._at]

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise WordError(f"{self._text!r:.200} has no closing single quote: add it")
        inside = self._text[self._at + 1 : end]
        self._at = end + 1
        return f"'{inside}'" if self._style.raw_quotes else inside

    def _double_quoted(self, raw_escapes: bool) -> str:
        quote = '"' if self._style.raw_quotes else ""
        out = [quote]
        self._at += 1
        while (char := self._peek()) != '"':
            if char == "":
                raise WordError(f"{self._text!r:.200} has no closing double quote: add it")
            if char == "$":
                out.append(self._dollar(raw_escapes))
                continue
            self._at += 1
            if char == self._escape:
                if raw_escapes:
                    out.append(char)
                if self._peek() == "":
                    continue
                if self._peek() in ('"', "$", self._escape):
                    char = self._next()
                elif raw_escapes:
                    continue
            out.append(char)
        self._at += 1
        out.append(quote)
        return "".join(out)

    # -- variables -------------------------------------------------------------------------

    def _dollar(self, raw_escapes: bool) -> str:
        self._at += 1
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._get(name)
            if value is None:
                return f"${name}" if self._style.keep_unset else ""
            return value
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise WordError(f"{self._text!r:.100} nests more than {MAX_DEPTH} variables")
        try:
            return self._braces()
        finally:
            self._depth -= 1

    def _name(self) -> str:
        start = self._at
        char = self._peek()
        if char.isdecimal():
            while self._peek().isdecimal():
                self._at += 1
        elif char in _SPECIAL and char:
            self._at += 1
        else:
            while (char := self._peek()) and (char.isalpha() or char.isdecimal() or char == "_"):
                self._at += 1
        return self._text[start : self._at]

    def _get(self, name: str) -> str | None:
        value = self._variables.get(name)
        (self.unset if value is None else self.used).add(name)
        return value

    def _braces(self) -> str:
        start = self._at
        self._at += 1
        first = self._peek()
        if first == "":
            raise WordError(f"{self._text!r:.200} has no closing }}: add it")
        if first in "{}:":
            raise WordError(f"${self._text[start:]!r:.100} is a bad substitution: write ${{NAME}}")
        name = self._name()
        sign = self._next()
        if sign == "}":
            value = self._get(name)
            if value is None:
                return f"${{{name}}}" if self._style.keep_unset else ""
            return value
        signs, null_is_unset = sign, False
        if sign == ":":
            null_is_unset = True
            sign = self._next()
            signs += sign
            if sign not in _MODIFIERS or not sign:
                raise self._unsupported(signs)
        if sign == "/":
            return self._replaced(name)
        if sign in _MODIFIERS and sign:
            return self._modified(name, signs, sign, null_is_unset)
        raise self._unsupported(signs)

    def _unsupported(self, signs: str) -> WordError:
        if not signs.removeprefix(":"):
            return WordError(f"{self._text!r:.200} has no closing }}: add it")
        return WordError(
            f"unsupported modifier ({signs}) in {self._text!r:.100}: "
            "there are :- - :+ + :? ? # ## % %% / //"
        )

    def _modified(self, name: str, signs: str, sign: str, null_is_unset: bool) -> str:
        word, _ = self.read("}", sign in "#%")
        value = self._get(name)
        if value is None and self._style.keep_unset:
            return f"${{{name}{signs}{word}}}"
        missing = value is None or (null_is_unset and value == "")
        match sign:
            case "-":
                return word if missing else value or ""
            case "+":
                return "" if missing else word
            case "?":
                if missing:
                    state = "unset" if value is None else "empty"
                    raise WordError(f"{name}: {word or f'is not allowed to be {state}'}")
                return value or ""
            case _:
                return self._trimmed(sign, word, value or "")

    def _trimmed(self, sign: str, pattern: str, value: str) -> str:
        longest = pattern.startswith(sign)
        trim: Callable[..., str] = globs.trim_suffix if sign == "%" else globs.trim_prefix
        return trim(value, globs.compile_pattern(pattern.removeprefix(sign)), longest=longest)

    def _replaced(self, name: str) -> str:
        every = self._peek() == "/"
        if every:
            self._at += 1
        pattern, _ = self.read("/", True)
        replacement, _ = self.read("}", True)
        value = self._get(name)
        if value is None and self._style.keep_unset:
            return f"${{{name}/{'/' * every}{pattern}/{replacement}}}"
        compiled = globs.compile_pattern(pattern)
        return globs.replace(value or "", compiled, replacement, every=every, limit=MAX_SIZE)
