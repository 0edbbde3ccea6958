"""Images: history, archives in and out, names, removal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from estiba.cli.containers import confirm, save_stream, split_tag
from estiba.cli.output import ago, filters_of, human_size, print_rows, shorten
from estiba.cli.parse import Arguments, UsageError
from estiba.client.errors import ApiError, ClientError
from estiba.client.http import Client

_TAR = "application/x-tar"


def file_pieces(path: str) -> Iterator[bytes]:
    """A file's content, or stdin's for `-`. Raises UsageError when it cannot be opened."""
    try:
        file = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"open {path}: {error.strerror}") from error
    with file:
        while data := file.read(1 << 18):
            yield data


def history(client: Client, given: Arguments) -> int:
    rows = []
    for view in client.get(f"/images/{given.words[0]}/history"):
        identifier = view["Id"]
        short = identifier.partition(":")[2][:12] if ":" in identifier else identifier
        human = given.human.lower() != "false"
        rows.append(
            {
                "ID": identifier if given.no_trunc else short,
                "CreatedSince": ago(view["Created"]),
                "CreatedAt": view["Created"],
                "CreatedBy": view["CreatedBy"]
                if given.no_trunc
                else shorten(view["CreatedBy"], 45),
                "Size": human_size(view["Size"], digits=3) if human else str(view["Size"]),
                "Comment": view["Comment"],
            }
        )
    columns = (
        ("IMAGE", "ID"),
        ("CREATED", "CreatedSince"),
        ("CREATED BY", "CreatedBy"),
        ("SIZE", "Size"),
        ("COMMENT", "Comment"),
    )
    print_rows(rows, columns, given.format, quiet_key="ID" if given.quiet else "")
    return 0


def tag(client: Client, given: Arguments) -> int:
    source, target = given.words
    repository, name = split_tag(target)
    client.call("POST", f"/images/{source}/tag", {"repo": repository, "tag": name or None})
    return 0


def rm(client: Client, given: Arguments) -> int:
    code = 0
    for name in given.words:
        try:
            query = {"force": given.force, "noprune": given.no_prune}
            for entry in client.delete(f"/images/{name}", query):
                for verb, what in entry.items():
                    print(f"{verb}: {what}")
        except ApiError as error:
            print(f"Error response from daemon: {error}", file=sys.stderr)
            code = 1
    return code


def save(client: Client, given: Arguments) -> int:
    if not given.output and sys.stdout.isatty():
        raise UsageError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    response = client.call("GET", "/images/get", {"names": given.words})
    save_stream(response.pieces(), given.output)
    return 0


def load(client: Client, given: Arguments) -> int:
    if not given.input and sys.stdin.isatty():
        raise UsageError("requested load from stdin, but stdin is empty")
    response = client.call(
        "POST",
        "/images/load",
        {"quiet": given.quiet},
        source=file_pieces(given.input or "-"),
        content_type=_TAR,
    )
    print_progress(response.lines(), quiet=given.quiet)
    return 0


def import_(client: Client, given: Arguments) -> int:
    source, *rest = given.words
    repository, name = split_tag(rest[0]) if rest else ("", "")
    query = {
        "fromSrc": "-",
        "repo": repository or None,
        "tag": name or None,
        "message": given.message or None,
        "changes": given.change or None,
    }
    response = client.call(
        "POST", "/images/create", query, source=file_pieces(source), content_type=_TAR
    )
    print_progress(response.lines(), quiet=False)
    return 0


def print_progress(lines: Iterator[Any], *, quiet: bool) -> None:
    """A progress stream's messages. Raises ClientError when it reports a failure."""
    for line in lines:
        if "error" in line:
            raise ClientError(line["error"])
        text = line.get("stream") or line.get("status") or ""
        if text and not quiet:
            print(text.rstrip("\n"))


def prune(client: Client, given: Arguments) -> int:
    what = "all images without a container" if given.all else "all dangling images"
    if not given.force and not confirm(f"This will remove {what}."):
        return 1
    filters = filters_of(given.filter) or {}
    if given.all:
        filters["dangling"] = {"false": True}
    answer = client.post("/images/prune", {"filters": filters or None})
    for entry in answer.get("ImagesDeleted") or []:
        print(*(f"{verb.lower()}: {what}" for verb, what in entry.items()))
    print(f"Total reclaimed space: {human_size(answer['SpaceReclaimed'])}")
    return 0
