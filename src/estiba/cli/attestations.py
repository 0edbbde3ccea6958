"""image attestations: what is stated of an image, as a table or as it is stated."""

from __future__ import annotations

import json
from typing import Any

from estiba.cli.output import human_size, print_rows, shorten
from estiba.cli.parse import Arguments
from estiba.cli.refs import platform
from estiba.client.http import Client, image_part

_SHORT = {"spdx": "https://spdx.dev/Document", "slsa": "https://slsa.dev/provenance/v1"}
_COLUMNS = (("PREDICATE TYPE", "PredicateType"), ("DIGEST", "Digest"), ("SIZE", "Size"))


def attestations(client: Client, given: Arguments) -> int:
    """With --type each statement on a line of its own."""
    query: dict[str, Any] = {}
    if given.platform:
        query["platform"] = platform(given.platform)
    if given.type:
        query |= {"type": [_SHORT.get(one, one) for one in given.type], "statement": True}
    found = client.get(f"/images/{image_part(given.words[0])}/attestations", query)
    if given.type:
        for one in found:
            print(json.dumps(one["Statement"], separators=(",", ":")))
        return 0
    rows = [
        {
            "PredicateType": one["PredicateType"],
            "Digest": _digest(one["Descriptor"]["digest"], given),
            "Size": human_size(one["Descriptor"]["size"], 3),
        }
        for one in found
    ]
    print_rows(rows, _COLUMNS, given.format, quiet_key="Digest" if given.quiet else "")
    return 0


def _digest(digest: str, given: Arguments) -> str:
    return digest if given.no_trunc else shorten(digest, 19)
