"""Bytes to logical lines: continuations joined, comments out, here-documents beside them.

Knows of instructions only what it must: which of them may have here-documents.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass

from estiba.build.dockerfile import heredocs
from estiba.build.dockerfile.arguments import NotStrings, json_words
from estiba.build.dockerfile.errors import DockerfileError
from estiba.build.dockerfile.flags import split_flags
from estiba.build.dockerfile.instructions import Heredoc, Position, Span
from estiba.build.dockerfile.words import WordError

MAX_BYTES = 16 << 20
MAX_LINES = 1 << 18
MAX_INSTRUCTIONS = 1 << 13
MAX_TEXT = 1 << 20
"""Characters of an instruction, its here-documents apart."""
_SPACE = re.compile(r"[\t\v\f\r ]+")
_SURROGATE = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that stands in one line of the file, from `offset` of the logical line."""

    offset: int
    start: Position


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """`text` begins with the keyword and has no white space at its end."""

    text: str
    span: Span
    pieces: tuple[Piece, ...]
    comments: tuple[str, ...] = ()
    """The lines of comment right above."""
    empty: Span | None = None
    """The first empty line between continuations."""
    heredocs: tuple[Heredoc, ...] = ()

    def position(self, offset: int) -> Position:
        piece = self.pieces[bisect.bisect_right(self.pieces, offset, key=lambda p: p.offset) - 1]
        return Position(piece.start.line, piece.start.column + offset - piece.offset)

    def at(self, start: int, end: int | None = None) -> Span:
        """Of a part of `text`."""
        last = self.position(max(start, (start + 1 if end is None else end) - 1))
        return Span(self.position(start), Position(last.line, last.column + 1))


def decode(source: bytes) -> list[str]:
    """The lines with their ends. Bytes that are not UTF-8 may stand in comments only."""
    whole = Span(Position(1, 1), Position(1, 2))
    if len(source) > MAX_BYTES:
        raise DockerfileError(
            whole, f"{len(source)} bytes are too many", f"at most {MAX_BYTES} bytes"
        )
    text = source.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if text.count("\n") > MAX_LINES:
        raise DockerfileError(whole, "too many lines", f"at most {MAX_LINES} lines")
    lines = _split(text)
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise DockerfileError(_char(number, line.index("\0")), "a NUL character", "text")
        if not line.isascii() and (bad := _SURROGATE.search(line)):
            if not is_comment(line):
                raise DockerfileError(
                    _char(number, bad.start()),
                    "a byte that is not UTF-8",
                    "the file saved as UTF-8",
                )
            lines[number - 1] = _SURROGATE.sub("\ufffd", line)
    return lines


def _split(text: str) -> list[str]:
    parts = text.split("\n")
    last = parts.pop()
    return [part + "\n" for part in parts] + ([last] if last else [])


def _char(line: int, index: int) -> Span:
    return Span(Position(line, index + 1), Position(line, index + 2))


def is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def logical_lines(lines: list[str], escape: str, directives: int) -> Iterator[LogicalLine]:
    """`directives`: how many lines at the top are no comments of anything."""
    reader = _Reader(lines, escape)
    reader.at = directives
    count = documents = 0
    while (line := reader.next_line()) is not None:
        count += 1
        documents += len(line.heredocs)
        if count > MAX_INSTRUCTIONS:
            raise DockerfileError(
                line.span, "too many instructions", f"at most {MAX_INSTRUCTIONS} in a file"
            )
        if documents > heredocs.MAX_HEREDOCS:
            raise DockerfileError(
                line.span,
                "too many here-documents",
                f"at most {heredocs.MAX_HEREDOCS} in a file",
            )
        yield line


class _Reader:
    def __init__(self, lines: list[str], escape: str) -> None:
        self._lines = lines
        self._escape = escape
        self.at = 0
        self._comments: list[str] = []

    def next_line(self) -> LogicalLine | None:
        while self.at < len(self._lines):
            line = self._lines[self.at].rstrip("\r\n")
            if is_comment(line):
                self._comment(line)
            elif line.strip():
                return self._instruction()
            else:
                self._comments.clear()
            self.at += 1
        return None

    def _comment(self, line: str) -> None:
        text = line.lstrip()[1:].strip()
        if text:
            self._comments.append(text)
        else:
            self._comments.clear()

    def _instruction(self) -> LogicalLine | None:
        first = self._lines[self.at].rstrip("\r\n")
        indent = len(first) - len(first.lstrip())
        start = Position(self.at + 1, indent + 1)
        pieces: list[Piece] = []
        texts: list[str] = []
        empty: Span | None = None
        size, column, end = 0, indent + 1, start
        while self.at < len(self._lines):
            line = self._lines[self.at].rstrip("\r\n")
            self.at += 1
            if texts and is_comment(line):
                continue
            if texts and not line.strip():
                empty = empty or Span(Position(self.at, 1), Position(self.at, len(line) + 1))
                continue
            text = self._without_continuation(line[column - 1 :])
            pieces.append(Piece(size, Position(self.at, column)))
            texts.append(text)
            size += len(text)
            if size > MAX_TEXT:
                raise DockerfileError(
                    Span(start, Position(self.at, 1)),
                    "too long an instruction",
                    f"at most {MAX_TEXT} characters",
                )
            end = Position(self.at, len(line.rstrip()) + 1)
            if len(text) == len(line) - column + 1:
                break
            column = 1
        comments, self._comments = tuple(self._comments), []
        joined = "".join(texts)
        skipped = len(joined) - len(joined.lstrip())
        text = joined.strip()
        if not text:
            return self.next_line()
        places = _shifted(pieces, skipped)
        return self._with_heredocs(LogicalLine(text, Span(start, end), places, comments, empty))

    def _without_continuation(self, text: str) -> str:
        """One escape character at the end, blanks behind it or not, continues the line; two of
        them do not."""
        trimmed = text.rstrip(" \t")
        if not trimmed.endswith(self._escape) or trimmed.endswith(2 * self._escape):
            return text
        return trimmed[:-1]

    def _with_heredocs(self, line: LogicalLine) -> LogicalLine:
        found = self._delimiters(line)
        if not found:
            return line
        documents = []
        for delimiter in found:
            content: list[str] = []
            while True:
                if self.at == len(self._lines):
                    raise DockerfileError(
                        line.at(max(0, line.text.find("<<"))),
                        f"the here-document {delimiter.name} does not end",
                        f"a line that is nothing but {delimiter.name}",
                    )
                raw = self._lines[self.at]
                self.at += 1
                if delimiter.strips_tabs:
                    raw = raw.lstrip("\t")
                if raw.rstrip("\r\n") == delimiter.name:
                    break
                content.append(raw)
            documents.append(
                Heredoc(delimiter.name, "".join(content), delimiter.expand, delimiter.strips_tabs)
            )
        last = self._lines[self.at - 1].rstrip("\r\n")
        span = Span(line.span.start, Position(self.at, len(last) + 1))
        return LogicalLine(
            line.text, span, line.pieces, line.comments, line.empty, tuple(documents)
        )

    @staticmethod
    def _delimiters(line: LogicalLine) -> list[heredocs.Delimiter]:
        if "<<" not in line.text:
            return []
        keyword, rest = keyword_of(line.text)
        while keyword == "ONBUILD":
            keyword, rest = keyword_of(rest)
        if keyword not in heredocs.INSTRUCTIONS:
            return []
        _, offset = split_flags(rest)
        try:
            if json_words(rest[offset:]) is not None:
                return []
            return heredocs.delimiters(line.text)
        except NotStrings:
            return []
        except WordError as error:
            raise DockerfileError(
                line.at(max(0, line.text.find("<<"))), str(error), "the name of a here-document"
            ) from error


def keyword_of(text: str) -> tuple[str, str]:
    """In capitals, and what follows behind the white space."""
    parts = _SPACE.split(text, maxsplit=1)
    return parts[0].upper(), parts[1] if len(parts) == 2 else ""


def _shifted(pieces: list[Piece], by: int) -> tuple[Piece, ...]:
    """Without the first `by` characters."""
    if not by:
        return tuple(pieces)
    shifted = []
    for i, piece in enumerate(pieces):
        end = pieces[i + 1].offset if i + 1 < len(pieces) else None
        if end is not None and end <= by:
            continue
        cut = max(0, by - piece.offset)
        place = Position(piece.start.line, piece.start.column + cut)
        shifted.append(Piece(max(0, piece.offset - by), place))
    return tuple(shifted)
