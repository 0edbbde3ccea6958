"""The text of a POSIX shell taken apart into the simple commands that it may run.

Nothing is run or expanded. Whatever is not plain POSIX, or differs between shells, is refused:
who asks must then assume the worst.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_TEXT = 1 << 16
MAX_DEPTH = 40
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_REDIRECTION = re.compile(r"\d*(<<-|<<(?!<)|>>|>\||>&|<&|<>|<(?![(<])|>(?!\())")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|\d+|[@*#?$!-]")
_OPERATION = re.compile(r":?[-=?+]|##?|%%?")
_SPLIT_OPERATOR = re.compile(r"[$<>&|;({`]\\\n")
_BLANK = " \t"
_ENDS_WORD = frozenset(" \t\n;&|()<>")
_PASSED_OVER = frozenset(
    {"if", "then", "else", "elif", "fi", "do", "done", "while", "until", "{", "}", "!"}
)
_ALONE = frozenset({"{", "}", "[", "[[", "]]"})
"""Words that look like parts of patterns."""
_REFUSED = frozenset({"function", "select", "time", "coproc", "[[", "]]"})


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


def simple_commands(text: str) -> list[Command]:
    """All of them, those in substitutions and here-documents too, in no particular order.

    Raises NotUnderstood.
    """
    if len(text) > MAX_TEXT or "\0" in text or "\r" in text:
        raise NotUnderstood("too long, or strange characters")
    if _SPLIT_OPERATOR.search(text):
        raise NotUnderstood("an operator in two lines")
    found: list[Command] = []
    _Reader(text, found, 0).commands(frozenset({""}))
    return found


class _Reader:
    def __init__(self, text: str, found: list[Command], depth: int) -> None:
        self._text = text
        self._at = 0
        self._found = found
        self._depth = depth
        self._documents: list[tuple[str, bool, bool]] = []
        """(delimiter, expands, strips tabs) whose text begins at the next line."""

    # -- lists -----------------------------------------------------------------------------

    def commands(self, ends: frozenset[str]) -> str:
        """Up to one of `ends`: "" for the end of the text, ")", ";;" or "esac"."""
        self._enter()
        while True:
            self._skip(newlines=True)
            end = self._end(ends)
            if end is not None:
                self._depth -= 1
                return end
            char = self._peek()
            if char == "(":
                if self._peek(2) == "((":
                    raise NotUnderstood("arithmetic")
                self._at += 1
                self.commands(frozenset({")"}))
            elif char in ";&|":
                self._separator()
            elif self._simple() == "esac":
                if "esac" not in ends:
                    raise NotUnderstood("esac")
                self._depth -= 1
                return "esac"

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotUnderstood("too deep")

    def _end(self, ends: frozenset[str]) -> str | None:
        for end in ("", ")", ";;"):
            is_here = self._peek(len(end)) == end if end else self._at >= len(self._text)
            if is_here:
                if end not in ends or (not end and self._documents):
                    raise NotUnderstood(f"unexpected {end or 'end'}")
                self._at += len(end)
                return end
        return None

    def _separator(self) -> None:
        for separator in ("&&", "||", ";", "&", "|"):
            if self._peek(len(separator)) == separator:
                self._at += len(separator)
                if self._peek() == "&" or (separator == ";" and self._peek() == ";"):
                    raise NotUnderstood("an operator of another shell")
                return

    def _peek(self, size: int = 1) -> str:
        return self._text[self._at : self._at + size]

    def _skip(self, *, newlines: bool) -> None:
        """White space, comments and, when asked for, ends of lines with the documents below."""
        while self._at < len(self._text):
            char = self._text[self._at]
            if char in _BLANK:
                self._at += 1
            elif char == "\\" and self._peek(2) == "\\\n":
                self._at += 2
            elif char == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif char == "\n" and newlines:
                self._at += 1
                self._read_documents()
            else:
                return

    # -- one command -----------------------------------------------------------------------

    def _simple(self) -> str:
        assigned: list[str] = []
        words: list[Word] = []
        redirected = False
        while True:
            self._skip(newlines=False)
            char = self._peek()
            if char == "(" and (words or assigned or redirected):
                raise NotUnderstood("a function, an array or a pattern")
            if char == "" or char in "\n;&|()":
                break
            if self._redirection():
                redirected = True
                continue
            match = None if words else _ASSIGNMENT.match(self._text, self._at)
            if match:
                assigned.append(match[1])
                self._at = match.end()
                self._word()
                continue
            word = self._word()
            if not words and not assigned and not redirected and word.is_plain and word.text:
                keyword = self._keyword(word.text)
                if keyword is not None:
                    return keyword
            words.append(word)
        self._found.append(Command(tuple(assigned), tuple(words)))
        return ""

    def _keyword(self, word: str) -> str | None:
        """What begins with it is read; None for a word that is none."""
        if word in _REFUSED:
            raise NotUnderstood(word)
        if word == "for":
            self._for()
        elif word == "case":
            self._case()
        elif word == "esac":
            return "esac"
        elif word not in _PASSED_OVER:
            return None
        return ""

    def _for(self) -> None:
        self._skip(newlines=False)
        name = self._word()
        if not name.is_plain or not name.text or not _NAME.fullmatch(name.text):
            raise NotUnderstood("for without a name")
        self._found.append(Command((name.text,), ()))
        self._skip(newlines=True)
        if self._next_is("in"):
            while True:
                self._skip(newlines=False)
                if self._peek() in ("", "\n", ";"):
                    return
                if self._peek() in _ENDS_WORD:
                    raise NotUnderstood("for")
                self._word()

    def _case(self) -> None:
        self._skip(newlines=False)
        self._word()
        self._skip(newlines=True)
        if not self._next_is("in"):
            raise NotUnderstood("case without in")
        while True:
            self._skip(newlines=True)
            if self._next_is("esac"):
                return
            if self._peek() == "(":
                self._at += 1
            self._patterns()
            if self.commands(frozenset({";;", "esac"})) == "esac":
                return

    def _patterns(self) -> None:
        while True:
            self._skip(newlines=False)
            self._word()
            self._skip(newlines=False)
            char = self._peek()
            self._at += 1
            if char == ")":
                return
            if char != "|":
                raise NotUnderstood("case pattern")

    def _next_is(self, word: str) -> bool:
        """Passed over if it is."""
        end = self._at + len(word)
        following = self._text[end : end + 1]
        if self._text.startswith(word, self._at) and (not following or following in _ENDS_WORD):
            self._at = end
            return True
        return False

    def _redirection(self) -> bool:
        match = _REDIRECTION.match(self._text, self._at)
        if match is None:
            if self._peek() in ("<", ">"):
                raise NotUnderstood("a redirection of another shell")
            return False
        self._at = match.end()
        self._skip(newlines=False)
        word = self._word()
        if match[1] in ("<", "<>"):
            # What reads the file does not matter, so it stands as the plainest reader.
            self._found.append(Command((), (Word("cat", is_plain=True), word)))
        if match[1].startswith("<<"):
            if word.text is None or word.has_glob:
                raise NotUnderstood("the delimiter of a here-document")
            self._documents.append((word.text, not word.is_quoted, match[1] == "<<-"))
        return True

    # -- words -----------------------------------------------------------------------------

    def _word(self) -> Word:
        """Empty only in front of what ends a word, which an assignment allows."""
        start = self._at
        text: list[str] = []
        quoted, plain, static, splits, glob = False, True, True, False, False
        while (char := self._peek()) and char not in _ENDS_WORD:
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
        _Reader("".join(text), self._found, self._depth).commands(frozenset({""}))

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
                _Reader("\n".join(lines), self._found, self._depth).document()
        self._at = min(self._at, len(self._text))

    def document(self) -> None:
        """The text of a here-document: only expansions and backslashes mean something."""
        while char := self._peek():
            self._at += 1
            if char == "\\":
                self._escaped("$`\\\n")
            elif char in "$`":
                self._expansion(char, quoted=True)
