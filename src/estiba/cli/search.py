"""search: what a registry offers."""

from __future__ import annotations

import sys

from estiba.cli.output import filters_of, print_rows, shorten, shown_on
from estiba.cli.parse import Arguments
from estiba.client.credentials import header
from estiba.client.http import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = (
    ("NAME", "Name"),
    ("DESCRIPTION", "Description"),
    ("STARS", "StarCount"),
    ("OFFICIAL", "IsOfficial"),
)


def search(client: Client, given: Arguments) -> int:
    term = given.words[0]
    query = {"term": term, "limit": given.limit or None, "filters": filters_of(given.filter)}
    found = client.call("GET", "/images/search", query, headers=header(_registry(term))).json()
    rows = [_row(view, given) for view in found or []]
    print_rows(rows, _COLUMNS, given.format)
    return 0


def _registry(term: str) -> str:
    """The host before the first slash, if it is one."""
    first, slash, _ = term.partition("/")
    is_host = "." in first or ":" in first or first == "localhost"
    return first if slash and is_host else ""


def _row(view: dict[str, Any], given: Arguments) -> dict[str, Any]:
    text = str(view.get("description") or "").replace("\n", " ").replace("\r", " ")
    text = shown_on(sys.stdout, text)
    official = bool(view.get("is_official"))
    as_json = given.format == "json" or "json ." in given.format
    return {
        "Name": shown_on(sys.stdout, str(view.get("name", ""))),
        "Description": text if given.no_trunc else shorten(text, 45),
        "StarCount": str(view.get("star_count", 0)),
        "IsOfficial": str(official).lower() if as_json else "[OK]" if official else "",
    }
