"""What is done to containers without a terminal on them."""

from __future__ import annotations

import os
import sys

from estiba.cli.output import each, moment
from estiba.cli.parse import Arguments, UsageError
from estiba.client.errors import ApiError, ClientError
from estiba.client.http import Client, part
from estiba.client.streams import demultiplex, write_all, write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_KINDS = {0: "C", 1: "A", 2: "D"}


def _verb(client: Client, given: Arguments, verb: str, **query: Any) -> int:
    return each(given.words, lambda name: client.post(f"/containers/{part(name)}/{verb}", query))


def stop(client: Client, given: Arguments) -> int:
    return _verb(client, given, "stop", signal=given.signal or None, t=given.timeout)


def restart(client: Client, given: Arguments) -> int:
    return _verb(client, given, "restart", signal=given.signal or None, t=given.timeout)


def kill(client: Client, given: Arguments) -> int:
    return _verb(client, given, "kill", signal=given.signal or "KILL")


def pause(client: Client, given: Arguments) -> int:
    return _verb(client, given, "pause")


def unpause(client: Client, given: Arguments) -> int:
    return _verb(client, given, "unpause")


def rm(client: Client, given: Arguments) -> int:
    query = {"force": given.force, "v": given.volumes, "link": given.link}
    code = 0
    for name in given.words:
        try:
            client.delete(f"/containers/{part(name)}", query)
        except ApiError as error:
            print(f"Error response from daemon: {error}", file=sys.stderr)
            if not (given.force and error.status == 404):
                code = 1
        else:
            print(name)
    return code


def rename(client: Client, given: Arguments) -> int:
    old, new = given.words
    try:
        client.post(f"/containers/{part(old)}/rename", {"name": new})
    except ApiError as error:
        print(f"Error response from daemon: {error}", file=sys.stderr)
        raise UsageError(f"Error: failed to rename container named {old}") from error
    return 0


def wait(client: Client, given: Arguments) -> int:
    def ended(name: str) -> None:
        outcome = client.post(f"/containers/{part(name)}/wait")
        print(outcome["StatusCode"], flush=True)

    return each(given.words, ended, shown=False)


def update(client: Client, given: Arguments) -> int:
    from estiba.cli.netflags import changed_ports
    from estiba.cli.networkpolicy import set_egress
    from estiba.cli.runspec import limits, restart_policy

    body = limits(given)
    if given.restart:
        body["RestartPolicy"] = restart_policy(given.restart)
    ports = changed_ports(given)
    body.update(ports)
    if not body and not given.egress:
        raise UsageError("you must provide one or more flags when using this command")

    def change(name: str) -> None:
        warnings = set_egress(client, name, given.egress) if given.egress else []
        if body:
            answer = client.post(f"/containers/{part(name)}/update", None, body)
            warnings += answer.get("Warnings") or []
            if ports and "Ports" not in answer:
                raise ClientError(
                    f"{name}: the daemon cannot change published ports: it has ignored "
                    "--publish-add and --publish-rm"
                )
        for warning in warnings:
            print(warning, file=sys.stderr)

    return each(given.words, change)


def logs(client: Client, given: Arguments) -> int:
    url = f"/containers/{part(given.words[0])}"
    if given.truncate:
        client.post(f"{url}/logs/truncate")
        return 0
    query = {
        "stdout": True,
        "stderr": True,
        "follow": given.follow,
        "timestamps": given.timestamps,
        "details": given.details,
        "since": moment(given.since, "since"),
        "until": moment(given.until, "until"),
        "tail": given.tail or "all",
    }
    tty = client.get(f"{url}/json")["Config"]["Tty"]
    pieces = client.call("GET", f"{url}/logs", query).pieces()
    if tty:
        for piece in pieces:
            write_all(1, piece)
    else:
        write_output(demultiplex(pieces))
    return 0


def top(client: Client, given: Arguments) -> int:
    from estiba.cli.output import print_table

    name, *options = given.words
    query = {"ps_args": " ".join(options) or None}
    answer = client.get(f"/containers/{part(name)}/top", query)
    print_table(answer["Titles"], answer["Processes"] or [], least=20)
    return 0


def diff(client: Client, given: Arguments) -> int:
    for change in client.get(f"/containers/{part(given.words[0])}/changes") or []:
        print(_KINDS.get(change["Kind"], "?"), change["Path"])
    return 0


def port(client: Client, given: Arguments) -> int:
    name, *rest = given.words
    view = client.get(f"/containers/{part(name)}/json")
    ports = view["NetworkSettings"].get("Ports") or {}
    if rest:
        number, _, protocol = rest[0].partition("/")
        if not number.isdecimal():
            raise ClientError(f"Error: invalid port ({number}): use PORT or PORT/PROTOCOL")
        bindings = ports.get(f"{number}/{protocol or 'tcp'}") or []
        for binding in bindings:
            print(_address(binding))
        if not bindings:
            raise ClientError(f"Error: No public port '{rest[0]}' published for {name}")
        return 0
    for key in sorted(ports, key=lambda key: (int(key.partition("/")[0]), key)):
        for binding in ports[key] or []:
            print(f"{key} -> {_address(binding)}")
    return 0


def _address(binding: dict[str, str]) -> str:
    host = binding["HostIp"]
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"


def export(client: Client, given: Arguments) -> int:
    check_output(given.output, "export container")
    response = client.call("GET", f"/containers/{part(given.words[0])}/export")
    save_stream(response.pieces(), given.output)
    return 0


def check_output(path: str, what: str) -> None:
    """Raises ClientError before anything is asked for, when it has nowhere to go."""
    if not path:
        if os.isatty(1):
            raise ClientError(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect"
            )
        return
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise ClientError(
            f"failed to {what}: invalid output path: stat {folder}: no such file or directory"
        )
    if os.path.isdir(path):
        raise ClientError(f"failed to {what}: invalid output path: {path!r} is a directory")


def save_stream(pieces: Iterable[bytes], path: str) -> None:
    """To stdout, or to a file that appears when it is whole."""
    if not path:
        for piece in pieces:
            write_all(1, piece)
        return
    if os.path.exists(path) and not os.path.isfile(path):
        # A device or a pipe that others read: /dev/null, a fifo.
        with open(path, "wb", buffering=0) as sink:
            for piece in pieces:
                write_all(sink.fileno(), piece)
        return
    temporary = f"{path}.{os.getpid()}.part"
    try:
        with open(temporary, "xb") as file:
            for piece in pieces:
                file.write(piece)
        os.rename(temporary, path)
    except OSError as error:
        raise ClientError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def commit(client: Client, given: Arguments) -> int:
    name, *rest = given.words
    repository, tag = split_tag(rest[0]) if rest else ("", "")
    query = {
        "container": name,
        "repo": repository or None,
        "tag": tag or None,
        "comment": given.message or None,
        "author": given.author or None,
        "changes": given.change or None,
        "pause": "0" if given.no_pause or not given.pause else "1",
    }
    print(client.post("/commit", query, {})["Id"])
    return 0


def split_tag(reference: str) -> tuple[str, str]:
    """Repository and tag; a port is no tag. Raises ClientError."""
    head, colon, tail = reference.rpartition(":")
    if not colon or "/" in tail:
        return reference, ""
    if ":" in head.rpartition("/")[2]:
        raise ClientError(f'invalid reference format: "{reference}": more than one tag')
    return head, tail
