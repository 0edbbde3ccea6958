"""What runtimes say, recorded from crun 1.8.1 and runc 1.1.5, and what it means."""

from __future__ import annotations

import pytest

from estiba.model.errors import (
    CommandNotExecutable,
    CommandNotFound,
    EstibaError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
)
from estiba.runtime.failures import explain, read_message

START = "runc create failed: unable to start container process: "
INIT = START + "error during container init: "

RECORDED: list[tuple[str, str, type[EstibaError]]] = [
    ("foo", "executable file `foo` not found in $PATH: No such file or directory", CommandNotFound),
    ("foo", START + 'exec: "foo": executable file not found in $PATH', CommandNotFound),
    (
        "/bin/foo",
        "executable file `/bin/foo` not found in $PATH: No such file or directory",
        CommandNotFound,
    ),
    (
        "/bin/foo",
        START + 'exec: "/bin/foo": stat /bin/foo: no such file or directory',
        CommandNotFound,
    ),
    ("/bad", "exec: No such file or directory", CommandNotFound),
    ("/tmp", "open executable: Operation not permitted", CommandNotExecutable),
    ("/tmp", START + 'exec: "/tmp": permission denied', CommandNotExecutable),
    ("/tmp", START + 'exec: "/tmp": is a directory', CommandNotExecutable),
    ("/no", "open executable: Permission denied", CommandNotExecutable),
    ("/junk", "exec: Exec format error", CommandNotExecutable),
    ("x", "writing file `cpuset.cpus`: Numerical result out of range", InvalidArgument),
    (
        "x",
        "runc create failed: unable to start container process: unable to apply cgroup "
        'configuration: failed to write "99": write /sys/fs/cgroup/cpuset/x/cpuset.cpus: '
        "numerical result out of range",
        InvalidArgument,
    ),
    (
        "x",
        "OOM: the memory limit could be too low: read from sync socket: Connection reset by peer",
        InvalidArgument,
    ),
    ("x", INIT + "error setting cgroup config: unable to set memory limit to 1", InvalidArgument),
    ("x", "setrlimit `RLIMIT_NOFILE`: Operation not permitted", InvalidArgument),
    ("x", "open /proc/sys/net/foo: No such file or directory", InvalidArgument),
    ("x", "error stat'ing file `/nosuch`: No such file or directory", InvalidArgument),
    ("x", "mount `/tmp` to `etc/passwd`: Not a directory", InvalidArgument),
    ("x", "chdir `/etc/passwd`: Not a directory", InvalidArgument),
    (
        "x",
        'exec failed: unable to start container process: chdir to cwd ("/a") set in config.json '
        "failed: no such file or directory",
        InvalidArgument,
    ),
    ("x", "error opening file `/r/x/status`: No such file or directory", NotFound),
    ("x", "container does not exist", NotFound),
    ("x", "cannot open directory '/r/x': No such file or directory", NotFound),
    ("x", "cannot open `/r/x/exec.fifo`: No such file or directory", FailedPrecondition),
    ("x", "cannot start an already running container", FailedPrecondition),
    ("x", "the container `x` is not in `created` or `stopped` state", FailedPrecondition),
    ("x", "cannot delete container x that is not stopped: running", FailedPrecondition),
    ("x", "something never seen", Internal),
]


@pytest.mark.parametrize(("program", "message", "error"), RECORDED)
def test_recorded_words(program: str, message: str, error: type[EstibaError]) -> None:
    assert type(explain(message, program=program)) is error


def cli_exit_code(message: str) -> int:
    """How docker's client decides (cli/command/container/run.go, runStartContainerErr)."""
    for words, code in (
        ("executable file not found", 127),
        ("no such file or directory", 127),
        ("permission denied", 126),
        ("is a directory", 126),
    ):
        if words in message:
            return code
    return 125


@pytest.mark.parametrize(("program", "message", "error"), RECORDED)
def test_dockers_client_derives_the_right_exit_code(
    program: str, message: str, error: type[EstibaError]
) -> None:
    text = str(explain(message, program=program))
    if error is CommandNotFound:
        assert cli_exit_code(text) == 127
    elif error is CommandNotExecutable and "format" not in message:
        assert cli_exit_code(text) == 126


def test_text_of_requests_that_failed() -> None:
    message = INIT + 'error mounting "/a" to rootfs at "/etc/passwd": mount: not a directory'
    text = str(explain(message))
    assert text.startswith("unable to start container process: error during container init: error")
    assert text.count("unable to start") == 1
    assert "Are you trying to mount a directory onto a file" in text
    assert "trying to mount" not in str(explain("chdir `/etc/passwd`: Not a directory"))


@pytest.mark.parametrize(
    ("program", "message", "expected"),
    [
        (
            "foo",
            "executable file `foo` not found in $PATH: No such file or directory",
            'exec: "foo": executable file not found in $PATH',
        ),
        ("", "open executable: Operation not permitted", 'exec: "": executable file not found in'),
        ("/tmp", "open executable: Operation not permitted", 'exec: "/tmp": permission denied'),
        (
            "true",
            'exec failed: unable to start container process: chdir to cwd ("/a") set in '
            "config.json failed: no such file or directory",
            'chdir to cwd ("/a") set in config.json failed: no such file or directory',
        ),
    ],
)
def test_an_exec_fails_in_dockers_words(program: str, message: str, expected: str) -> None:
    text = str(explain(message, program=program, doing="exec"))
    begin = "OCI runtime exec failed: exec failed: unable to start container process: "
    assert text.startswith(begin + expected) and text.endswith(": unknown")


def test_the_last_error_of_a_log_counts() -> None:
    log = b"""
{"level":"warning","msg":"careful","time":"x"}
{"msg":"first","level":"error"}
{"level":"error","msg":"exec: \\"foo\\": not found","time":"x"}
{"level":"info","msg":"bye"}
"""
    assert read_message(log) == 'exec: "foo": not found'
    assert read_message(b"runtime: out of words\n") == "runtime: out of words"
    assert read_message(b'{"level":"warning","msg":"careful"}\n') == ""
    assert read_message(b"{not json\n\xff") == "�"
    assert read_message(b"") == ""
