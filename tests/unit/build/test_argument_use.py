"""What a RUN may use of its arguments. Claims of "unused" are held against real shells."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from estiba.build.argument_use import uses
from estiba.build.dockerfile.heredocs import script_of
from estiba.build.dockerfile.instructions import Heredoc, Run
from estiba.build.dockerfile.parser import parse
from estiba.build.shell_text import MAX_TEXT
from estiba.build.shell_words import MAX_DEPTH

NAMES = ("FOO", "BAR")
SHELLS = [
    shell for shell in (["dash"], ["bash"], ["busybox", "sh"]) if shutil.which(shell[0]) is not None
]

UNUSED = [
    "",
    ":",
    "echo hello",
    "echo hello > file && cat file; rm -f file",
    "mkdir -p a/b && touch a/b/c && ls -l a/b | wc -l",
    "printf 'a\\nb\\n' | head -n 1 | tr a-z A-Z",
    "if [ -f x ]; then cat x; elif test -d y; then ls y; else echo none; fi",
    "for i in 1 2 3; do echo $i; done",
    "for i; do :; done",
    'i=1; while [ "$i" = 1 ]; do i=2; done; until false; do break; done',
    "case $(uname) in Linux|GNU*) echo yes;; (*) echo no ;; esac",
    "case x in x) echo y; esac",
    "(cd / && ls) > /dev/null 2>&1 & wait",
    "{ echo a; echo b; } | sort_of=1 wc -l",
    "! false || true",
    'x=$(basename /a/b) && echo "$x ${x:-none} ${x%b} ${#x} $? $# $$" | wc -w',
    "x=`echo \\`echo y\\``; echo $x",
    "echo FOOBAR _FOO FOO1 xFOO",
    "echo '$FO' \\$FO \"\\$FO\"",
    "# FO comment ' \"\necho a # $FO\n",
    "echo a \\\n  b",
    "cat <<EOF > x\ntext $(echo y) ${z:-w} \\$q\nEOF\ncat x",
    "cat <<'EOF'\n$(env) `env` $((1))\nEOF",
    "cat <<-EOF\n\ta\n\tEOF\necho b",
    "cat <<A - <<B | cat\na\nA\nb\nB\n",
    "set -eux; set -o pipefail; echo a",
    "set -- a b; shift; echo $1",
    "export X=1 Y; unset X; umask 022",
    "echo a | while read -r line; do echo $line; done",
    "command -v cat; command echo a; exec echo b",
    "/bin/echo a; /usr/bin/wc -c /dev/null",
    "sed -i 's/a/b/g' /dev/null; sed -n 1p /dev/null; sed -e '/x/d' /dev/null",
    "install -d -m 0755 made",
    '[ -z "$x" ] && [ ! -e /nowhere ] && [ 1 -lt 2 ] && [ "a" != \'b\' ]',
    "cp -a a/b c; chmod -R u+x c; grep -r x a/b",
    "echo a >&2; echo b 2>/dev/null >|file; echo c >>file; cat <file",
    "echo *.txt [ab] {1,2} ~",
    "LC_ALL=C ls",
    "busybox echo a",
    "rm -rf /tmp/nothing/* /var/lib/nothing",
]
USED = [
    "echo $FOO",
    "echo ${FOO:-x}",
    'test -n "$FOO"',
    "FOO=2",
    "export FOO",
    "unset FOO",
    "echo '$FOO'",
    "# FOO",
    "cat <<X\n$FOO\nX",
    "read FOO < /dev/null",
]
EVERYTHING = [
    "env",
    "printenv",
    "set",
    "export",
    "export -p",
    "declare -p",
    "readonly",
    "apt-get update",
    "./configure",
    "make",
    "$CMD",
    '"$CMD"',
    "c*t x",
    "c{a,}t x",
    "eval x",
    ". ./file",
    "source file",
    "sh -c 'echo $F'OO",
    "sh <<X\necho a\nX",
    "bash script",
    "xargs env < /dev/null",
    "find . -exec env \\;",
    "timeout 1 env",
    "sort --compress-program=env x",
    'awk \'BEGIN { print ENVIRON["F" "OO"] }\'',
    "sed 's/x/env/e' file",
    "sed e file",
    "sed 'r /x' file",
    'sed "$S" file',
    "cat /proc/self/environ",
    "cat /dev/fd/../e*",
    "cd /dev/fd/..; tac e??iron",
    "cp /dev/'fd'/../e* /f",
    "cat /pr''oc/self/envir''on",
    "cat /*/self/e*",
    'cat "$x"',
    "cat < $x",
    "cd $x && cat e*",
    "ln -s $x y",
    "cp -a / x",
    "cp -a . x",
    "cp -r .. x",
    "cp -r * x",
    "grep -r x /",
    "head -c 9 /../proc/1/environ",
    "mv $x y",
    "x=F; echo $(($x + 1))",
    "echo $[1]",
    "echo ${!x}",
    "echo ${x@P}",
    "echo ${x:1}",
    "echo ${x/a/b}",
    "echo ${x[1]}",
    "echo $x[1]",
    "echo $'a'",
    'echo $"a"',
    "[[ $x -eq 1 ]]",
    "((x))",
    "[ -v $x ]",
    "[ -v F ]",
    "test $x",
    "[ $x = y ]",
    '[ "$x" = y -a -v z ]',
    'test "$op" x',
    "printf -v x y",
    'printf "$x"',
    "f() { :; }; f",
    "function f { :; }",
    "alias cat=env",
    "trap 'env' EXIT",
    "PATH=/x cat y",
    "export PATH=/x:$PATH",
    "LD_PRELOAD=x cat y",
    "for PATH in /x; do cat y; done",
    ": ${PATH:=x}",
    "read PATH",
    "IFS=x",
    "set $x",
    "set -a",
    "set -- ; set",
    "export $x",
    'export "$x"',
    'read "$x"',
    'unset "$x"',
    "a=(1 2)",
    "a+=1",
    "a[1]=2",
    "cat <(env)",
    "cat <<< x",
    "echo a |& cat",
    "echo a &>x env",
    "time ls",
    "command -p ls",
    "command $x",
    "exec env",
    "exec -a x ls",
    "busybox env",
    "busybox $x",
    "busybox /bin/echo",
    "install -s x y",
    "/opt/bin/cat x",
    "./cat x",
    "coproc x",
    "select x in y; do :; done",
    # not to be understood
    "echo 'open",
    'echo "open',
    "echo `open",
    "echo $(open",
    "echo ${open",
    "(echo",
    "echo )",
    "case x in",
    "case x in y) echo",
    "cat <<EOF\nopen",
    "cat <<$x\ny\n$x",
    "cat <<EOF\nx \\\nEOF\necho y\nEOF",
    "echo <",
    "a ;;",
    "esac",
    "echo \\",
    "echo a\0",
    "echo a\r",
    "$\\\n(env)",
    "echo " + "x" * MAX_TEXT,
    "(" * 200 + ")" * 200,
    "echo " + "$(" * (MAX_DEPTH + 1) + ":" + ")" * (MAX_DEPTH + 1),
]


def _uses(text: str, names: tuple[str, ...] = NAMES, **arguments: object) -> frozenset[str]:
    return uses(text, (), names, is_shell=True, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", UNUSED)
def test_what_runs_plain_programs_uses_nothing(text: str) -> None:
    assert _uses(text) == set()


@pytest.mark.parametrize("text", USED)
def test_what_is_named_is_used(text: str) -> None:
    assert _uses(text) == {"FOO"}


@pytest.mark.parametrize("text", EVERYTHING, ids=lambda text: repr(text)[:60])
def test_what_may_look_at_its_environment_uses_everything(text: str) -> None:
    assert _uses(text) == set(NAMES)


@pytest.mark.parametrize(
    "name", ["TZ", "LANG", "LC_TIME", "PATH", "HOME", "TMPDIR", "IFS", "PS4", "POSIXLY_CORRECT",
             "LS_COLORS", "LD_LIBRARY_PATH", "DU_BLOCK_SIZE", "COLUMNS"]
)  # fmt: skip
def test_what_libraries_and_shells_read_is_used(name: str) -> None:
    assert _uses("ls", (name, "OTHER")) == {name}


@pytest.mark.parametrize("name", ["BASH_ENV", "ENV", "LD_PRELOAD", "BASH_FUNC_cat%%"])
def test_where_other_code_runs_in_every_program_everything_is_used(name: str) -> None:
    assert _uses("ls", (name, "OTHER")) == {name, "OTHER"}
    assert _uses("ls", env=["PATH", name]) == set(NAMES)
    assert _uses("ls", env=["PATH", "HOME"]) == set()


@pytest.mark.parametrize(
    ("shell", "plain"),
    [
        (("/bin/sh", "-c"), True),
        (("sh", "-ec"), True),
        (("/bin/bash", "-o", "pipefail", "-c"), True),
        (("/bin/bash", "-euxo", "pipefail", "-c"), True),
        (("/bin/bash", "-lc"), False),
        (("/bin/bash", "-ic"), False),
        (("/bin/bash", "--login", "-c"), False),
        (("/bin/bash",), False),
        (("/bin/bash", "-o"), False),
        (("/opt/sh", "-c"), False),
        (("python3", "-c"), False),
        (("busybox", "sh", "-c"), False),
        ((), False),
    ],
)
def test_only_a_plain_shell_is_understood(shell: tuple[str, ...], plain: bool) -> None:
    assert _uses("echo a", shell=shell) == (set() if plain else set(NAMES))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["echo", "$(env)", "*"], set()),
        (["cat", "FOO"], {"FOO"}),
        (["/bin/sh", "-c", "echo a"], set()),
        (["/bin/sh", "-c", "echo $FOO"], {"FOO"}),
        (["sh", "-c", "env"], set(NAMES)),
        (["sh", "-c", "echo a", "b"], set(NAMES)),
        (["sh", "script"], set(NAMES)),
        (["env"], set(NAMES)),
        (["make"], set(NAMES)),
        (["cat", "/proc/self/environ"], set(NAMES)),
        ([], set()),
    ],
)
def test_the_exec_form(words: list[str], expected: set[str]) -> None:
    assert uses(words, (), NAMES, is_shell=False) == expected


RUNS = {
    "RUN <<EOF\necho a\nEOF": set(),
    "RUN <<EOF\necho $FOO\nEOF": {"FOO"},
    "RUN <<EOF\napt-get update\nEOF": set(NAMES),
    "RUN <<EOF\n#!/bin/sh -e\necho a\nEOF": set(),
    "RUN <<EOF\n#!/usr/bin/python3\nprint(1)\nEOF": set(NAMES),
    "RUN <<EOF\n#!/bin/sh -l\necho a\nEOF": set(NAMES),
    "RUN cat <<EOF >x\n$(env)\nEOF": set(NAMES),
    "RUN cat <<'EOF' >x\n$(env)\nEOF": set(),
    "RUN cat <<EOF >x && cat <<-B\n$FOO\nEOF\n\tx\n\tB": {"FOO"},
    "RUN python3 <<EOF\nprint(1)\nEOF": set(NAMES),
    "RUN <<A <<B\na\nA\nb\nB": set(),
    "RUN <<EOF\necho $FO\\\nO\nEOF": {"FOO"},
}


@pytest.mark.parametrize("text", RUNS, ids=repr)
def test_here_documents(text: str) -> None:
    run = parse(f"FROM x\n{text}\n".encode()).stages[0].instructions[0]
    assert isinstance(run, Run)
    words = run.command.words
    assert uses(words[0], run.heredocs, NAMES, is_shell=run.command.is_shell) == RUNS[text]


def test_a_program_of_its_own_is_started_by_the_shell_of_the_stage() -> None:
    docs = (Heredoc("E", "#!/bin/sh\necho a\n"),)
    assert uses("<<E", docs, NAMES, is_shell=True) == set()
    assert uses("<<E", docs, NAMES, is_shell=True, shell=("bash", "-lc")) == set(NAMES)


def test_nothing_is_used_of_nothing() -> None:
    assert uses("env", (), (), is_shell=True) == set()


# -- against real shells -------------------------------------------------------------------


def _output(shell: list[str], text: str, value: str, folder: Path) -> tuple[int, bytes, list[str]]:
    """With and without a value, all of it in a new folder."""
    work = folder / "work"
    work.mkdir()
    (work / "file").write_text("in the file\n")
    environment = {"PATH": "/usr/bin:/bin", "FOO": value, "BAR": value}
    done = subprocess.run(
        [*shell, "-c", text], cwd=work, env=environment, capture_output=True, timeout=20,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    tree = sorted(
        f"{path.relative_to(work)}: {path.read_text() if path.is_file() else ''}"
        for path in work.rglob("*")
    )
    shutil.rmtree(work)
    return done.returncode, done.stdout, tree


def _same(text: str, folder: Path) -> bool:
    return all(
        _output(shell, text, "value one", folder) == _output(shell, text, "2", folder)
        for shell in SHELLS
    )


def test_claims_hold_in_real_shells(tmp_path: Path) -> None:
    for text in UNUSED:
        if "$$" not in text and "ls -l" not in text:
            assert _same(text, tmp_path), text


def test_the_comparison_notices_use(tmp_path: Path) -> None:
    for text in ("echo $FOO", "env", "x=FO; eval echo \\$${x}O", "sh -c 'echo $F''OO'"):
        assert not _same(text, tmp_path), text


# No slash among them: nothing outside of the folder is written.
_WORDS = (
    "echo cat env set export eval x= F O OO FO $ ${ } $( ) ( ` ' \" \\ ; && | & <<E < > file if "
    "then fi do done esac x) ;; { # [ ] -v test printf %s ! $x ${x:- (( )) -n command exec FOO= x "
    "= $F unset * . -"
)
PIECES = st.sampled_from(
    [*_WORDS.split(), "\n", " ", "\nE\n", "for x in", "case x in", "sh -c", "read x"]
)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(PIECES, min_size=1, max_size=14), st.sampled_from(["", " "]))
def test_no_text_is_said_to_use_nothing_that_a_shell_sees_a_difference_in(
    tmp_path: Path, pieces: list[str], between: str
) -> None:
    text = between.join(pieces)
    # Numbers of processes differ from run to run, and so does what runs beside the rest.
    if not _uses(text) and not re.search(r"\$\$|\$!|(?<!&)&(?!&)", text):
        assert _same(text, tmp_path)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=60), st.text(max_size=20))
def test_any_text_has_an_answer(text: str, document: str) -> None:
    docs = (Heredoc("E", document),)
    assert uses(text, docs, NAMES, is_shell=True) <= set(NAMES)
    assert script_of(text, docs).text
