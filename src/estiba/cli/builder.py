"""`estiba builder du` and `prune`: what the build cache holds, and less of it."""

from __future__ import annotations

import time

from estiba.cli.output import (
    confirm,
    filters_of,
    go_time,
    human_duration,
    human_size,
    print_rows,
)
from estiba.cli.parse import Arguments, FlagError
from estiba.cli.quantities import duration_ns
from estiba.client.http import Client, version_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Wanted = Callable[[dict[str, Any]], bool]

_COLUMNS = (
    ("ID", "ID"),
    ("RECLAIMABLE", "Reclaimable"),
    ("SIZE", "Size"),
    ("LAST ACCESSED", "LastAccessed"),
)
_SHORT = 12
_SPACES = "1.48"
"""The API version that knows how much is to be kept by more than one word."""
_TRUTHS: dict[str, Wanted] = {
    "inuse": lambda entry: bool(entry.get("InUse")),
    "shared": lambda entry: bool(entry.get("Shared")),
    "private": lambda entry: not entry.get("Shared"),
    "mutable": lambda entry: entry.get("Type") == "exec.cachemount",
    "immutable": lambda entry: entry.get("Type") != "exec.cachemount",
}
_WORDS = {
    **dict.fromkeys(("", "1", "t", "true"), True),
    **dict.fromkeys(("0", "f", "false"), False),
}
_TEXTS = {"id": "ID", "type": "Type", "description": "Description"}


# -- prune ---------------------------------------------------------------------------------


def prune(client: Client, given: Arguments) -> int:
    filters = filters_of(_valued(given.filter), "--filter")
    what = "all build cache" if given.all else "all dangling build cache"
    if not given.force and not confirm(f"This will remove {what}.", gap=" "):
        return 0
    query: dict[str, Any] = {
        "all": bool(given.all),
        "filters": filters,
        "max-used-space": given.max_used_space,
        "min-free-space": given.min_free_space,
    }
    if given.max_used_space or given.min_free_space or given.reserved_space:
        client.require(_SPACES, "--max-used-space, --min-free-space and --reserved-space")
    kept = given.reserved_space or given.keep_storage
    is_newer = version_key(client.version) >= version_key(_SPACES)
    query["reserved-space" if is_newer else "keep-storage"] = kept
    before = _entries(client) if given.verbose else []
    answer: dict[str, Any] = client.post("/build/prune", query)
    deleted = set(answer.get("CachesDeleted") or [])
    if given.verbose:
        _print_details([entry for entry in before if entry["ID"] in deleted])
    else:
        print_deleted(answer.get("CachesDeleted") or [])
    print(f"Total reclaimed space: {human_size(int(answer.get('SpaceReclaimed') or 0))}")
    return 0


def print_deleted(names: list[str]) -> None:
    if names:
        print("Deleted build cache objects:")
        for name in names:
            print(name)
        print()


def _valued(words: list[str]) -> list[str]:
    """`shared` alone is `shared=true`."""
    return [f"{word}=true" if word in _TRUTHS else word for word in words]


# -- du ------------------------------------------------------------------------------------


def usage(client: Client, given: Arguments) -> int:
    wanted = [_filter(word) for word in given.filter]
    entries = [entry for entry in _entries(client) if all(test(entry) for test in wanted)]
    if given.verbose and not given.format:
        _print_details(entries)
    else:
        rows = [_row(entry) for entry in entries]
        if given.format in ("", "table"):
            rows = [{**row, "ID": row["ID"][:_SHORT]} for row in rows]
        print_rows(rows, _COLUMNS, given.format)
        if given.format not in ("", "table"):
            return 0
    _print_sums(entries)
    return 0


def _entries(client: Client) -> list[dict[str, Any]]:
    """Those used last come first."""
    view = client.get("/system/df", {"type": "build-cache"})
    entries: list[dict[str, Any]] = view.get("BuildCache") or []
    return sorted(entries, key=lambda entry: entry.get("LastUsedAt") or "", reverse=True)


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "ID": entry["ID"],
        "Parents": entry.get("Parents") or [],
        "Type": entry.get("Type", ""),
        "Description": entry.get("Description", ""),
        "Reclaimable": str(not entry.get("InUse")).lower(),
        "Shared": str(bool(entry.get("Shared"))).lower(),
        "Size": human_size(entry.get("Size") or 0) + ("*" if entry.get("Shared") else ""),
        "CreatedAt": go_time(entry["CreatedAt"]) if entry.get("CreatedAt") else "",
        "LastAccessed": _ago(entry.get("LastUsedAt")),
        "UsageCount": str(entry.get("UsageCount") or 0),
    }


def _ago(text: str | None) -> str:
    moment = _unix_time(text)
    return f"{human_duration(max(time.time() - moment, 0))} ago" if moment else ""


def _unix_time(text: str | None) -> float:
    """Of RFC 3339, with more digits than Python reads; 0 for never."""
    if not text or text.startswith("0001-"):
        return 0.0
    from datetime import datetime

    head, _, tail = text.partition(".")
    zone = tail.lstrip("0123456789") if tail else ""
    return datetime.fromisoformat(f"{head}{zone}".replace("Z", "+00:00")).timestamp()


def _print_details(entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        row = _row(entry)
        lines = [
            ("ID", row["ID"]),
            ("Parent", ",".join(row["Parents"])),
            ("Created at", row["CreatedAt"]),
            ("Reclaimable", row["Reclaimable"]),
            ("Shared", row["Shared"]),
            ("Size", row["Size"]),
            ("Description", row["Description"]),
            ("Usage count", row["UsageCount"]),
            ("Last used", row["LastAccessed"]),
            ("Type", row["Type"]),
        ]
        for name, value in lines:
            if value:
                print(f"{name + ':':<13} {value}")
        print()


def _print_sums(entries: list[dict[str, Any]]) -> None:
    sums = {"Shared": 0, "Private": 0, "Reclaimable": 0, "Total": 0}
    for entry in entries:
        size = int(entry.get("Size") or 0)
        sums["Total"] += size
        sums["Shared" if entry.get("Shared") else "Private"] += size
        sums["Reclaimable"] += 0 if entry.get("InUse") else size
    for name, size in sums.items():
        if sums["Shared"] or name in ("Reclaimable", "Total"):
            print(f"{name + ':':<13} {human_size(size)}")


def _filter(word: str) -> Wanted:
    """One `--filter` of du. Raises FlagError."""
    key, equals, value = word.partition("=")
    contains = key.endswith("~")
    key = key.rstrip("~")
    if equals and key in _TEXTS:
        name = _TEXTS[key]
        if contains:
            return lambda entry: value in str(entry.get(name) or "")
        if key == "id":
            return lambda entry: str(entry.get(name)).startswith(value)
        return lambda entry: str(entry.get(name) or "") == value
    if key in _TRUTHS and not contains and value.lower() in _WORDS:
        is_wanted = _WORDS[value.lower()]
        return lambda entry: _TRUTHS[key](entry) == is_wanted
    if equals and key in ("until", "unused-for"):
        try:
            limit = time.time() - duration_ns(value) / 1e9
        except ValueError as error:
            raise FlagError(f'invalid argument "{word}" for "--filter" flag: {error}') from None
        return lambda entry: 0 < _unix_time(entry.get("LastUsedAt")) < limit
    raise FlagError(
        f'invalid argument "{word}" for "--filter" flag: id=, type=, description=, '
        f"description~=, until=, {', '.join(_TRUTHS)}"
    )
