"""What is refused, where, and in which words."""

from __future__ import annotations

import pytest

from estiba.build.dockerfile.errors import DockerfileError, excerpt
from estiba.build.dockerfile.instructions import Position, Span
from estiba.build.dockerfile.lines import MAX_BYTES, MAX_INSTRUCTIONS, MAX_LINES, MAX_TEXT
from estiba.build.dockerfile.parser import parse, parse_trigger
from estiba.model.errors import InvalidArgument

F = "FROM x\n"
CASES = {
    "": "1:1: the Dockerfile cannot be empty: expected FROM first",
    "# nothing\n\n": "2:1: file with no instructions",
    "ARG a=1\n": "1:1: no FROM below the ARGs",
    "RUN a\nFROM x": "1:1: RUN before any FROM: expected FROM, or ARG above it",
    F + "RUM a": "2:1: unknown instruction RUM (did you mean RUN?): expected ADD, ARG",
    F + "  \tWORKDRI /": "2:4: unknown instruction WORKDRI (did you mean WORKDIR?)",
    F + "zzzzzzzz": "2:1: unknown instruction zzzzzzzz: expected ADD",
    F + "RUN a \\\n && b\n\nEOF": "5:1: unknown instruction EOF",
    F + '"RUN" x': '2:1: unknown instruction "RUN" (did you mean RUN?)',
    # FROM
    "FROM": "1:1: FROM without an image",
    "FROM a b": "1:8: 'b' behind the image: expected FROM [--platform=PLATFORM] IMAGE [AS NAME]",
    "FROM a # why": "1:8: '#' behind the image",
    "FROM a as": "1:8: FROM requires one or three arguments",
    "FROM a as b c": "1:13: FROM requires one or three arguments",
    "FROM a \\\n  as 0x": "2:6: invalid stage name '0x': expected a letter, then letters",
    "FROM a as b/c": "1:11: invalid stage name 'b/c'",
    "FROM --platfrom=x a": "1:6: unknown flag --platfrom of FROM (did you mean platform?)",
    "FROM --platform a": "1:6: missing a value on flag --platform: expected --platform=VALUE",
    # flags
    F + "COPY --form=x a b": "2:6: unknown flag --form of COPY (did you mean from?): expected "
    "--from, --chown, --chmod, --link, --parents, --exclude",
    F + "COPY --link --chown=a --link a b": "2:23: duplicate flag --link: expected --link once",
    F + "COPY \\\n  --link=maybe a b": "3:3: flag --link cannot be 'maybe'",
    F + "COPY --link= a b": "2:6: flag --link cannot be ''",
    F + "ENV --x a=b": "2:5: unknown flag --x of ENV: expected no flags",
    F + "CMD --x": "2:5: unknown flag --x of CMD: expected no flags",
    F + "HEALTHCHECK --interval=1s --retry=3 CMD x": "2:27: unknown flag --retry of HEALTHCHECK",
    # ARG, ENV, LABEL
    F + "ARG": "2:1: ARG without a name",
    F + "ARG a =b": "2:7: ARG with an empty name",
    F + "ENV": "2:1: ENV without a name",
    F + "ENV a": "2:5: ENV must have two arguments",
    F + "ENV a=b c": "2:9: cannot find = in 'c'",
    F + "ENV a=b =c": "2:9: ENV with an empty name",
    F + "LABEL a": "2:7: LABEL must have two arguments",
    # files
    F + "COPY": "2:1: COPY requires at least two arguments: expected SOURCE",
    F + "COPY a": "2:6: COPY requires at least two arguments, but only one was provided",
    F + 'ADD ["a"]': "2:5: ADD requires at least two arguments, but only one",
    F + 'COPY ["a", 1]': "2:6: when using JSON array syntax, arrays must be comprised of strings",
    F + "COPY a <<b\nx\nb": "2:8: COPY cannot have a here-document as its destination",
    F + "COPY <<'b c' /d\nb c": '2:6: "\'b" has no closing single quote',
    F + "ADD --checksum=md5:00 http://x/ /": "2:5: invalid checksum 'md5:00'",
    F
    + "ADD --checksum=sha256:"
    + "0" * 64
    + " http://x/ http://y/ /z/": "2:5: --checksum with more than one source",
    # RUN
    F + "RUN []": "2:1: RUN [] without a command",
    F + "RUN [1]": "2:5: when using JSON array syntax",
    F + "RUN --mount a": "2:5: missing a value on flag --mount",
    F + "RUN --mount=type=cahce,target=/x a": "2:5: unsupported mount type 'cahce' (did you mean "
    "cache?): expected bind, cache, tmpfs, secret or ssh",
    F + "RUN --mount=tagret=/x a": "2:5: unexpected option 'tagret' of --mount (did you mean "
    "target?)",
    F + "RUN --mount=target a": "2:5: the option 'target' has no value",
    F + "RUN --mount=from=$x a": "2:5: from=$x has a variable",
    F + "RUN --mount=type=cache,mode=0999 a": "2:5: invalid value '0999' for mode",
    F + "RUN --mount=type=cache,uid=-1 a": "2:5: invalid value '-1' for uid",
    F + "RUN --mount=type=cache,sharing=al a": "2:5: unsupported sharing 'al'",
    F + "RUN --mount=type=bind,sharing=shared a": "2:5: the option sharing does not go with",
    F + "RUN --mount=type=bind,ro=perhaps a": "2:5: invalid value 'perhaps' for readonly",
    F + "RUN --mount=type=tmpfs,size=big a": "2:5: invalid value 'big' for size",
    F + "RUN --mount=type=cache,size=1m a": "2:5: the option size does not go with a mount",
    F + "RUN --mount=type=cache,required a": "2:5: the option required does not go with",
    F + "RUN --mount=type=secret a": "2:5: a secret without a name",
    F + "RUN --mount=type=secret,id=a,src=b a": "2:5: a secret with both source and id",
    F + "RUN --mount=type=secret,id=a,from=b a": "2:5: a secret has no from",
    F + "RUN --mount=type=ssh --mount=x a": "2:22: unexpected option 'x' of --mount",
    F + "RUN --network=hots a": "2:5: unsupported --network=hots (did you mean host?)",
    F + "RUN --security=none a": "2:5: unsupported --security=none",
    F + "RUN --device= a": "2:5: --device without a name",
    F + "RUN <<EOF\nabc": "2:5: the here-document EOF does not end: expected a line that is "
    "nothing but EOF",
    F + "RUN <<A <<B\nA\nabc": "2:5: the here-document B does not end",
    F + "RUN --x=1 \\\n cat <<A": "3:6: the here-document A does not end",
    # the others
    F + "SHELL /bin/sh": "2:1: SHELL is not in the JSON form",
    F + "SHELL []": "2:7: SHELL with no words",
    F + "HEALTHCHECK": "2:1: HEALTHCHECK alone",
    F + "HEALTHCHECK NONE x": "2:18: HEALTHCHECK NONE takes no arguments",
    F + "HEALTHCHECK CMD": "2:13: missing command after HEALTHCHECK CMD",
    F + "HEALTHCHECK CMD []": "2:13: missing command after HEALTHCHECK CMD",
    F + "HEALTHCHECK curl x": "2:13: unknown type 'curl' of HEALTHCHECK",
    F + "HEALTHCHECK --interval=5 CMD x": "2:13: invalid duration '5'",
    F + "HEALTHCHECK --timeout=1us CMD x": "2:13: --timeout cannot be less than 1ms",
    F + "HEALTHCHECK --retries=-1 CMD x": "2:13: invalid --retries=-1",
    F + "EXPOSE": "2:1: EXPOSE without a port",
    F + "VOLUME": "2:1: VOLUME without a path",
    F + 'VOLUME ["a", ""]': "2:8: VOLUME with an empty path",
    F + "USER": "2:1: USER requires exactly one argument",
    F + "WORKDIR ": "2:1: WORKDIR requires exactly one argument",
    # ONBUILD
    F + "ONBUILD": "2:1: ONBUILD without an instruction",
    F + "ONBUILD FROM y": "2:9: FROM cannot be an ONBUILD trigger",
    F + "ONBUILD onbuild RUN y": "2:9: ONBUILD cannot be an ONBUILD trigger",
    F + "ONBUILD MAINTAINER y": "2:9: MAINTAINER cannot be an ONBUILD trigger",
    F + "ONBUILD RUM y": "2:9: unknown instruction RUM as an ONBUILD trigger (did you mean RUN?)",
    F + "ONBUILD COPY \\\n --lnik a b": "3:2: unknown flag --lnik of COPY (did you mean link?)",
    # directives
    "# escape=x\nFROM y": "1:10: invalid escape character 'x': expected \\ or ` alone",
    "# syntax=a\n# syntax=b\nFROM y": "2:1: a second syntax directive",
    "# check=skip\nFROM y": "1:9: invalid check option 'skip'",
    "# check=skpi=all\nFROM y": "1:9: invalid check option 'skpi' (did you mean skip?)",
    "# check=error=maybe\nFROM y": "1:9: error=maybe is no truth value",
    # characters
    "FROM x\nRUN a\0b": "2:6: a NUL character: expected text",
}


@pytest.mark.parametrize("text", CASES, ids=lambda text: repr(text)[:60])
def test_an_error_says_where_what_and_what_was_expected(text: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(text.encode())
    assert str(caught.value).startswith(f"Dockerfile:{CASES[text]}")
    assert isinstance(caught.value, InvalidArgument)
    assert ">>>" in excerpt(text, caught.value.span)


def test_bytes_that_are_not_utf8_are_refused_outside_of_comments() -> None:
    with pytest.raises(DockerfileError, match=r"^Dockerfile:3:3: a byte that is not UTF-8"):
        parse(b"FROM x\n# \xe9\nRU\xe9N")


@pytest.mark.parametrize(
    "source",
    [
        b"#" * (MAX_BYTES + 1),
        b"FROM x\n" + b"USER 1\n" * MAX_INSTRUCTIONS,
        b"FROM x\n" + b"RUN <<a\na\n" * 1001,
        b"FROM x" + b"\n" * (MAX_LINES + 1),
        b"FROM x\nRUN " + b"x" * MAX_TEXT,
        b"FROM x\nRUN " + b"xxxx\\\n" * (MAX_TEXT // 4),
    ],
    ids=["bytes", "instructions", "heredocs", "lines", "text", "continued text"],
)
def test_what_is_too_large_is_refused(source: bytes) -> None:
    with pytest.raises(DockerfileError, match=r"too (many|long)"):
        parse(source)


def test_what_is_just_not_too_large_is_read() -> None:
    source = b"FROM x\n" + b"USER 1\n" * (MAX_INSTRUCTIONS - 1)
    assert len(parse(source).stages[0].instructions) == MAX_INSTRUCTIONS - 1
    heredocs = b"FROM x\nRUN " + b"<<a " * 1000 + b"\n" + b"a\n" * 1000
    assert len(parse(heredocs).stages[0].instructions[0].heredocs) == 1000


@pytest.mark.parametrize("text", ["", "# x", "RUN a\nRUN b", "FROM x", "HELLO", "ONBUILD RUN a"])
def test_a_trigger_is_one_instruction_that_may_be_one(text: str) -> None:
    with pytest.raises(DockerfileError, match="trigger"):
        parse_trigger(text)


def test_an_excerpt_shows_numbered_lines_with_a_caret() -> None:
    lines = [f"line {number}" for number in range(1, 13)]
    lines[9] = "\tRUN x \\"
    source = "\r\n".join(lines)
    span = Span(Position(10, 2), Position(11, 5))
    assert excerpt(source, span, context=1).split("\n") == [
        " 9 |     line 9",
        "10 | >>>     RUN x \\",
        "   |         ^",
        "11 | >>> line 11",
        "12 |     line 12",
    ]


def test_an_excerpt_of_the_first_and_only_line() -> None:
    assert excerpt("RUN", Span(Position(1, 1), Position(1, 4))) == "1 | >>> RUN\n  |     ^"


def test_an_excerpt_of_a_very_long_instruction_shows_its_beginning() -> None:
    source = "RUN <<E\n" + "x\n" * 1000 + "E\n"
    assert excerpt(source, Span(Position(1, 1), Position(1002, 2))).count(">>>") == 30


def test_an_excerpt_of_an_endless_line_is_short() -> None:
    text = excerpt("x" * 100_000, Span(Position(1, 90_000), Position(1, 90_001)))
    assert len(text) < 1000
