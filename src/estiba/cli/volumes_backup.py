"""Volumes: to files and registries, and back."""

from __future__ import annotations

import sys
import time

from estiba.cli.containers import check_output, save_stream
from estiba.cli.cp import read_pieces
from estiba.cli.images import open_file
from estiba.cli.output import human_size
from estiba.cli.parse import Arguments
from estiba.cli.progress import show_progress
from estiba.cli.refs import reference
from estiba.cli.volumes_copies import made_with
from estiba.client.credentials import header
from estiba.client.http import Client, part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_REGISTRY = "oci://"
_TELL_S = 0.5


def backup(client: Client, given: Arguments) -> int:
    name, target = given.words
    query: dict[str, Any] = {"pause": given.pause, "plain": given.plain}
    path = f"/volumes/{part(name)}/backup"
    if target.startswith(_REGISTRY):
        wanted = reference(target.removeprefix(_REGISTRY)).tagged
        query["ref"] = wanted.familiar
        response = client.call("POST", f"{path}/push", query, headers=header(wanted.domain))
        show_progress(response.lines(), quiet=given.quiet)
        return 0
    file = "" if target == "-" else target
    check_output(file, "back up the volume")
    if not given.pause:
        _warn(client, name)
    pieces = client.call("GET", path, query).pieces()
    save_stream(pieces if given.quiet else counted(pieces, "saved"), file)
    return 0


def restore(client: Client, given: Arguments) -> int:
    name, source = given.words
    query = made_with(given)
    path = f"/volumes/{part(name)}/restore"
    if source.startswith(_REGISTRY):
        wanted = reference(source.removeprefix(_REGISTRY)).tagged
        query["ref"] = wanted.familiar
        response = client.call("POST", f"{path}/pull", query, headers=header(wanted.domain))
        show_progress(response.lines(), quiet=given.quiet)
        return 0
    pieces = read_pieces(open_file(source))
    if not given.quiet:
        pieces = counted(pieces, "sent")
    view = client.call("POST", path, query, source=pieces).json()
    if not given.quiet:
        print(view["Name"])
    return 0


def counted(pieces: Iterable[bytes], verb: str) -> Iterator[bytes]:
    """The same pieces; on a terminal STDERR tells how much that is so far."""
    if not sys.stderr.isatty():
        yield from pieces
        return
    total, told = 0, 0.0
    for piece in pieces:
        yield piece
        total += len(piece)
        if time.monotonic() > told + _TELL_S:
            told = time.monotonic()
            print(f"\r{human_size(total, 3)} {verb} ", end="", file=sys.stderr, flush=True)
    print(f"\r{human_size(total, 3)} {verb} ", file=sys.stderr)


def _warn(client: Client, name: str) -> None:
    """STDOUT may be the backup."""
    filters = {"volume": [name], "status": ["running"]}
    views = client.get("/containers/json", {"filters": filters})
    if views:
        names = ", ".join(view["Names"][0].lstrip("/") for view in views)
        print(
            f"WARNING: volume {name} is in use by {names}: the backup holds each file as it is at "
            "some moment; --pause makes it one moment of all files",
            file=sys.stderr,
        )
