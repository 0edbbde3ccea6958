"""The console script: global flags, then one command, imported when it is used."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from estiba.cli.parse import Arguments, Command, Flag, UsageError, help_text, parse
from estiba.client.errors import ApiError, ClientError, NoDaemon

if TYPE_CHECKING:
    from estiba.client.http import Client

GLOBAL_FLAGS = (
    Flag("-H --host URL…", "daemon to talk to (unix://PATH, tcp://HOST:PORT)"),
    Flag("-c --context NAME", "context to use"),
    Flag("--autostart", "start the daemon if none answers (or ESTIBA_AUTOSTART=1)"),
    Flag("--tls", "use TLS"),
    Flag("--tlsverify", "use TLS and verify the daemon"),
    Flag("--tlscacert FILE", "trust certificates signed by this CA"),
    Flag("--tlscert FILE", "certificate"),
    Flag("--tlskey FILE", "key"),
    Flag("-D --debug", "print tracebacks"),
    Flag("-v --version", "print the version"),
    Flag("--help", "print help"),
)
_ENGINE_ERROR = 125
_START_HINT = """\
No daemon answers at {address}. Start it with

    estibad &

or let this command start it: `estiba --autostart …` (or ESTIBA_AUTOSTART=1)."""


def main() -> None:
    """Runs the command and exits with its code."""
    words = sys.argv[1:]
    if words[:1] == ["__complete"]:
        from estiba.cli.completion import complete

        sys.exit(complete(words[1:]))
    debug = "-D" in words[:3] or "--debug" in words[:3]
    try:
        sys.exit(_main(words))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone: nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except ClientError as error:
        if debug:
            raise
        print(_worded(error), file=sys.stderr)
        sys.exit(_exit_code(error, words))


def _main(words: list[str]) -> int:
    from estiba.cli import commands

    flags = Command("[OPTIONS] COMMAND", "", GLOBAL_FLAGS, "", interspersed=False)
    given = parse(flags, words)
    if given.version:
        from estiba import __version__

        print(f"estiba version {__version__}")
        return 0
    if not given.words:
        print(commands.overview())
        return 0
    name = given.words[0]
    if name in commands.NOT_BUILT:
        raise ClientError(f"`estiba {name}` is not built yet")
    if name in commands.GROUPS and given.words[1:] in ([], ["--help"], ["-h"]):
        print(commands.group_overview(name))
        return 0
    command, rest = commands.find(given.words)
    if command is None:
        raise UsageError(
            f"unknown command: estiba {' '.join(given.words[:2])}: see `estiba --help`"
        )
    if "--help" in _own_flags(command, rest):
        print(help_text(command))
        return 0
    return _call(command, given, parse(command, rest))


def _own_flags(command: Command, words: list[str]) -> list[str]:
    """Words that can be flags of the command itself, not of the program it runs."""
    if command.interspersed:
        return words
    found = []
    for word in words:
        if not word.startswith("-"):
            break
        found.append(word)
    return found


def _call(command: Command, given: Arguments, arguments: Arguments) -> int:
    module, _, name = command.function.partition(":")
    function = getattr(__import__(f"estiba.cli.{module}", fromlist=[name]), name)
    client = _client(given)
    try:
        code = function(client, arguments)
    except NoDaemon as error:
        if not client.host.is_default or os.geteuid() != 0:
            raise
        if not given.autostart and os.environ.get("ESTIBA_AUTOSTART") != "1":
            raise NoDaemon(_START_HINT.format(address=client.host.address)) from error
        from estiba.cli.autostart import start_daemon

        start_daemon(client.host.address)
        code = function(client, arguments)
    return int(code or 0)


def _client(given: Arguments) -> Client:
    from estiba.client.host import Tls, config_directory, resolve, tls_of
    from estiba.client.http import Client

    tls = None
    if given.tls or given.tlsverify or os.environ.get("DOCKER_TLS_VERIFY"):
        usual = tls_of(os.environ.get("DOCKER_CERT_PATH") or config_directory())
        tls = Tls(
            given.tlscacert or usual.ca,
            given.tlscert or usual.certificate,
            given.tlskey or usual.key,
            not given.tls or given.tlsverify,
        )
    flag = given.host[-1] if given.host else ""
    return Client(resolve(flag, given.context, tls))


def _worded(error: ClientError) -> str:
    if isinstance(error, ApiError):
        return f"Error response from daemon: {error}"
    return str(error)


def _exit_code(error: ClientError, words: list[str]) -> int:
    """Docker's codes: 125 when the engine or a flag fails `run`, 126 and 127 its program."""
    explicit = getattr(error, "exit_code", None)
    if explicit is not None:
        return int(explicit)
    return _ENGINE_ERROR if {"run", "create"} & set(words[:6]) else 1


if __name__ == "__main__":
    main()
