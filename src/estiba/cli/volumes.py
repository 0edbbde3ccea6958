"""Volumes: made and removed."""

from __future__ import annotations

import sys

from estiba.cli.output import each, labels_of
from estiba.cli.parse import Arguments, UsageError
from estiba.client.http import Client, part


def create(client: Client, given: Arguments) -> int:
    body = {
        "Name": given.words[0] if given.words else "",
        "Driver": given.driver or "local",
        "DriverOpts": labels_of(given.opt),
        "Labels": labels_of(given.label),
    }
    view = client.post("/volumes/create", None, body)
    print(view["Name"])
    key = (view.get("Status") or {}).get("Key", "")
    if key and not {"key", "key-file"} & labels_of(given.opt).keys():
        print(f"The key is in {key}: keep a copy elsewhere.", file=sys.stderr)
    return 0


def update(client: Client, given: Arguments) -> int:
    view = client.get(f"/volumes/{part(given.words[0])}")
    if not view.get("ClusterVolume"):
        raise UsageError("can only update cluster volumes")
    raise UsageError("estiba volume update: volumes of a cluster are to come")


def rm(client: Client, given: Arguments) -> int:
    query = {"force": given.force}
    return each(given.words, lambda name: client.delete(f"/volumes/{part(name)}", query))
