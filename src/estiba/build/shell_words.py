"""Words of a POSIX shell's text, with the expansions in them; refuses what shells do not share.

Knows of commands only that a substitution holds some: who reads those is in `shell_text.py`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

MAX_DEPTH = 40
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|\d+|[@*#?$!-]")
_OPERATION = re.compile(r":?[-=?+]|##?|%%?")
ENDS_WORD = frozenset(" \t\n;&|()<>")
_ALONE = frozenset({"{", "}", "[", "[[", "]]"})
"""Words that look like parts of patterns."""


class NotUnderstood(Exception):
    """The text is more than this understands, or no shell's at all."""


@dataclass(frozen=True, slots=True)
class Word:
    """`text` without its quotes, None where something is only known when it runs."""

    text: str | None
    is_plain: bool
    """Neither quoted nor escaped anywhere, without patterns and braces."""
    is_quoted: bool = False
    splits: bool = False
    """Holds an expansion outside of quotes."""
    has_glob: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    assigned: tuple[str, ...]
    """Names that are set in front of it."""
    words: tuple[Word, ...]


class WordReader(ABC):
    def __init__(self, text: str, found: list[Command], depth: int) -> None:
        self._text = text
        self._at = 0
        self._found = found
        self._depth = depth
        self._documents: list[tuple[str, bool, bool]] = []
        """(delimiter, expands, strips tabs) whose text begins at the next line."""

    @abstractmethod
    def commands(self, ends: frozenset[str]) -> str:
        """Reads commands up to one of `ends` and returns it."""

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotUnderstood("too deep")

    def _peek(self, size: int = 1) -> str:
        return self._text[self._at : self._at + size]

    # -- words -----------------------------------------------------------------------------

    def _word(self) -> Word:
        """Empty only in front of what ends a word, which an assignment allows."""
        start = self._at
        text: list[str] = []
        quoted, plain, static, splits, glob = False, True, True, False, False
        while (char := self._peek()) and char not in ENDS_WORD:
            self._at += 1
            quoted = quoted or char in "\\'\""
            if char == "\\":
                following = self._peek()
                self._at += 1
                if following == "":
                    raise NotUnderstood("a backslash at the end")
                text.append(following.replace("\n", ""))
            elif char == "'":
                text.append(self._single_quoted())
            elif char == '"':
                inside = self._double_quoted()
                static = static and inside is not None
                text.append(inside or "")
            elif char in "$`":
                expands = self._expansion(char, quoted=False)
                static, splits = static and not expands, splits or expands
                text.append("" if expands else char)
            else:
                glob = glob or char in "*?["
                plain = plain and char not in "*?[{}~="
                text.append(char)
        if self._at == start and not self._text[start - 1 : start] == "=":
            raise NotUnderstood("a word is missing")
        joined = "".join(text)
        plain = static and not quoted and (plain or joined in _ALONE)
        return Word(joined if static else None, plain, quoted, splits, glob)

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise NotUnderstood("a quote is open")
        inside = self._text[self._at : end]
        self._at = end + 1
        return inside

    def _double_quoted(self) -> str | None:
        """None where something in it is only known when it runs."""
        text: list[str] = []
        static = True
        while (char := self._peek()) != '"':
            if char == "":
                raise NotUnderstood("a quote is open")
            self._at += 1
            if char == "\\":
                text.append(self._escaped('$`"\\\n'))
            elif char in "$`":
                expands = self._expansion(char, quoted=True)
                static = static and not expands
                text.append("" if expands else char)
            else:
                text.append(char)
        self._at += 1
        return "".join(text) if static else None

    def _escaped(self, special: str) -> str:
        following = self._peek()
        if following and following in special:
            self._at += 1
            return following.replace("\n", "")
        return "\\"

    def _expansion(self, char: str, *, quoted: bool) -> bool:
        """Behind a `$` or a backtick; false when it means itself."""
        self._enter()
        expands = True
        if char == "`":
            self._backticks(quoted=quoted)
        elif self._peek(2) == "((" or self._peek() == "[":
            raise NotUnderstood("arithmetic")
        elif self._peek() == "(":
            self._at += 1
            self.commands(frozenset({")"}))
        elif self._peek() == "{":
            self._at += 1
            self._braces(quoted=quoted)
        elif match := _PARAMETER.match(self._text, self._at):
            # One digit only, $10 is ${1}0.
            self._at = self._at + 1 if match[0].isdigit() else match.end()
        elif self._peek() in ("'", '"') and not quoted:
            raise NotUnderstood("quotes of another shell")
        else:
            expands = False
        if expands and self._peek() == "[" and char == "$":
            raise NotUnderstood("perhaps a subscript")
        self._depth -= 1
        return expands

    def _backticks(self, *, quoted: bool) -> None:
        text: list[str] = []
        while (char := self._peek()) != "`":
            if char == "":
                raise NotUnderstood("a backtick is open")
            self._at += 1
            if char == "\\":
                if self._peek() == '"' and quoted:
                    raise NotUnderstood("shells do not agree")
                char = self._escaped("$`\\")
            text.append(char)
        self._at += 1
        type(self)("".join(text), self._found, self._depth).commands(frozenset({""}))

    def _braces(self, *, quoted: bool) -> None:
        if self._peek() == "#" and self._peek(2) != "#}":
            self._at += 1
            match = _PARAMETER.match(self._text, self._at)
            if match is None or self._text[match.end() : match.end() + 1] != "}":
                raise NotUnderstood("braces")
            self._at = match.end() + 1
            return
        match = _PARAMETER.match(self._text, self._at)
        if match is None:
            raise NotUnderstood("braces")
        self._at = match.end()
        if self._peek() != "}":
            operation = _OPERATION.match(self._text, self._at)
            if operation is None or match[0] == "!":
                raise NotUnderstood("braces of another shell")
            self._at = operation.end()
            if operation[0].endswith("="):
                self._found.append(Command((match[0],), ()))
            self._alternative(quoted=quoted)
        self._at += 1

    def _alternative(self, *, quoted: bool) -> None:
        """The word behind an operation, up to its brace."""
        while (char := self._peek()) != "}":
            if char == "" or (quoted and char in "'\""):
                raise NotUnderstood("shells do not agree")
            self._at += 1
            if char == "\\":
                self._at += 1
            elif char == "'":
                self._single_quoted()
            elif char == '"':
                self._double_quoted()
            elif char in "$`":
                self._expansion(char, quoted=quoted)

    # -- here-documents --------------------------------------------------------------------

    def _read_documents(self) -> None:
        documents, self._documents = self._documents, []
        for delimiter, expands, strips in documents:
            lines: list[str] = []
            while True:
                if self._at >= len(self._text):
                    raise NotUnderstood("a here-document is open")
                end = self._text.find("\n", self._at)
                end = len(self._text) if end < 0 else end
                line = self._text[self._at : end]
                self._at = end + 1
                line = line.lstrip("\t") if strips else line
                if line == delimiter:
                    break
                if expands and line.endswith("\\"):
                    raise NotUnderstood("a document's line goes on")
                lines.append(line)
            if expands:
                type(self)("\n".join(lines), self._found, self._depth).document()
        self._at = min(self._at, len(self._text))

    def document(self) -> None:
        """The text of a here-document: only expansions and backslashes mean something."""
        while char := self._peek():
            self._at += 1
            if char == "\\":
                self._escaped("$`\\\n")
            elif char in "$`":
                self._expansion(char, quoted=True)
