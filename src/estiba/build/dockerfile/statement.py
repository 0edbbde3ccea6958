"""One instruction on its way to the AST: keyword, flags and the rest, each with its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from estiba.build.dockerfile.arguments import NotStrings, Word, json_words, plain_words
from estiba.build.dockerfile.errors import DockerfileError
from estiba.build.dockerfile.flags import Flag, Given, split_flags
from estiba.build.dockerfile.instructions import CommandLine, Heredoc, Span
from estiba.build.dockerfile.lines import LogicalLine, keyword_of


class Common(TypedDict):
    keyword: str
    text: str
    span: Span
    heredocs: tuple[Heredoc, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """`rest` stands behind the flags, from `rest_at` of the line's text."""

    line: LogicalLine
    offset: int
    """Where the keyword stands: not at 0 for a trigger."""
    keyword: str
    flags: Given
    rest: str
    rest_at: int
    escape: str

    @staticmethod
    def of(line: LogicalLine, offset: int, escape: str) -> Statement:
        text = line.text[offset:]
        keyword, arguments = keyword_of(text)
        start = offset + len(text) - len(arguments)
        flags, skipped = split_flags(arguments)

        def at(flag: Flag) -> Span:
            return line.at(start + flag.offset, start + flag.end)

        given = Given(keyword, flags, at)
        rest_at = start + skipped
        return Statement(line, offset, keyword, given, line.text[rest_at:], rest_at, escape)

    @property
    def common(self) -> Common:
        return Common(
            keyword=self.keyword,
            text=self.line.text[self.offset :],
            span=self.line.span,
            heredocs=self.line.heredocs,
        )

    def at(self, start: int, end: int | None = None) -> Span:
        """Of a part of `rest`."""
        last = None if end is None else self.rest_at + end
        return self.line.at(self.rest_at + start, last)

    def keyword_at(self) -> Span:
        return self.line.at(self.offset, self.offset + len(self.keyword))

    def error(self, what: str, expected: str, start: int | None = None) -> DockerfileError:
        """At the keyword, or where `rest` has `start`."""
        span = self.keyword_at() if start is None else self.at(start, len(self.rest))
        return DockerfileError(span, what, expected)

    def json(self) -> list[str] | None:
        try:
            return json_words(self.rest)
        except NotStrings as error:
            raise self.error(str(error), '["one", "two"]', 0) from error

    def words(self) -> list[Word]:
        """JSON form, or split at white space; all words of the JSON form stand at its `[`."""
        found = self.json()
        if found is not None:
            return [Word(word, 0) for word in found]
        return plain_words(self.rest)

    def command(self) -> CommandLine:
        found = self.json()
        if found is not None:
            return CommandLine(tuple(found), is_shell=False)
        return CommandLine((self.rest,), is_shell=True)
