"""run, create, start, attach, exec: containers with the user's terminal on them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from estiba.cli.parse import Arguments, UsageError
from estiba.cli.runflags import attachments, build, environment, write_cidfile
from estiba.client.errors import ApiError, ClientError
from estiba.client.http import Client
from estiba.client.streams import Session, raw_terminal, terminal_size

_NOT_FOUND = ("executable file not found", "no such file or directory", "not found in $PATH")
_NOT_EXECUTABLE = ("permission denied", "is a directory", "exec format error")


class StartError(ClientError):
    """A container that was made and did not start."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(f"estiba: Error response from daemon: {error}")
        text = str(error)
        self.exit_code = 125
        if any(words in text for words in _NOT_FOUND):
            self.exit_code = 127
        elif any(words in text for words in _NOT_EXECUTABLE):
            self.exit_code = 126


def create(client: Client, given: Arguments) -> int:
    print(_create(client, given, build(given)))
    return 0


def _create(client: Client, given: Arguments, body: dict[str, Any]) -> str:
    if given.cidfile and os.path.exists(given.cidfile):
        raise UsageError(f"container ID file found, make sure the other container isn't running "
                         f"or delete {given.cidfile}")  # fmt: skip
    query = {"name": given.name or None, "platform": given.platform or None}
    try:
        answer = client.post("/containers/create", query, body)
    except ApiError as error:
        if error.status != 404 or "No such image" not in str(error):
            raise
        raise ClientError(
            f"{error}: registries are not built yet, so it cannot be pulled; "
            "make a base image with `estiba image bootstrap busybox`, or load one"
        ) from error
    for warning in answer.get("Warnings") or []:
        print(f"WARNING: {warning}", file=sys.stderr)
    write_cidfile(given.cidfile, answer["Id"])
    return str(answer["Id"])


def run(client: Client, given: Arguments) -> int:
    """Docker's order: create, attach, wait, start, stream, exit code."""
    body = build(given)
    tty = bool(given.tty)
    if given.detach and given.attach:
        raise UsageError("Conflicting options: -a and -d")
    if tty and given.interactive and not sys.stdin.isatty() and not given.detach:
        raise UsageError("the input device is not a TTY")
    height, width = terminal_size()
    if tty and height:
        body["HostConfig"]["ConsoleSize"] = [height, width]
    container = _create(client, given, body)
    if given.detach:
        _start(client, container)
        print(container)
        return 0
    return _foreground(
        client,
        container,
        attached=attachments(given),
        tty=tty,
        keys=given.detach_keys,
        condition="removed" if given.rm else "next-exit",
        proxy=given.sig_proxy.lower() != "false" and not tty,
    )


def _foreground(
    client: Client,
    container: str,
    *,
    attached: set[str],
    tty: bool,
    keys: str,
    condition: str,
    proxy: bool,
    begin: bool = True,
) -> int:
    session = _attach(client, container, attached, tty=tty, keys=keys)
    waiting = client.call("POST", f"/containers/{container}/wait", {"condition": condition})
    with raw_terminal(tty and "stdin" in attached):
        if begin:
            _start(client, container)
        with _signals(client, container, proxy=proxy, tty=tty):
            session.run(stdin="stdin" in attached)
    if session.is_detached:
        return 0
    outcome: dict[str, Any] = next(waiting.lines(), {})
    if outcome.get("Error"):
        raise ClientError(f"Error waiting for container: {outcome['Error'].get('Message')}")
    return int(outcome.get("StatusCode", 0))


def _attach(
    client: Client, container: str, attached: set[str], *, tty: bool, keys: str, logs: bool = False
) -> Session:
    query: dict[str, Any] = {"stream": True, "logs": logs, "detachKeys": keys or None}
    query.update({name: name in attached for name in ("stdin", "stdout", "stderr")})
    response = client.call("POST", f"/containers/{container}/attach", query, upgrade=True)
    return Session(*response.hijacked(), tty=tty, detach_keys=keys)


def _start(client: Client, container: str) -> None:
    try:
        client.call("POST", f"/containers/{container}/start")
    except ApiError as error:
        raise StartError(error) from error


@contextmanager
def _signals(client: Client, container: str, *, proxy: bool, tty: bool) -> Iterator[None]:
    """Passes signals on to the program, and the terminal's size when it changes."""

    def resize(*_: object) -> None:
        height, width = terminal_size()
        if height:
            try:
                client.call("POST", f"/containers/{container}/resize", {"h": height, "w": width})
            except ClientError:
                return

    def forward(number: int, _frame: object) -> None:
        def send() -> None:
            try:
                client.call("POST", f"/containers/{container}/kill", {"signal": number})
            except ClientError:
                return

        threading.Thread(target=send, daemon=True).start()

    before = {}
    if tty:
        before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resize)
        resize()
    if proxy:
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
            number = signal.Signals[name]
            before[number] = signal.signal(number, forward)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start(client: Client, given: Arguments) -> int:
    if not given.attach and not given.interactive:
        return each(given.words, lambda name: _start(client, name))
    if len(given.words) > 1:
        raise UsageError("you cannot start and attach multiple containers at once")
    name = given.words[0]
    config = client.get(f"/containers/{name}/json")["Config"]
    attached = {"stdout", "stderr", *(["stdin"] if given.interactive else [])}
    return _foreground(
        client,
        name,
        attached=attached,
        tty=config["Tty"],
        keys=given.detach_keys,
        condition="next-exit",
        proxy=not config["Tty"],
    )


def attach(client: Client, given: Arguments) -> int:
    name = given.words[0]
    view = client.get(f"/containers/{name}/json")
    if not view["State"]["Running"]:
        raise ClientError("You cannot attach to a stopped container, start it first")
    if view["State"]["Paused"]:
        raise ClientError("You cannot attach to a paused container, unpause it first")
    wants_input = view["Config"]["OpenStdin"] and not given.no_stdin
    attached = {"stdout", "stderr", *(["stdin"] if wants_input else [])}
    tty = view["Config"]["Tty"]
    return _foreground(
        client,
        name,
        attached=attached,
        tty=tty,
        keys=given.detach_keys,
        condition="not-running",
        proxy=given.sig_proxy.lower() != "false" and not tty,
        begin=False,
    )


def exec_(client: Client, given: Arguments) -> int:
    container, *command = given.words
    tty = bool(given.tty)
    if tty and given.interactive and not sys.stdin.isatty() and not given.detach:
        raise UsageError("the input device is not a TTY")
    height, width = terminal_size()
    body = {
        "Cmd": command,
        "Tty": tty,
        "User": given.user,
        "WorkingDir": given.workdir,
        "Privileged": given.privileged,
        "Env": environment(given),
        "AttachStdin": bool(given.interactive and not given.detach),
        "AttachStdout": not given.detach,
        "AttachStderr": not given.detach,
        "DetachKeys": given.detach_keys,
    }
    exec_id = client.post(f"/containers/{container}/exec", None, body)["Id"]
    options: dict[str, Any] = {"Detach": bool(given.detach), "Tty": tty}
    if tty and height:
        options["ConsoleSize"] = [height, width]
    if given.detach:
        client.call("POST", f"/exec/{exec_id}/start", None, options)
        return 0
    response = client.call("POST", f"/exec/{exec_id}/start", None, options, upgrade=True)
    session = Session(*response.hijacked(), tty=tty, detach_keys=given.detach_keys)
    with raw_terminal(tty and bool(given.interactive)), _resizing(client, exec_id, tty=tty):
        session.run(stdin=bool(given.interactive))
    if session.is_detached:
        return 0
    return int(client.get(f"/exec/{exec_id}/json").get("ExitCode") or 0)


@contextmanager
def _resizing(client: Client, exec_id: str, *, tty: bool) -> Iterator[None]:
    if not tty:
        yield
        return

    def resize(*_: object) -> None:
        height, width = terminal_size()
        if height:
            try:
                client.call("POST", f"/exec/{exec_id}/resize", {"h": height, "w": width})
            except ClientError:
                return

    before = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def each(names: list[str], action: Any) -> int:
    """Does it for every name and prints those that worked; 1 when one failed."""
    code = 0
    for name in names:
        try:
            action(name)
        except ClientError as error:
            prefix = "Error response from daemon: " if isinstance(error, ApiError) else ""
            print(f"{prefix}{error}", file=sys.stderr)
            code = 1
        else:
            print(name)
    return code
