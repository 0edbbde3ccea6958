"""Takes away everything that an engine's firewall has left on the host, and nothing else."""

from __future__ import annotations

import contextlib
from pathlib import Path

from estiba.kernel.nfrules import RuleSocket
from estiba.kernel.nft import Nft
from estiba.model.errors import NotFound
from estiba.network.firewall import standin
from estiba.network.firewall.coexist import Admission
from estiba.network.firewall.present import read

_FAMILIES = ("inet", "bridge")


def remove(nft: Nft, table: str) -> None:
    """Tables, rules in the chains of a Docker Engine, the stand-in's route, and what was set for
    the bridges. Done twice it does nothing; the engine must not run, or it heals itself.
    """
    present = read(nft, "inet", table)
    bridges = present.sets.get("bridges", ("", frozenset()))[1] if present else frozenset()
    with RuleSocket() as rules:
        Admission(nft, rules, table).ensure(())
    for family in _FAMILIES:
        name = f"{family} {table}"
        nft.run(f"add table {name}\ndelete table {name}")
    for bridge in bridges:
        with contextlib.suppress(FileNotFoundError):
            Path(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet").write_text("0")
    if not _has_other_engine(nft):
        standin.delete_route()


def _has_other_engine(nft: Nft) -> bool:
    try:
        tables = nft.list_json("list tables inet")
    except NotFound:
        return False
    return any(entry["table"]["name"].startswith("estiba_") for entry in tables)
