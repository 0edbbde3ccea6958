"""What is done to containers without a terminal on them."""

from __future__ import annotations

import sys
from typing import Any

from estiba.cli.output import filters_of, human_size
from estiba.cli.parse import Arguments, UsageError
from estiba.cli.run import each
from estiba.client.errors import ClientError
from estiba.client.http import Client
from estiba.client.streams import demultiplex, write_all, write_output

_KINDS = {0: "C", 1: "A", 2: "D"}


def _verb(client: Client, given: Arguments, verb: str, **query: Any) -> int:
    return each(given.words, lambda name: client.call("POST", f"/containers/{name}/{verb}", query))


def stop(client: Client, given: Arguments) -> int:
    return _verb(client, given, "stop", signal=given.signal or None, t=given.time or None)


def restart(client: Client, given: Arguments) -> int:
    return _verb(client, given, "restart", signal=given.signal or None, t=given.time or None)


def kill(client: Client, given: Arguments) -> int:
    return _verb(client, given, "kill", signal=given.signal or "KILL")


def pause(client: Client, given: Arguments) -> int:
    return _verb(client, given, "pause")


def unpause(client: Client, given: Arguments) -> int:
    return _verb(client, given, "unpause")


def rm(client: Client, given: Arguments) -> int:
    query = {"force": given.force, "v": given.volumes, "link": given.link}
    return each(given.words, lambda name: client.delete(f"/containers/{name}", query))


def rename(client: Client, given: Arguments) -> int:
    old, new = given.words
    client.call("POST", f"/containers/{old}/rename", {"name": new})
    return 0


def wait(client: Client, given: Arguments) -> int:
    for name in given.words:
        print(client.post(f"/containers/{name}/wait")["StatusCode"])
    return 0


def update(client: Client, given: Arguments) -> int:
    from estiba.cli.runflags import limits, restart_policy

    body = limits(given)
    if given.restart:
        body["RestartPolicy"] = restart_policy(given.restart)
    if not body:
        raise UsageError("you must provide one or more flags when using this command")

    def change(name: str) -> None:
        answer = client.post(f"/containers/{name}/update", None, body)
        for warning in answer.get("Warnings") or []:
            print(warning, file=sys.stderr)

    return each(given.words, change)


def logs(client: Client, given: Arguments) -> int:
    name = given.words[0]
    if given.truncate:
        client.call("POST", f"/containers/{name}/logs/truncate")
        return 0
    tty = client.get(f"/containers/{name}/json")["Config"]["Tty"]
    query = {
        "stdout": True,
        "stderr": True,
        "follow": given.follow,
        "timestamps": given.timestamps,
        "details": given.details,
        "since": given.since or None,
        "until": given.until or None,
        "tail": given.tail or "all",
    }
    pieces = client.call("GET", f"/containers/{name}/logs", query).pieces()
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
    answer = client.get(f"/containers/{name}/top", query)
    print_table(answer["Titles"], answer["Processes"])
    return 0


def diff(client: Client, given: Arguments) -> int:
    for change in client.get(f"/containers/{given.words[0]}/changes") or []:
        print(_KINDS[change["Kind"]], change["Path"])
    return 0


def port(client: Client, given: Arguments) -> int:
    name, *rest = given.words
    ports = client.get(f"/containers/{name}/json")["NetworkSettings"]["Ports"] or {}
    wanted = rest[0] if rest else ""
    if wanted and "/" not in wanted:
        wanted += "/tcp"
    found = False
    for key, bindings in sorted(ports.items()):
        if wanted and key != wanted:
            continue
        for binding in bindings or []:
            found = True
            address = _address(binding["HostIp"], binding["HostPort"])
            print(address if wanted else f"{key} -> {address}")
    if wanted and not found:
        raise ClientError(f"Error: No public port '{wanted}' published for {name}")
    return 0


def _address(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def export(client: Client, given: Arguments) -> int:
    response = client.call("GET", f"/containers/{given.words[0]}/export")
    save_stream(response.pieces(), given.output)
    return 0


def save_stream(pieces: Any, path: str) -> None:
    """To a file that appears when it is whole, or to stdout unless that is a terminal."""
    if not path:
        if sys.stdout.isatty():
            raise UsageError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        for piece in pieces:
            write_all(1, piece)
        return
    import os

    temporary = f"{path}.part"
    with open(temporary, "wb") as file:
        for piece in pieces:
            file.write(piece)
    os.rename(temporary, path)


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
        "pause": "0" if given.no_pause or given.pause.lower() == "false" else "1",
    }
    print(client.post("/commit", query, {})["Id"])
    return 0


def split_tag(reference: str) -> tuple[str, str]:
    """Repository and tag; a port is no tag."""
    head, colon, tail = reference.rpartition(":")
    if not colon or "/" in tail:
        return reference, ""
    return head, tail


def prune(client: Client, given: Arguments) -> int:
    if not given.force and not confirm("This will remove all stopped containers."):
        return 1
    answer = client.post("/containers/prune", {"filters": filters_of(given.filter)})
    removed = answer.get("ContainersDeleted") or []
    if removed:
        print("Deleted Containers:", *removed, sep="\n")
        print()
    print(f"Total reclaimed space: {human_size(answer['SpaceReclaimed'])}")
    return 0


def confirm(what: str) -> bool:
    """Asks on the terminal."""
    print(f"WARNING! {what}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
