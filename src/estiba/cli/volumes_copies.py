"""Volumes: copied, kept as they were, given other names."""

from __future__ import annotations

import sys

from estiba.cli.output import human_size, labels_of, print_rows
from estiba.cli.parse import Arguments
from estiba.client.http import Client, part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SNAPSHOTS = (("TAG", "Tag"), ("CREATED", "CreatedAt"), ("SIZE", "Size"))


def clone(client: Client, given: Arguments) -> int:
    name, new = given.words
    query = {"name": new, "pause": given.pause, **made_with(given)}
    print(_warned(client.post(f"/volumes/{part(name)}/clone", query))["Name"])
    return 0


def rename(client: Client, given: Arguments) -> int:
    name, new = given.words
    client.post(f"/volumes/{part(name)}/rename", {"name": new})
    return 0


def resize(client: Client, given: Arguments) -> int:
    name, size = given.words
    client.post(f"/volumes/{part(name)}/resize", {"size": size})
    return 0


def snapshot(client: Client, given: Arguments) -> int:
    name, *tag = given.words
    query = {"tag": tag[0] if tag else None, "pause": given.pause}
    print(_warned(client.post(f"/volumes/{part(name)}/snapshots", query))["Tag"])
    return 0


def snapshots(client: Client, given: Arguments) -> int:
    views = client.get(f"/volumes/{part(given.words[0])}/snapshots")
    rows = [{**view, "Size": human_size(view["Size"], 3)} for view in views]
    print_rows(rows, _SNAPSHOTS, given.format, quiet_key="Tag" if given.quiet else "")
    return 0


def rollback(client: Client, given: Arguments) -> int:
    name, tag = given.words
    client.post(f"/volumes/{part(name)}/snapshots/{part(tag)}/restore")
    return 0


def remove_snapshots(client: Client, given: Arguments) -> int:
    from estiba.cli.output import each

    name, *tags = given.words
    path = f"/volumes/{part(name)}/snapshots"
    return each(tags, lambda tag: client.delete(f"{path}/{part(tag)}"))


def made_with(given: Arguments) -> dict[str, Any]:
    """The query's options and labels of a volume that is made of another."""
    options = labels_of(given.opt)
    if given.plain_options:
        return {"options": {}, "labels": labels_of(given.label)}
    return {"options": options or None, "labels": labels_of(given.label) or None}


def _warned(view: dict[str, Any]) -> dict[str, Any]:
    for warning in view.get("Warnings") or []:
        print(f"WARNING: {warning}", file=sys.stderr)
    return view
