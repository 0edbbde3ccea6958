"""The text of a POSIX shell taken apart into the simple commands that it may run.

Nothing is run or expanded. Whatever is not plain POSIX, or differs between shells, is refused:
who asks must then assume the worst.
"""

from __future__ import annotations

import re

from estiba.build.shell_words import ENDS_WORD, Command, NotUnderstood, Word, WordReader

MAX_TEXT = 1 << 16
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_REDIRECTION = re.compile(r"\d*(<<-|<<(?!<)|>>|>\||>&|<&|<>|<(?![(<])|>(?!\())")
_SPLIT_OPERATOR = re.compile(r"[$<>&|;({`]\\\n")
_BLANK = " \t"
_PASSED_OVER = frozenset(
    {"if", "then", "else", "elif", "fi", "do", "done", "while", "until", "{", "}", "!"}
)
_REFUSED = frozenset({"function", "select", "time", "coproc", "[[", "]]"})


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


class _Reader(WordReader):
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
                if self._peek() in ENDS_WORD:
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
        if self._text.startswith(word, self._at) and (not following or following in ENDS_WORD):
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
