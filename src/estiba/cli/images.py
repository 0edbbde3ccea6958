"""Images: history, archives in and out, names, removal, pull."""

from __future__ import annotations

import os
import sys

from estiba.cli.containers import check_output, save_stream, split_tag
from estiba.cli.cp import read_pieces
from estiba.cli.output import ago, human_size, print_rows, short_id, shorten
from estiba.cli.parse import Arguments
from estiba.client.errors import ApiError, ClientError
from estiba.client.http import Client, image_part
from estiba.client.jsonlite import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_NO_REGISTRY = (
    "pulling from a registry is not built yet: make a base image with "
    "`estiba image bootstrap busybox`, or load one with `estiba load`"
)


def history(client: Client, given: Arguments) -> int:
    rows = []
    for view in client.get(f"/images/{image_part(given.words[0])}/history"):
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


def tag(client: Client, given: Arguments) -> int:
    source, target = given.words
    repository, name = split_tag(target)
    client.post(f"/images/{image_part(source)}/tag", {"repo": repository, "tag": name or None})
    return 0


def rm(client: Client, given: Arguments) -> int:
    query = {"force": given.force, "noprune": given.no_prune}
    if given.platform:
        client.require("1.50", "--platform")
        query["platforms"] = [dumps(platform(text)) for text in given.platform]
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
    check_output(given.output, "save image")
    query = {"names": given.words, "platform": platform(given.platform)}
    save_stream(client.call("GET", "/images/get", query).pieces(), given.output)
    return 0


def platform(text: str) -> dict[str, str] | None:
    """`linux/arm64/v8` as the API wants it."""
    if not text:
        return None
    parts = dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))
    return {key: value for key, value in parts.items() if value}


def _open_file(path: str) -> int:
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
    pieces = read_pieces(_open_file(given.input or "-"))
    query = {"quiet": given.quiet or not os.isatty(1), "platform": platform(given.platform)}
    print_progress(client.call("POST", "/images/load", query, source=pieces).lines())
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
        "platform": given.platform or None,
    }
    pieces = None if remote else read_pieces(_open_file(source))
    response = client.call("POST", "/images/create", query, source=pieces)
    print_progress(response.lines())
    return 0


def print_progress(lines: Iterable[Any], *, quiet: bool = False, err: bool = False) -> None:
    """A progress stream's messages, each once. Raises ClientError when it reports a failure."""
    last: dict[str, str] = {}
    for line in lines:
        if "error" in line:
            raise ClientError(line["error"])
        text = (line.get("stream") or line.get("status") or "").rstrip("\n")
        what = line.get("id", "")
        if not text or quiet or (what and last.get(what) == text):
            continue
        last[what] = text
        shown = f"{what}: {text}" if what else text
        print(shown, file=sys.stderr if err else sys.stdout, flush=True)


def pull(client: Client, given: Arguments) -> int:
    reference = given.words[0]
    if "@" not in reference and not split_tag(reference)[1]:
        if not given.quiet:
            print("Using default tag: latest")
        reference += ":latest"
    pull_image(client, reference, given.platform, quiet=given.quiet)
    print(reference)
    return 0


def pull_image(
    client: Client, reference: str, wanted: str, *, quiet: bool, err: bool = False
) -> None:
    """Raises ClientError saying what to do when the daemon cannot pull."""
    name, at, digest = reference.partition("@")
    repository, tag_name = (name, digest) if at else split_tag(name)
    query = {"fromImage": repository, "tag": tag_name or "latest", "platform": wanted or None}
    try:
        response = client.call("POST", "/images/create", query)
    except ApiError as error:
        if error.status != 501:
            raise
        raise ClientError(f"{reference}: {_NO_REGISTRY}") from error
    print_progress(response.lines(), quiet=quiet, err=err)
