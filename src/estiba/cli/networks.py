"""Networks and volumes: made and removed."""

from __future__ import annotations

from typing import Any

from estiba.cli.containers import confirm
from estiba.cli.output import filters_of, human_size
from estiba.cli.parse import Arguments
from estiba.cli.run import each
from estiba.cli.runflags import pairs
from estiba.client.http import Client


def create(client: Client, given: Arguments) -> int:
    pools: list[dict[str, Any]] = []
    for index, subnet in enumerate(given.subnet):
        pool = {"Subnet": subnet}
        if index < len(given.gateway):
            pool["Gateway"] = given.gateway[index]
        if index < len(given.ip_range):
            pool["IPRange"] = given.ip_range[index]
        pools.append(pool)
    body = {
        "Name": given.words[0],
        "Driver": given.driver or "bridge",
        "Internal": given.internal,
        "EnableIPv6": given.ipv6,
        "Attachable": given.attachable,
        "Options": pairs(given.opt, "--opt"),
        "Labels": _labels(given.label),
        "IPAM": {"Driver": "default", "Config": pools},
    }
    print(client.post("/networks/create", None, body)["Id"])
    return 0


def rm(client: Client, given: Arguments) -> int:
    return each(given.words, lambda name: client.delete(f"/networks/{name}"))


def create_volume(client: Client, given: Arguments) -> int:
    body = {
        "Name": given.words[0] if given.words else "",
        "Driver": given.driver or "local",
        "DriverOpts": pairs(given.opt, "--opt"),
        "Labels": _labels(given.label),
    }
    print(client.post("/volumes/create", None, body)["Name"])
    return 0


def rm_volumes(client: Client, given: Arguments) -> int:
    query = {"force": given.force}
    return each(given.words, lambda name: client.delete(f"/volumes/{name}", query))


def prune_networks(client: Client, given: Arguments) -> int:
    if not given.force and not confirm("This will remove all networks without a container."):
        return 1
    answer = client.post("/networks/prune", {"filters": filters_of(given.filter)})
    removed = answer.get("NetworksDeleted") or []
    if removed:
        print("Deleted Networks:", *removed, sep="\n")
    return 0


def prune_volumes(client: Client, given: Arguments) -> int:
    if not given.force and not confirm("This will remove volumes without a container."):
        return 1
    filters = filters_of(given.filter) or {}
    if given.all:
        filters["all"] = {"true": True}
    answer = client.post("/volumes/prune", {"filters": filters or None})
    removed = answer.get("VolumesDeleted") or []
    if removed:
        print("Deleted Volumes:", *removed, sep="\n")
    print(f"Total reclaimed space: {human_size(answer['SpaceReclaimed'])}")
    return 0


def _labels(texts: list[str]) -> dict[str, str]:
    return {key: value for key, _, value in (text.partition("=") for text in texts)}
