"""run, create, start, attach, exec: containers with the user's terminal on them."""

from __future__ import annotations

import os
import sys

from estiba.cli.creating import built, create_container
from estiba.cli.output import each
from estiba.cli.parse import Arguments, FlagError, UsageError
from estiba.cli.runspec import attachments, environment
from estiba.client.errors import ApiError, ClientError, StartError
from estiba.client.host import read_config
from estiba.client.http import Client, part
from estiba.client.streams import RawTerminal, Session, WatchedSignals, terminal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from estiba.model.detach_keys import DetachScanner

_ENGINE_ERROR = 125
_PASSED_ON = "HUP INT QUIT TERM USR1 USR2 CONT TSTP".split()


class _Detached(ClientError):
    """The user has typed the detach keys."""


# -- run and create ------------------------------------------------------------------------


def run(client: Client, given: Arguments) -> int:
    if given.detach and given.attach:
        raise UsageError("conflicting options: cannot specify both --attach and --detach")
    if not given.detach:
        _check_terminal(given)
    try:
        return _run(client, given)
    except _Detached:
        return 0
    except (FlagError, UsageError):
        raise
    except ClientError as error:
        raise _explained(error, given) from error


def create(client: Client, given: Arguments) -> int:
    try:
        body = built(given)
    except (FlagError, UsageError):
        raise
    except ClientError as error:
        raise _explained(error, given) from error
    print(create_container(client, given, body))
    return 0


def _explained(error: ClientError, given: Arguments) -> UsageError:
    """125 when the engine fails, 126 and 127 when the program cannot run or is missing."""
    code = error.exit_code_of_program if isinstance(error, StartError) else _ENGINE_ERROR
    prefix = "Error response from daemon: " if isinstance(error, ApiError) else ""
    return UsageError(
        f"estiba: {prefix}{error}\n\nRun 'estiba {given.path} --help' for more information",
        exit_code=code,
    )


def _check_terminal(given: Arguments) -> None:
    if given.tty and given.interactive and not os.isatty(0):
        raise UsageError("the input device is not a TTY")


def _run(client: Client, given: Arguments) -> int:
    """Docker's order: create, attach, wait, start, stream, exit code."""
    body = built(given)
    tty = bool(given.tty)
    height, width = terminal_size()
    if tty and height:
        body["HostConfig"]["ConsoleSize"] = [height, width]
    container = create_container(client, given, body)
    if given.detach:
        _start(client, container)
        print(container)
        return 0
    attached = attachments(given)
    session = None
    if attached:
        session = _attach(client, container, attached, tty=tty, keys=given.detach_keys)
    return _foreground(
        client,
        container,
        session,
        stdin="stdin" in attached,
        tty=tty,
        condition="removed" if given.rm else "next-exit",
        proxy=given.sig_proxy,
    )


# -- the foreground ------------------------------------------------------------------------


def _detach_keys(text: str) -> str:
    """The flag, or the user's setting."""
    return text or str(read_config().get("detachKeys") or "")


def _scanner(keys: str, *, tty: bool) -> DetachScanner | None:
    """Finds the keys on this side, so that leaving is told from the program's end.

    Raises UsageError for keys that cannot be understood.
    """
    if not tty:
        return None
    from estiba.model.detach_keys import DEFAULT, DetachScanner, parse_keys
    from estiba.model.errors import InvalidArgument

    try:
        return DetachScanner(parse_keys(keys or DEFAULT))
    except InvalidArgument as error:
        raise UsageError(str(error)) from error


def _attach(client: Client, container: str, attached: set[str], *, tty: bool, keys: str) -> Session:
    chosen = _detach_keys(keys)
    scanner = _scanner(chosen, tty=tty)
    query: dict[str, Any] = {"stream": True, "detachKeys": chosen or None}
    query.update({name: name in attached for name in ("stdin", "stdout", "stderr")})
    response = client.call("POST", f"/containers/{part(container)}/attach", query, upgrade=True)
    return Session(*response.hijacked(), tty=tty, scanner=scanner)


def _start(client: Client, container: str) -> None:
    try:
        client.post(f"/containers/{part(container)}/start")
    except ApiError as error:
        raise StartError(error.status, str(error)) from error


def _foreground(
    client: Client,
    container: str,
    session: Session | None,
    *,
    stdin: bool,
    tty: bool,
    condition: str,
    proxy: bool,
    begin: bool = True,
) -> int:
    """The program's exit code. Raises _Detached."""
    url = f"/containers/{part(container)}"
    waiting = client.call("POST", f"{url}/wait", {"condition": condition})
    with RawTerminal(tty and stdin), WatchedSignals(_handlers(client, url, tty=tty, proxy=proxy)):
        if begin:
            _start(client, container)
        if tty:
            _resize(client, url)
        if session is not None and not session.run(stdin=stdin):
            raise _Detached("read escape sequence")
        outcome: dict[str, Any] = next(waiting.lines(), {})
    failure = outcome.get("Error")
    if failure and failure.get("Message"):
        raise ClientError(f"Error waiting for container: {failure['Message']}")
    return int(outcome.get("StatusCode", 0))


def _resize(client: Client, url: str) -> None:
    height, width = terminal_size()
    if not height:
        return
    try:
        client.post(f"{url}/resize", {"h": height, "w": width})
    except ClientError:
        # The program has ended, or has not quite begun.
        return


def _handlers(client: Client, url: str, *, tty: bool, proxy: bool) -> dict[int, Any]:
    """Passes signals on to the program, and the terminal's size when it changes."""
    if not tty and not proxy:
        return {}
    import signal

    def forward(number: int) -> None:
        try:
            client.post(f"{url}/kill", {"signal": signal.Signals(number).name})
        except ClientError:
            return

    found: dict[int, Any] = {}
    if tty:
        found[signal.SIGWINCH] = lambda _number: _resize(client, url)
    if proxy:
        found.update({signal.Signals[f"SIG{name}"]: forward for name in _PASSED_ON})
    return found


# -- start, attach, exec -------------------------------------------------------------------


def start(client: Client, given: Arguments) -> int:
    if not given.attach and not given.interactive:
        return _start_all(client, given.words)
    if len(given.words) > 1:
        raise UsageError("you cannot start and attach multiple containers at once")
    name = given.words[0]
    config = client.get(f"/containers/{part(name)}/json")["Config"]
    tty = config["Tty"]
    stdin = bool(given.interactive and config["OpenStdin"])
    attached = {"stdout", "stderr", *(["stdin"] if stdin else [])}
    session = _attach(client, name, attached, tty=tty, keys=given.detach_keys)
    try:
        return _foreground(
            client, name, session, stdin=stdin, tty=tty, condition="next-exit", proxy=not tty
        )
    except _Detached:
        return 0


def _start_all(client: Client, names: list[str]) -> int:
    failed = []

    def begin(name: str) -> None:
        try:
            _start(client, name)
        except ClientError:
            failed.append(name)
            raise

    each(names, begin)
    if failed:
        sys.stdout.flush()
        print(f"Error: failed to start containers: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def attach(client: Client, given: Arguments) -> int:
    name = given.words[0]
    view = client.get(f"/containers/{part(name)}/json")
    state, config = view["State"], view["Config"]
    if not state["Running"]:
        raise ClientError("You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise ClientError("You cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise ClientError("You cannot attach to a restarting container, wait until it is running")
    tty, stdin = config["Tty"], bool(config["OpenStdin"] and not given.no_stdin)
    if tty and stdin and not os.isatty(0):
        raise UsageError("the input device is not a TTY")
    attached = {"stdout", "stderr", *(["stdin"] if stdin else [])}
    session = _attach(client, name, attached, tty=tty, keys=given.detach_keys)
    return _foreground(
        client,
        name,
        session,
        stdin=stdin,
        tty=tty,
        condition="not-running",
        proxy=given.sig_proxy and not tty,
        begin=False,
    )


def exec_(client: Client, given: Arguments) -> int:
    container, *command = given.words
    if not given.detach:
        _check_terminal(given)
    tty = bool(given.tty)
    keys = _detach_keys(given.detach_keys)
    scanner = _scanner(keys, tty=tty)
    size = terminal_size()
    stdin = bool(given.interactive and not given.detach)
    body = {
        "Cmd": command,
        "Tty": tty,
        "User": given.user,
        "WorkingDir": given.workdir,
        "Privileged": given.privileged,
        "Env": environment(given),
        "AttachStdin": stdin,
        "AttachStdout": not given.detach,
        "AttachStderr": not given.detach,
        "DetachKeys": keys,
    }
    if tty and size[0]:
        body["ConsoleSize"] = list(size)
    exec_id = client.post(f"/containers/{part(container)}/exec", None, body)["Id"]
    options: dict[str, Any] = {"Detach": bool(given.detach), "Tty": tty}
    if "ConsoleSize" in body:
        options["ConsoleSize"] = body["ConsoleSize"]
    url = f"/exec/{exec_id}"
    if given.detach:
        client.post(f"{url}/start", None, options)
        return 0
    response = client.call("POST", f"{url}/start", None, options, upgrade=True)
    session = Session(*response.hijacked(), tty=tty, scanner=scanner)
    with RawTerminal(tty and stdin), WatchedSignals(_handlers(client, url, tty=tty, proxy=False)):
        if tty:
            _resize(client, url)
        if not session.run(stdin=stdin):
            raise _Detached("read escape sequence")
    return int(client.get(f"{url}/json").get("ExitCode") or 0)
