"""system df: what takes the disk's space."""

from __future__ import annotations

from estiba.cli.lists import container_row, image_rows, volume_row
from estiba.cli.output import go_time, human_size, print_rows
from estiba.cli.parse import Arguments
from estiba.client.http import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = (
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
)
_UP = ("running", "paused", "restarting")


def df(client: Client, given: Arguments) -> int:
    view = client.get("/system/df")
    if given.verbose and given.format:
        _print_formatted(view, given.format)
    elif given.verbose:
        _print_details(view)
    else:
        rows = [_images(view), _containers(view), _volumes(view), _cache(view)]
        print_rows(rows, _COLUMNS, given.format)
    return 0


def _row(kind: str, total: int, active: int, size: int, reclaimable: int) -> dict[str, Any]:
    share = f" ({100 * reclaimable // size}%)" if size > 0 and kind != "Build Cache" else ""
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": human_size(size),
        "Reclaimable": f"{human_size(reclaimable)}{share}",
    }


def _images(view: dict[str, Any]) -> dict[str, Any]:
    images = view.get("Images") or []
    used = 0
    for image in images:
        if image["Containers"] > 0 and image["Size"] >= 0:
            used += image["Size"] - max(image.get("SharedSize", 0), 0)
    size = view.get("LayersSize", 0)
    active = sum(image["Containers"] > 0 for image in images)
    return _row("Images", len(images), active, size, max(size - used, 0))


def _containers(view: dict[str, Any]) -> dict[str, Any]:
    containers = view.get("Containers") or []
    up = [container for container in containers if container["State"] in _UP]
    size = sum(container.get("SizeRw", 0) for container in containers)
    used = sum(container.get("SizeRw", 0) for container in up)
    return _row("Containers", len(containers), len(up), size, size - used)


def _volumes(view: dict[str, Any]) -> dict[str, Any]:
    usages = [volume.get("UsageData") or {} for volume in view.get("Volumes") or []]
    size = sum(max(usage.get("Size", 0), 0) for usage in usages)
    unused = sum(max(u.get("Size", 0), 0) for u in usages if not u.get("RefCount"))
    active = sum(usage.get("RefCount", 0) > 0 for usage in usages)
    return _row("Local Volumes", len(usages), active, size, unused)


def _cache(view: dict[str, Any]) -> dict[str, Any]:
    entries = view.get("BuildCache") or []
    size = sum(entry["Size"] for entry in entries)
    unused = sum(entry["Size"] for entry in entries if not entry["InUse"])
    active = sum(bool(entry["InUse"]) for entry in entries)
    return _row("Build Cache", len(entries), active, size, unused)


def _print_formatted(view: dict[str, Any], form: str) -> None:
    """One object with a list a kind, as docker's template sees it."""
    from estiba.cli.output import escapes
    from estiba.cli.template import compile_template
    from estiba.cli.templatevalue import Row

    images = view.get("Images") or []
    found: dict[str, Any] = {
        "Images": [
            {**image_rows(image, full=True, digests=False)[0],
             "Digest": "", "Containers": str(image["Containers"])}
            for image in images
        ],
        "Containers": [container_row(entry, full=True) for entry in view.get("Containers") or []],
        "Volumes": [volume_row(entry) for entry in view.get("Volumes") or []],
        "BuildCache": [_cache_row(entry) for entry in view.get("BuildCache") or []],
    }  # fmt: skip
    for row in found["Containers"]:
        row["Size"] = row["Size"].partition(" ")[0]
    rows = {kind: [Row(row) for row in listed] for kind, listed in found.items()}
    text = "{{json .}}" if form == "json" else escapes(form)
    print(compile_template(text, rows=True)(rows))


def _print_details(view: dict[str, Any]) -> None:
    print("Images space usage:\n")
    rows = []
    for image in view.get("Images") or []:
        first = image_rows(image, full=False, digests=False)[0]
        rows.append({**first, "Containers": str(image["Containers"])})
    _table(rows, "REPOSITORY TAG IMAGE_ID CREATED SIZE SHARED_SIZE UNIQUE_SIZE CONTAINERS",
           "Repository Tag ID CreatedSince Size SharedSize UniqueSize Containers")  # fmt: skip
    print("\nContainers space usage:\n")
    containers = [container_row(entry, full=False) for entry in view.get("Containers") or []]
    for row in containers:
        row["Size"] = row["Size"].partition(" ")[0]
    _table(containers, "CONTAINER_ID IMAGE COMMAND LOCAL_VOLUMES SIZE CREATED STATUS NAMES",
           "ID Image Command LocalVolumes Size RunningFor Status Names")  # fmt: skip
    print("\nLocal Volumes space usage:\n")
    volumes = [volume_row(entry) for entry in view.get("Volumes") or []]
    _table(volumes, "VOLUME_NAME LINKS SIZE", "Name Links Size")
    entries = view.get("BuildCache") or []
    print(f"\nBuild cache usage: {human_size(sum(entry['Size'] for entry in entries))}\n")
    cache = [_cache_row(entry) for entry in entries]
    _table(cache, "CACHE_ID CACHE_TYPE SIZE CREATED LAST_USED USAGE SHARED",
           "ID CacheType Size Created LastUsed Usage Shared")  # fmt: skip


def _cache_row(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "ID": entry["ID"][:12],
        "CacheType": entry["Type"],
        "Size": human_size(entry["Size"]),
        "Created": go_time(entry["CreatedAt"]),
        "LastUsed": go_time(entry["LastUsedAt"]) if entry.get("LastUsedAt") else "",
        "Usage": str(entry.get("UsageCount", 0)),
        "Shared": str(bool(entry.get("Shared"))).lower(),
    }


def _table(rows: list[dict[str, Any]], titles: str, keys: str) -> None:
    heads = [title.replace("_", " ") for title in titles.split()]
    print_rows(rows, list(zip(heads, keys.split(), strict=True)), "")
