"""Places of joined lines, scripts of here-documents, options of mounts, durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estiba.build.dockerfile import durations, heredocs, mounts
from estiba.build.dockerfile.arguments import json_words, quoted_words
from estiba.build.dockerfile.errors import DockerfileError
from estiba.build.dockerfile.instructions import Run
from estiba.build.dockerfile.lines import LogicalLine, decode, logical_lines
from estiba.build.dockerfile.parser import parse
from estiba.build.dockerfile.words import expand


def _lines(text: str, escape: str = "\\") -> list[LogicalLine]:
    return list(logical_lines(decode(text.encode()), escape, 0))


@pytest.mark.parametrize(
    "text", ["RUN a \\\n  bc \\\n# x\n\nd", "  RUN a\\\r\n  b  \\\t \r\n\tc  ", "\\\n \\\n RUN a"]
)
def test_every_character_of_a_joined_line_knows_its_place(text: str) -> None:
    (line,) = _lines(text)
    rows = text.replace("\r", "").split("\n")
    for offset, char in enumerate(line.text):
        place = line.position(offset)
        assert rows[place.line - 1][place.column - 1] == char


@given(st.lists(st.sampled_from(["RUN a", "\\", "\n", " ", "#", "b", "<<E", "E", '"', "FROM x"])))
def test_places_never_lie_outside_of_the_file(pieces: list[str]) -> None:
    text = "".join(pieces)
    try:
        lines = _lines(text)
    except DockerfileError as error:
        assert error.span.start.line <= text.count("\n") + 1
        return
    rows = text.split("\n")
    for line in lines:
        for offset, char in enumerate(line.text):
            place = line.position(offset)
            assert rows[place.line - 1][place.column - 1] == char
        assert line.span.start <= line.span.end
        assert line.span.end.column <= len(rows[line.span.end.line - 1]) + 1


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused_with_a_place(source: bytes) -> None:
    for text in (source, b"FROM x\nRUN " + source, b"FROM x\nCOPY " + source):
        try:
            parse(text)
        except DockerfileError as error:
            assert error.span.start.line >= 1


SCRIPTS = {
    "RUN echo a": ("echo a", False),
    "RUN <<E\na\nE": ("a\n", False),
    "RUN <<-'E'\n\ta\n\tE": ("a\n", False),
    "RUN <<E\n#!/bin/x\nE": ("#!/bin/x\n", True),
    "RUN <<E | cat\n#!/bin/x\nE": ("<<E | cat\n#!/bin/x\nE", False),
    "RUN a <<E <<F\ne\nE\nf\nF": ("a <<E <<F\ne\nE\nf\nF", False),
}


@pytest.mark.parametrize("text", SCRIPTS, ids=repr)
def test_the_script_of_a_run(text: str) -> None:
    run = parse(f"FROM x\n{text}\n".encode()).stages[0].instructions[0]
    assert isinstance(run, Run)
    script = heredocs.script(run)
    assert (script.text, script.is_file) == SCRIPTS[text]


def _resolved(text: str, **variables: str) -> mounts.Mount:
    return mounts.resolve(mounts.parse_mount(text), lambda word: expand(word, variables).text)


def test_a_mount_with_variables_is_checked_when_they_are_known() -> None:
    mount = _resolved(
        "type=$T,target=/a$N,id=$N,mode=$M,rw=$W", T="CACHE", N="n", M="0700", W="false"
    )
    assert mount == mounts.Mount(type="cache", target="/an", id="n", mode=0o700, readonly=True)
    for text in ("type=$T", "mode=$T", "type=cache,mode=$T", "type=secret,id=a,source=$T"):
        with pytest.raises(mounts.MountError):
            _resolved(text, T="8")


@pytest.mark.parametrize(
    ("text", "readonly"),
    [
        ("target=/a", True),
        ("target=/a,rw", False),
        ("target=/a,readonly=0", False),
        ("target=/a,rw,ro", True),
        ("type=cache,target=/a", False),
        ("type=cache,target=/a,ro", True),
        ("type=tmpfs,target=/a", False),
    ],
)
def test_what_a_mount_is_read_only_by_default(text: str, readonly: bool) -> None:
    assert _resolved(text).readonly is readonly


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1k", 1024), ("64m", 64 << 20), ("1.5GiB", 3 << 29), ("2tb", 2 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert _resolved(f"type=tmpfs,target=/a,size={text}").size_bytes == size


def test_values_with_commas_are_quoted_as_in_csv() -> None:
    run = parse(b'FROM x\nRUN --mount="target=/a,\\"source=/b,c\\"" true').stages[0].instructions[0]
    assert isinstance(run, Run)
    assert run.mounts[0].get("source") == "/b,c"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1s", 10**9),
        ("1h2m3.5s", 3723_500_000_000),
        ("300ms", 3 * 10**8),
        ("1us", 1000),
        ("1µs", 1000),
        (".5s", 5 * 10**8),
        ("-1s", -(10**9)),
        ("+1s", 10**9),
        ("1", None),
        ("s", None),
        ("1d", None),
        ("1s ", None),
        ("", None),
        ("9999999999h", None),
    ],
)
def test_durations(text: str, expected: int | None) -> None:
    assert durations.nanoseconds(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["a", "b"]', ["a", "b"]),
        ('  ["a"] ', ["a"]),
        ("[]", []),
        ('["\\ud83d\\ude00"]', ["😀"]),
        ('["\\ud83d"]', ["\ufffd"]),
        ('["a"', None),
        ('["a",]', None),
        ('["a"] x', None),
        ("['a']", None),
        ("[NaN]", None),
        ('["a\tb"]', None),
        ('{"a": 1}', None),
        ("[" * 100_000, None),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_the_json_form(text: str, expected: list[str] | None) -> None:
    assert json_words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b", ["a", "b"]),
        ("a=\"b c\" d='e f'", ['a="b c"', "d='e f'"]),
        ("a\\ b c", ["a\\ b", "c"]),
        ("'a\\' b", ["'a\\'", "b"]),
        ('"a\\" b" c', ['"a\\" b"', "c"]),
        ('"a b', ['"a b']),
        ("a\\", ["a"]),
        ("", []),
    ],
)
def test_words_in_quotes(text: str, expected: list[str]) -> None:
    assert [word.text for word in quoted_words(text, "\\")] == expected
