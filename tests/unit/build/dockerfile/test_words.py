"""Expansion and splitting, by tables and by properties."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estiba.build.dockerfile import globs
from estiba.build.dockerfile.words import (
    HEREDOC,
    MAX_SIZE,
    RAW,
    WordError,
    expand,
    expand_words,
)
from estiba.model.errors import InvalidArgument

VARIABLES = {
    "A": "1",
    "EMPTY": "",
    "SPACED": "x y",
    "PATH": "/usr/local/bin",
    "FILE": "archive.tar.gz",
    "é": "accent",
    "LINES": "a\nb",
    "STAR": "a*b?c",
}
EXPANDED = {
    # quotes and escapes
    "plain": "plain",
    "'single $A \\x'": "single $A \\x",
    '"double $A \\"\\$A \\\\ \\x \'"': "double 1 \"$A \\ \\x '",
    "a'b'\"c\"d": "abcd",
    "\\$A \\a \\\\": "$A a \\",
    "end\\": "end",
    '"end\\""': 'end"',
    "": "",
    "''": "",
    # names
    "$A": "1",
    "$A.b": "1.b",
    "${A}b": "1b",
    "$Ab": "",
    "$_": "",
    "$é": "accent",
    "$": "$",
    "a$": "a$",
    "$ x": "$ x",
    "$/": "$/",
    "$$": "",
    "$1A": "A",
    "$12A": "A",
    "$?x": "x",
    "${UNSET}": "",
    "$EMPTY|": "|",
    # modifiers
    "${A:-w} ${EMPTY:-w} ${U:-w}": "1 w w",
    "${A-w} ${EMPTY-w}| ${U-w}": "1 | w",
    "${A:+w} ${EMPTY:+w}| ${U:+w}|": "w | |",
    "${A+w} ${EMPTY+w} ${U+w}|": "w w |",
    "${A:?w} ${A?w} ${EMPTY?w}|": "1 1 |",
    "${U:-}|${U-}|": "||",
    "${U:-a b}": "a b",
    "${U:-'a $A'}": "a $A",
    '${U:-"a $A"}': "a 1",
    "${U:-${V:-${A}}}": "1",
    "${U:-\\}}": "}",
    "'${U:-'x'}'": "${U:-x}",
    # patterns
    "${FILE#*.}": "tar.gz",
    "${FILE##*.}": "gz",
    "${FILE%.*}": "archive.tar",
    "${FILE%%.*}": "archive",
    "${PATH##*/}": "bin",
    "${PATH%/*}": "/usr/local",
    "${PATH#/usr}": "/local/bin",
    "${PATH#local}": "/usr/local/bin",
    "${PATH%bin}": "/usr/local/",
    "${FILE#a?c}": "hive.tar.gz",
    "${FILE#$A}": "archive.tar.gz",
    "${U#x}|": "|",
    "${FILE#}": "archive.tar.gz",
    "${STAR#a\\*}": "b?c",
    "${STAR%\\?c}": "a*b",
    "${FILE/a/b}": "brchive.tar.gz",
    "${FILE//a/b}": "brchive.tbr.gz",
    "${FILE/x/b}": "archive.tar.gz",
    "${FILE//./}": "archivetargz",
    "${FILE/.*/}": "archive",
    "${FILE/r*r/X}": "aX.gz",
    "${PATH//\\//_}": "_usr_local_bin",
    "${PATH//\\//${A}}": "1usr1local1bin",
    "${FILE/tar/$A}": "archive.1.gz",
    "${LINES/*/x}": "x\nb",
    "${LINES//?/x}": "x\nx",
    "${A//*/x}": "x",
    "${A//\\*/x}": "1",
}


@pytest.mark.parametrize("word", EXPANDED, ids=repr)
def test_a_word_is_expanded(word: str) -> None:
    assert expand(word, VARIABLES).text == EXPANDED[word]


RECORDED = json.loads((Path(__file__).parent / "recorded_words.json").read_text())


@pytest.mark.parametrize("word", RECORDED["words"], ids=repr)
def test_a_word_becomes_what_a_genuine_buildkit_made_of_it(word: str) -> None:
    """Recorded from the warnings of Docker Engine 28.5's checks for `WORKDIR x…`; null: refused."""
    expected = RECORDED["words"][word]
    if expected is not None:
        assert expand(f"x{word}", RECORDED["variables"]).text == expected
        return
    with pytest.raises(InvalidArgument):
        expand(f"x{word}", RECORDED["variables"])


FAILING = {
    "'a": "no closing single quote",
    '"a': "no closing double quote",
    '"a\\"': "no closing double quote",
    "${": "no closing }",
    "${A": "no closing }",
    "${A:": "no closing }",
    "${A:-x": "no closing }",
    "${A/x": "no closing /",
    "${A/x/y": "no closing }",
    "${}": "bad substitution",
    "${{A}}": "bad substitution",
    "${:-x}": "bad substitution",
    "${A:=x}": "unsupported modifier \\(:=\\)",
    "${A=x}": "unsupported modifier \\(=\\)",
    "${A:/x/y}": "unsupported modifier",
    "${A^}": "unsupported modifier",
    "${A b}": "unsupported modifier",
    "${#A}": "unsupported modifier",
    "${U?}": "U: is not allowed to be unset",
    "${U:?tell $A}": "U: tell 1",
    "${EMPTY:?}": "EMPTY: is not allowed to be empty",
    "${A#\\x}": "invalid pattern",
    "${A/\\x/y}": "invalid pattern",
}


@pytest.mark.parametrize("word", FAILING, ids=repr)
def test_a_word_that_cannot_be_expanded_says_why(word: str) -> None:
    with pytest.raises(InvalidArgument, match=FAILING[word]):
        expand(word, VARIABLES)


SPLIT = {
    "a b": ["a", "b"],
    "  a\t b  ": ["a", "b"],
    "'a b' c": ["a b", "c"],
    "a\\ b c": ["a b", "c"],
    '"a b"c d': ["a bc", "d"],
    "$SPACED": ["x", "y"],
    '"$SPACED"': ["x y"],
    "p$SPACED/q": ["px", "y/q"],
    "'' \"\" $EMPTY": [],
    "${U:-a b}": ["a", "b"],
    "80 $A/tcp": ["80", "1/tcp"],
}


@pytest.mark.parametrize("word", SPLIT, ids=repr)
def test_a_word_is_split(word: str) -> None:
    assert list(expand_words(word, VARIABLES).words) == SPLIT[word]


def test_what_was_used_and_what_was_unset_is_told() -> None:
    found = expand("$A ${EMPTY:-$B} ${C-d} '$D' \\$E", VARIABLES)
    assert found.used == {"A", "EMPTY"}
    assert found.unset == {"B", "C"}
    assert expand_words("$A $B", VARIABLES).used == {"A"}


def test_a_backtick_may_be_the_escape_character() -> None:
    assert expand('`$A \\a "`"x`y"', VARIABLES, "`").text == '$A \\a "x`y'


def test_a_here_document_keeps_its_quotes() -> None:
    document = '\'$A\' "$A" \\$A\nit\'s ${U:-"q"}\n'
    assert expand(document, VARIABLES, style=HEREDOC).text == '\'1\' "1" $A\nit\'s "q"\n'


@pytest.mark.parametrize(
    "line", ['cat <<\'E F\' $X "a\\"b" ${Y} ${Z:-w} ${P/a/b} ${P//a/b} \\d', "<<-EOF x"]
)
def test_the_raw_form_changes_nothing(line: str) -> None:
    assert expand(line, {}, style=RAW).text == line


def test_what_comes_out_is_bounded() -> None:
    variables = {"X": "x" * 100_000}
    with pytest.raises(WordError, match=f"more than {MAX_SIZE}"):
        expand("$X" * 11, variables)
    with pytest.raises(InvalidArgument, match="more than"):
        expand("${X//x/$X}", variables)
    with pytest.raises(WordError, match="nests more than"):
        expand("${U:-" * 40 + "}" * 40, {})


def test_hostile_patterns_take_no_long_time() -> None:
    value = "a" * 50_000
    start = time.monotonic()
    pattern = "*a" * 200 + "b"
    assert expand(f"${{X##{pattern}}}", {"X": value}).text == value
    assert expand(f"${{X%{pattern}}}", {"X": value}).text == value
    assert expand(f"${{X//{pattern}/c}}", {"X": value}).text == value
    assert time.monotonic() - start < 5
    with pytest.raises(InvalidArgument, match="too long"):
        expand(f"${{X#{'?' * 10_000}}}", {"X": value})


def _matches(pattern: str, text: str) -> bool:
    """By definition, slowly; patterns have no backslash."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return _matches(pattern[1:], text) or (
            text != "" and text[0] != "\n" and _matches(pattern, text[1:])
        )
    fits = text != "" and (text[0] == pattern[0] or (pattern[0] == "?" and text[0] != "\n"))
    return fits and _matches(pattern[1:], text[1:])


@given(st.text("ab*?", max_size=6), st.text("ab\n", max_size=8))
def test_prefixes_and_suffixes_are_those_of_the_definition(pattern: str, text: str) -> None:
    compiled = globs.compile_pattern(pattern)
    size = range(len(text) + 1)
    heads = [end for end in size if _matches(pattern, text[:end])]
    tails = [start for start in size if _matches(pattern, text[start:])]
    for longest in (False, True):
        head = (max if longest else min)(heads, default=0)
        assert globs.trim_prefix(text, compiled, longest=longest) == text[head:]
        tail = (min if longest else max)(tails, default=len(text))
        assert globs.trim_suffix(text, compiled, longest=longest) == text[:tail]


@given(st.text("ab*?", min_size=1, max_size=5), st.text("ab\n", max_size=8))
def test_the_leftmost_longest_match_is_replaced(pattern: str, text: str) -> None:
    size = len(text) + 1
    spans = ((s, e) for s in range(size) for e in range(size - 1, s - 1, -1))
    first = next((span for span in spans if _matches(pattern, text[slice(*span)])), None)
    expected = text if first is None else text[: first[0]] + "X" + text[first[1] :]
    compiled = globs.compile_pattern(pattern)
    assert globs.replace(text, compiled, "X", every=False, limit=100) == expected


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    for escape in "\\`":
        try:
            found = expand(text, VARIABLES, escape)
        except InvalidArgument:
            continue
        assert not found.used & found.unset


@given(st.text(st.characters(exclude_characters="\\$'\"", exclude_categories=["Cs"])))
def test_a_text_without_special_characters_is_itself(text: str) -> None:
    assert expand(text, VARIABLES).text == text
    assert expand(f"'{text}'", VARIABLES).text == text


@given(st.text(max_size=40))
def test_a_quoted_value_stays_one_word(value: str) -> None:
    found = expand_words('"$V"', {"V": value}).words
    assert found == ((value,) if value else ())
