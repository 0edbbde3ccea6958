"""The console script: global flags, then one command, imported when it is used.

The whole of `estiba ps` takes about as long as starting Python: this file and what it imports
at the top stay free of `typing`, `json`, `re`, `socket` and `argparse` (docs/adr/0006-client.md).
"""

from __future__ import annotations

import errno
import os
import sys

from estiba.cli.parse import Arguments, Command, Flag, FlagError, Parser, UsageError, check_count
from estiba.client.errors import ApiError, ClientError, NoDaemon

TYPE_CHECKING = False
if TYPE_CHECKING:
    from estiba.client.http import Client

GLOBAL = """\
--autostart  start the daemon when none answers (or ESTIBA_AUTOSTART=1)
--config DIRECTORY  the user's configuration (default ~/.docker)
-c --context NAME  context to use
-D --debug  print tracebacks
--help  print help
-H --host URL…  daemon to talk to (unix://PATH or tcp://HOST:PORT)
-l --log-level LEVEL  accepted for docker's sake
--tls  use TLS
--tlscacert FILE  trust certificates signed by this CA
--tlscert FILE  certificate
--tlskey FILE  key of the certificate
--tlsverify  use TLS and verify the daemon
-v --version  print the version
"""
_FLAG_ERROR = 125
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_LEVELS = ("debug", "info", "warn", "warning", "error", "fatal", "panic", "trace")
_START_HINT = """\
No daemon answers at {address}. Start it with

    {program} &

or let this command start it: `estiba --autostart …` (or ESTIBA_AUTOSTART=1)."""
_ROOT_HINT = "Start it as root with `estibad`, or name another daemon with -H or ESTIBA_HOST."


def main() -> None:
    """Runs the command line and exits with its code."""
    words = sys.argv[1:]
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        # What a terminal's encoding lacks is no reason to fail.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    if words[:1] == ["__complete"]:
        from estiba.cli.completion import complete

        sys.exit(complete(words[1:]))
    _exit(_guarded(words))


def _open_closed() -> None:
    """Where a caller has closed STDOUT or STDERR, nothing is written, and no other file there."""
    for fd, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            setattr(sys, name, os.fdopen(fd, "w" if fd else "r", closefd=False))


def _guarded(words: list[str]) -> int:
    try:
        code = _main(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone: nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        if error.errno not in _UNWRITABLE or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _complain(f"estiba: cannot write the output: {error.strerror}")
        return 1
    except ClientError as error:
        sys.stdout.flush()
        if os.environ.get("ESTIBA_DEBUG"):
            raise
        return _report(error)


def _complain(text: str) -> None:
    """If even that cannot be written, the exit code has to do."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _exit(code: int) -> None:
    """Skips the interpreter's tear-down, a tenth of the time of `estiba ps`."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    os._exit(code)


def _report(error: ClientError) -> int:
    text = f"Error response from daemon: {error}" if isinstance(error, ApiError) else str(error)
    if sys.stderr.isatty():
        from estiba.cli.output import shown_on

        text = shown_on(sys.stderr, text)
    print(text, file=sys.stderr)
    code = getattr(error, "exit_code", None)
    return 1 if code is None else int(code)


def _main(words: list[str]) -> int:
    from estiba.cli import commands

    flags = Command("", "", "", GLOBAL).flags()
    given = _global_flags(flags, words)
    if given.debug:
        os.environ["ESTIBA_DEBUG"] = "1"
    if given.config:
        os.environ["ESTIBA_CONFIG"] = given.config
    if given.autostart:
        os.environ["ESTIBA_AUTOSTART"] = "1"
    if given.version:
        from estiba import __version__

        print(f"estiba version {__version__}")
        return 0
    wanted = given.words
    helping = bool(given.help) or wanted[:1] == ["help"]
    if wanted[:1] == ["help"]:
        wanted = wanted[1:]
    if not wanted:
        from estiba.cli.help import overview

        print(overview(flags))
        return 0
    name = wanted[0]
    for called in (name, " ".join(wanted[:2])):
        if called in commands.NOT_BUILT:
            raise ClientError(f"estiba {called}: {commands.NOT_BUILT[called]}")
    if name in commands.GROUPS and (len(wanted) == 1 or wanted[1] in ("--help", "-h", "help")):
        from estiba.cli.help import group_overview

        print(group_overview(name))
        return 0
    command, path, rest = commands.find(wanted)
    if command is None:
        raise _unknown(wanted, is_group=name in commands.GROUPS)
    if command.passes and helping:
        rest = ["--help", *rest]
    elif not command.passes and (helping or _asks_for_help(command, rest)):
        from estiba.cli.parse import help_text

        print(help_text(command, path))
        return 0
    return _run(command, path, rest, given)


def _global_flags(flags: list[Flag], words: list[str]) -> Arguments:
    """Raises UsageError."""
    try:
        given = Parser(flags).parse(words, interspersed=False)
    except FlagError as error:
        raise UsageError(
            f"{error}\n\nUsage:  estiba [OPTIONS] COMMAND [ARG...]\n\n"
            "Run 'estiba --help' for more information",
            exit_code=_FLAG_ERROR,
        ) from error
    if given.log_level and given.log_level.lower() not in _LEVELS:
        raise UsageError(
            f"Unable to parse logging level: {given.log_level}: one of {', '.join(_LEVELS)}"
        )
    if len(given.host) > 1:
        raise UsageError("Specify only one -H")
    return given


def _unknown(words: list[str], *, is_group: bool) -> UsageError:
    called = " ".join(words[: 2 if is_group else 1])
    group = f" {words[0]}" if is_group else ""
    usage = f"Usage:  estiba{group}\n\n" if is_group else ""
    return UsageError(
        f"estiba: unknown command: estiba {called}\n\n{usage}"
        f"Run 'estiba{group} --help' for more information"
    )


def _asks_for_help(command: Command, words: list[str]) -> bool:
    """Not when the word belongs to the program that a container runs."""
    for word in words:
        if word == "--help":
            return True
        if word == "--" or (not command.interspersed and not word.startswith("-")):
            return False
    return False


def _run(command: Command, path: str, rest: list[str], given: Arguments) -> int:
    try:
        words = ["--", *rest] if command.passes else rest
        arguments = Parser(command.flags()).parse(words, interspersed=command.interspersed)
        check_count(command, path, len(arguments.words))
        arguments.path = path
        return _call(command, given, arguments)
    except FlagError as error:
        raise UsageError(
            f"{error}\n\nUsage:  estiba {path} {command.usage}\n\n"
            f"Run 'estiba {path} --help' for more information",
            exit_code=_FLAG_ERROR,
        ) from error


def _call(command: Command, given: Arguments, arguments: Arguments) -> int:
    module, _, name = command.function.partition(":")
    function = getattr(__import__(f"estiba.cli.{module}", fromlist=[name]), name)
    client = make_client(given)
    try:
        return int(function(client, arguments) or 0)
    except NoDaemon as error:
        if not client.host.is_default:
            raise
        from estiba.cli.autostart import shown, start_daemon

        if os.geteuid() != 0:
            raise NoDaemon(f"{error}\n{_ROOT_HINT}" if error.is_absent else str(error)) from error
        if os.environ.get("ESTIBA_AUTOSTART") != "1":
            hint = _START_HINT.format(address=client.host.url, program=shown())
            raise NoDaemon(hint) from error
    start_daemon(client.host.address)
    return int(function(make_client(given), arguments) or 0)


def make_client(given: Arguments) -> Client:
    """For the daemon that flags, environment and contexts name."""
    from estiba.client.host import Tls, config_directory, resolve, tls_of
    from estiba.client.http import Client

    tls = None
    for path in (given.tlscacert, given.tlscert, given.tlskey):
        if path and not os.path.exists(path):
            raise ClientError(f"open {path}: no such file or directory")
    wanted = given.tls or given.tlsverify or os.environ.get("DOCKER_TLS")
    if wanted or given.tlscacert or given.tlscert or given.tlskey:
        usual = tls_of(os.environ.get("DOCKER_CERT_PATH") or config_directory())
        tls = Tls(
            given.tlscacert or usual.ca,
            given.tlscert or usual.certificate,
            given.tlskey or usual.key,
            verify=bool(given.tlsverify or os.environ.get("DOCKER_TLS_VERIFY")),
        )
    return Client(resolve(given.host[-1] if given.host else "", given.context, tls))


if __name__ == "__main__":
    main()
