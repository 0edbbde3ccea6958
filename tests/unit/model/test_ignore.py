"""`.dockerignore`: Docker's rules, as cases and against a straightforward implementation."""

from __future__ import annotations

import posixpath
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estiba.model.errors import InvalidArgument, LimitExceeded
from estiba.model.ignore import IgnoreRules, match_name

CASES = [
    # pattern, path, is it left out
    ("*.log", "a.log", True),
    ("*.log", "d/a.log", False),
    ("**/*.log", "d/e/a.log", True),
    ("**/*.log", "a.log", True),
    ("build", "build/deep/file", True),
    ("build/", "build/file", True),
    ("/build", "build", True),
    ("./build", "build", True),
    ("../build", "build", False),
    ("/../build", "build", True),
    ("a/../b", "b", True),
    ("a//b", "a/b", True),
    (".", "anything", False),
    ("/", "anything", False),
    ("*", "a/b/c", True),
    ("*/b", "a/b/c", True),
    ("*/b", "b", False),
    ("a/*/c", "a/b/c", True),
    ("a/*/c", "a/b/d/c", False),
    ("a/**/c", "a/c", True),
    ("a/**/c", "a/b/d/c/e", True),
    ("a/**", "a", False),
    ("a/**", "a/b", True),
    ("a**", "abc/d", True),
    ("**", "x", True),
    ("**/", "x", True),
    ("**/**/c", "a/b/c", True),
    ("**/b/**", "a/b/c", True),
    ("**/b/**", "a/b", False),
    ("**file", "dir/afile", True),
    ("**/file", "dir/afile", False),
    ("a**/b", "a/x/b", True),
    ("a**b", "a/x/ab", False),
    ("a**b", "ax/b", True),
    ("?", "a", True),
    ("?", "ab", False),
    ("a?b", "a/b", False),
    ("[a-c]x", "bx", True),
    ("[^a-c]x", "bx", False),
    ("[^a-c]x", "dx", True),
    ("[!a]x", "!x", True),
    ("[[:digit:]]", "5", True),
    (r"\*", "*", True),
    (r"\*", "a", False),
    (r"a\d", "a5", True),
    (r"dir\backup", "dirbackup", False),
    ("a(b)c/*", "a(b)c/x", True),
    ("a.|)$(}+{bc", "a.|)$(}+{bc", True),
    ("a.b", "aXb", False),
    ("^a*", "ab", True),
    ("b^a*", "b^a", False),
    ("*^a", "a", True),
    ("é*", "éa", True),
    ("[é]", "é", True),
    ("a b", "a b", True),
    ("  a  ", "a", True),
    ("# a", "# a", False),
    (" # a", "# a", True),
    ("\ufeffa", "a", True),
    ("a\r", "a", True),
    ("*.log", "a\nb.log", True),
    ("**/x*", "a\nb/x1", False),
    ("**/x", "a\nb/x", True),
]


@pytest.mark.parametrize(("pattern", "path", "expected"), CASES)
def test_one_rule(pattern: str, path: str, expected: bool) -> None:
    assert IgnoreRules.parse(pattern).excludes(path) is expected


ORDER = [
    ("*.md\n!README.md", "README.md", False),
    ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
    ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
    ("!a\na", "a", True),
    ("/ a", "a", True),
    ("/ **/", "a", True),
    ("a\n!/ a", "a", True),
    ("!a", "a", False),
    ("*\n!src", "src/deep/file", False),
    ("*\n!src/*.c", "src/a.c", False),
    ("*\n!src/*.c", "src/a.h", True),
    ("*\n! src", "src", False),
    ("*\n!/src/", "src", False),
    ("a\n!a/b\na", "a/b", True),
    ("*\n!**/*.py\nvendor", "vendor/x.py", True),
]


@pytest.mark.parametrize(("text", "path", "expected"), ORDER)
def test_the_last_rule_that_matches_decides(text: str, path: str, expected: bool) -> None:
    assert IgnoreRules.parse(text).excludes(path) is expected


def test_the_reason_names_pattern_and_line() -> None:
    rules = IgnoreRules.parse("# none\n*.log\n!keep.log\n\n /tmp/ \n", "a.dockerignore")
    assert str(rules.reason("tmp/x")) == '"/tmp/" (a.dockerignore:5)'
    assert str(rules.reason("x.log")) == '"*.log" (a.dockerignore:2)'
    assert rules.reason("keep.log") is None
    assert rules.reason("other") is None
    assert str(IgnoreRules.of(["*.o"]).reason("x.o")) == '"*.o"'


PRUNING = [
    ("node_modules", "node_modules", False),
    ("*\n!src", "docs", False),
    ("*\n!docs/api", "docs", True),
    ("*\n!docs/api", "docs/other", False),
    ("*\n!*/keep", "docs", True),
    ("*\n!*/keep", "docs/other", False),
    ("*\n!**/*.py", "docs/deep", True),
    ("*\n!**/*.py\nvendor", "vendor", False),
    ("*\n!docs/**/x", "docs/a/b", True),
    ("*\n!docs/**/x", "src", False),
    ("*\n!do**/x", "docs/a/b", True),
    ("*\n![^x]ocs/y", "docs", True),
]


@pytest.mark.parametrize(("text", "directory", "expected"), PRUNING)
def test_directories_without_exceptions_need_no_walk(
    text: str, directory: str, expected: bool
) -> None:
    assert IgnoreRules.parse(text).may_hold_exceptions(directory) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n[a", ".dockerignore:2: bad pattern '[a'"),
        ("a\n!", '.dockerignore:2: illegal exclusion pattern: "!"'),
        ("[]a]", "bad pattern"),
        ("[a-]", "bad pattern"),
        ("[z-a]", "the range z-a is empty"),
        ("a\\", "nothing follows the last backslash"),
        (r"a\q*", r"\q means nothing"),
    ],
)
def test_bad_patterns_are_named_with_their_line(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        IgnoreRules.parse(text)


@pytest.mark.parametrize(
    "text", ["a\n" * 6000, "a" * 5000, "#" * (2 << 20), "[^a]*b\n" * 300, "a**b\n" * 300]
)
def test_size_is_limited(text: str) -> None:
    with pytest.raises(LimitExceeded):
        IgnoreRules.parse(text)


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 40 + "b", "**/" + "*a" * 40 + "b", "**/*a" * 40 + "b", "a**" * 40 + "b",
     "[^b]*" * 40 + "b", "(a+)+$", "**/a/" * 40 + "b"],
)  # fmt: skip
def test_no_pattern_takes_long(pattern: str) -> None:
    rules = IgnoreRules.parse(pattern)
    paths = ["a" * 255, "a/" * 1000 + "a", "/".join(["a" * 250] * 8)]
    before = time.process_time()
    assert not any(rules.excludes(path) for path in paths)
    assert time.process_time() - before < 5


def test_many_slow_patterns_are_one_automaton() -> None:
    rules = IgnoreRules.parse("\n".join(f"[^b]*[^c]*q{number}" for number in range(200)))
    paths = [f"src/lib{number % 7}/module/file{number}.py" for number in range(2000)]
    before = time.process_time()
    assert not any(map(rules.excludes, paths))
    assert rules.excludes("ab/cdq7")
    assert time.process_time() - before < 5


# -- against a straightforward implementation ----------------------------------------------


def _simple_regex(pattern: str) -> re.Pattern[str] | str:
    """A cleaned pattern as moby/patternmatcher documents it; a string matches exactly."""
    if not re.search(r"[*?\[\]\\]", pattern):
        return pattern
    made, position = "", 0
    while position < len(pattern):
        if pattern.startswith("**", position):
            position += 2
            position += pattern.startswith("/", position)
            made += ".*" if position == len(pattern) else "(.*/)?"
            continue
        char = pattern[position]
        made += {"*": "[^/]*", "?": "[^/]"}.get(char, char if char in "[]-^" else re.escape(char))
        position += 1
    if pattern.startswith("**") and not re.search(r"[*?\[]", pattern[2:]):
        made = ".*" + re.escape(pattern[2:]) if pattern[2:3] != "/" else made
    return re.compile(made + r"\Z")


def _simple_excludes(patterns: list[str], path: str) -> bool:
    parts = path.split("/")
    is_out = False
    for pattern in patterns:
        plain = posixpath.normpath(pattern.removeprefix("!")).lstrip("/")
        regex = _simple_regex(plain)
        for end in range(1, len(parts) + 1):
            part = "/".join(parts[:end])
            if part == regex if isinstance(regex, str) else regex.match(part):
                is_out = not pattern.startswith("!")
    return is_out


_PIECES = ["a", "b", "ab", "*", "**", "?", "/", "/", ".", "[ab]", "[^a]"]
_patterns = (
    st.tuples(st.sampled_from(["", "", "!"]), st.lists(st.sampled_from(_PIECES), max_size=8))
    .map(lambda pair: pair[0] + "".join(pair[1]).strip("/"))
    .filter(lambda text: text.strip("!/. ") != "" and ".." not in text)
)
_paths = st.lists(st.text("ab.", min_size=1, max_size=4), min_size=1, max_size=5).map("/".join)


@settings(max_examples=1500, deadline=None)
@given(st.lists(_patterns, min_size=1, max_size=5), st.lists(_paths, min_size=1, max_size=8))
def test_it_agrees_with_the_simple_implementation(patterns: list[str], paths: list[str]) -> None:
    rules = IgnoreRules.parse("\n".join(patterns))
    for path in paths:
        assert rules.excludes(path) is _simple_excludes(patterns, path), path
        reason = rules.reason(path)
        assert (reason is not None) is rules.excludes(path)


@settings(max_examples=1000, deadline=None)
@given(st.lists(_patterns, min_size=1, max_size=5), _paths)
def test_no_directory_with_an_exception_is_passed_by(patterns: list[str], path: str) -> None:
    rules = IgnoreRules.parse("\n".join(patterns))
    parts = path.split("/")
    if rules.excludes(path):
        return
    for end in range(1, len(parts)):
        directory = "/".join(parts[:end])
        assert not rules.excludes(directory) or rules.may_hold_exceptions(directory)


# -- Go's filepath.Match -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("abc", "abc", True),
        ("*", "abc", True),
        ("*c", "abc", True),
        ("a*", "a", True),
        ("a*", "ab/c", False),
        ("a*/b", "abc/b", True),
        ("a*/b", "a/c/b", False),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", True),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True),
        ("a*b?c*x", "abxbbxdbxebxczzx", True),
        ("a*b?c*x", "abxbbxdbxebxczzy", False),
        ("ab[c]", "abc", True),
        ("ab[b-d]", "abc", True),
        ("ab[e-g]", "abc", False),
        ("ab[^c]", "abc", False),
        ("ab[^b-d]", "abc", False),
        ("a\\*b", "a*b", True),
        ("a\\*b", "ab", False),
        ("a?b", "a\u263ab", True),
        ("a[^a]b", "a\u263ab", True),
        ("a???b", "a\u263ab", False),
        ("[a-\u03b6]*", "\u03b1", True),
        ("*[a-\u03b6]", "A", False),
        ("a?b", "a/b", False),
        ("a*b", "a/b", False),
        ("[\\]a]", "]", True),
        ("[\\-]", "-", True),
        ("[x\\-]", "x", True),
        ("[x\\-]", "z", False),
        ("[\\-x]", "a", False),
        ("*x", "xxx", True),
        ("[^a]b", "/b", True),
        ("[b-a]", "a", False),
        ("[^b-a]", "a", True),
        ("**", "a/b", False),
        ("", "", True),
        ("a", "a\n", False),
    ],
)
def test_names_match_as_in_go(pattern: str, name: str, expected: bool) -> None:
    assert match_name(pattern, name) is expected


@pytest.mark.parametrize(
    "pattern", ["[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "[a\\"]
)
def test_malformed_names_are_told(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match="bad pattern"):
        match_name(pattern, "ab")
