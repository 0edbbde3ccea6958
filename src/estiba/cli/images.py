"""Images: history, archives in and out, names, removal."""

from __future__ import annotations

import os
import sys

from estiba.cli.containers import check_output, save_stream, split_tag
from estiba.cli.cp import read_pieces
from estiba.cli.output import ago, human_size, print_rows, short_id, shorten
from estiba.cli.parse import Arguments, UsageError
from estiba.cli.progress import show_progress
from estiba.cli.refs import default_platform, platform
from estiba.client.errors import ApiError, ClientError
from estiba.client.http import Client, image_part
from estiba.client.jsonlite import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_FORMS = ("", "docker", "oci")


def history(client: Client, given: Arguments) -> int:
    rows = []
    query = _one_platform(client, given)
    for view in client.get(f"/images/{image_part(given.words[0])}/history", query):
        created = _rfc3339(view["Created"])
        by = view["CreatedBy"].replace("\t", " ")
        rows.append({
            "ID": view["Id"] if given.no_trunc else short_id(view["Id"]),
            "CreatedSince": ago(view["Created"]) if given.human else created,
            "CreatedAt": created,
            "CreatedBy": by if given.no_trunc else shorten(by, 45),
            "Size": human_size(view["Size"], 3) if given.human else str(view["Size"]),
            "Comment": view["Comment"],
        })  # fmt: skip
    columns = (
        ("IMAGE", "ID"),
        ("CREATED" if given.human else "CREATED AT", "CreatedSince"),
        ("CREATED BY", "CreatedBy"),
        ("SIZE", "Size"),
        ("COMMENT", "Comment"),
    )
    print_rows(rows, columns, given.format, quiet_key="ID" if given.quiet else "")
    return 0


def _rfc3339(unix_time: int) -> str:
    import time

    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(unix_time))
    return text.replace("+0000", "Z") if text.endswith("+0000") else f"{text[:-2]}:{text[-2:]}"


def _one_platform(client: Client, given: Arguments) -> dict[str, Any]:
    """The query's `platform`. Raises ClientError for a daemon that would not heed it."""
    if not given.platform:
        return {}
    client.require("1.48", "--platform")
    return {"platform": platform(given.platform)}


def tag(client: Client, given: Arguments) -> int:
    source, target = given.words
    repository, name = split_tag(target)
    client.post(f"/images/{image_part(source)}/tag", {"repo": repository, "tag": name or None})
    return 0


def rm(client: Client, given: Arguments) -> int:
    query = {"force": given.force, "noprune": given.no_prune}
    if given.platform:
        client.require("1.50", "--platform")
        query["platforms"] = [
            dumps(platform(word)) for text in given.platform for word in text.split(",")
        ]
    code = 0
    for name in given.words:
        try:
            for entry in client.delete(f"/images/{image_part(name)}", query):
                for verb, what in entry.items():
                    print(f"{verb}: {what}")
        except ApiError as error:
            sys.stdout.flush()
            print(f"Error response from daemon: {error}", file=sys.stderr)
            if not (given.force and error.status == 404):
                code = 1
    return code


def save(client: Client, given: Arguments) -> int:
    if given.format not in _FORMS:
        raise UsageError(f"--format {given.format}: an archive is docker or oci")
    query = {"names": given.words, "format": given.format or None, **_one_platform(client, given)}
    check_output(given.output, "save image")
    save_stream(client.call("GET", "/images/get", query).pieces(), given.output)
    return 0


def open_file(path: str) -> int:
    """A descriptor of a file, or of stdin for `-`. Raises ClientError."""
    if path == "-":
        return 0
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ClientError(f"open {path}: {str(error.strerror).lower()}") from error


def load(client: Client, given: Arguments) -> int:
    if not given.input and os.isatty(0):
        raise ClientError("requested load from stdin, but stdin is empty")
    pieces = read_pieces(open_file(given.input or "-"))
    query = {"quiet": given.quiet or not os.isatty(1), **_one_platform(client, given)}
    show_progress(client.call("POST", "/images/load", query, source=pieces).lines())
    return 0


def import_(client: Client, given: Arguments) -> int:
    source, *rest = given.words
    repository, name = split_tag(rest[0]) if rest else ("", "")
    remote = source.startswith(("http://", "https://", "ftp://"))
    query = {
        "fromSrc": source if remote else "-",
        "repo": repository or None,
        "tag": name or None,
        "message": given.message or None,
        "changes": given.change or None,
        "platform": default_platform(given.platform).lower() or None,
    }
    pieces = None if remote else read_pieces(open_file(source))
    response = client.call("POST", "/images/create", query, source=pieces)
    show_progress(response.lines())
    return 0
