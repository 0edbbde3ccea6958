"""image ls --tree: images, and below each the platforms that it has."""

from __future__ import annotations

from estiba.cli.output import align, filters_of, human_size, short_id
from estiba.cli.parse import Arguments, UsageError
from estiba.client.http import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TITLES = ("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "USED")


def tree(client: Client, given: Arguments) -> int:
    for flag in ("no_trunc", "quiet", "digests", "format"):
        if given.get(flag):
            name = flag.replace("_", "-")
            raise UsageError(f"conflicting options: --{name} is not yet supported with --tree")
    client.require("1.47", "--tree")
    filters = filters_of(given.filter) or {}
    if given.words:
        filters.setdefault("reference", {})[given.words[0]] = True
    query = {"all": given.all, "filters": filters or None, "manifests": True}
    views = client.get("/images/json", query)
    lines: list[tuple[str, ...]] = [_TITLES]
    for view in sorted(views, key=lambda view: -int(view["Created"])):
        lines += _image_lines(view)
    align(lines)
    return 0


def _image_lines(view: dict[str, Any]) -> list[tuple[str, ...]]:
    children = [entry for entry in view.get("Manifests") or [] if entry.get("Kind") == "image"]
    used = view.get("Containers", 0) > 0 or any(_containers(entry) for entry in children)
    content = sum(entry["Size"]["Content"] for entry in children)
    names = view.get("RepoTags") or ["<untagged>"]
    lines: list[tuple[str, ...]] = [(name, "", "", "", "") for name in names[:-1]]
    shown = human_size(content, 3) if children else ""
    size = human_size(view["Size"], 3)
    lines.append((names[-1], short_id(view["Id"]), size, shown, _mark(used)))
    for index, entry in enumerate(children):
        branch = "├─" if index < len(children) - 1 else "└─"
        missing = "" if entry.get("Available") else " (not here)"
        lines.append((
            f"{branch} {_platform(entry)}{missing}",
            short_id(entry["ID"]),
            human_size(entry["Size"]["Total"], 3),
            human_size(entry["Size"]["Content"], 3),
            _mark(bool(_containers(entry))),
        ))  # fmt: skip
    return lines


def _containers(entry: dict[str, Any]) -> list[str]:
    return (entry.get("ImageData") or {}).get("Containers") or []


def _platform(entry: dict[str, Any]) -> str:
    view = (entry.get("ImageData") or {}).get("Platform") or {}
    words = [view.get("os"), view.get("architecture"), view.get("variant")]
    return "/".join(word for word in words if word)


def _mark(used: bool) -> str:
    return "✔" if used else ""
