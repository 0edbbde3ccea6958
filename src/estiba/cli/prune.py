"""The prune commands: ask, remove, say what was freed."""

from __future__ import annotations

from estiba.cli.output import confirm, filters_of, human_size
from estiba.cli.parse import Arguments, UsageError
from estiba.client.http import Client, version_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def containers(client: Client, given: Arguments) -> int:
    return _one(client, given, "containers", "This will remove all stopped containers.")


def networks(client: Client, given: Arguments) -> int:
    warning = "This will remove all custom networks not used by at least one container."
    return _one(client, given, "networks", warning, reclaims=False)


def volumes(client: Client, given: Arguments) -> int:
    if given.all:
        client.require("1.42", "--all")
        asked = (filters_of(given.filter, "--filter") or {}).get("all")
        if asked:
            raise UsageError(
                "conflicting options: cannot specify both --all and --filter "
                f"all={next(iter(asked))}"
            )
    # Before 1.42 volumes with a name went too.
    what = "all" if given.all or version_key(client.version) < (1, 42) else "anonymous"
    filters = {"all": {"true": True}} if given.all else {}
    warning = f"This will remove {what} local volumes not used by at least one container."
    return _one(client, given, "volumes", warning, filters)


def images(client: Client, given: Arguments) -> int:
    if given.lru or given.keep:
        return _least_recently_used(client, given)
    warning = "This will remove all dangling images."
    if given.all:
        warning = "This will remove all images without at least one container associated to them."
    return _one(client, given, "images", warning, _dangling(given))


def _least_recently_used(client: Client, given: Arguments) -> int:
    """Raises UsageError for half of what it needs."""
    if not given.lru or not given.keep:
        raise UsageError("--lru and --keep need each other: --lru --keep 10GB")
    if given.all:
        raise UsageError("conflicting options: cannot specify both --all and --lru")
    warning = (
        "This will remove the images used least recently, until those left take no more than "
        f"{given.keep}.\nImages that a container uses stay."
    )
    return _one(
        client, given, "images", warning, {"lru": {"true": True}, "keep": {given.keep: True}}
    )


def _dangling(given: Arguments) -> dict[str, dict[str, bool]]:
    return {"dangling": {"false" if given.all else "true": True}}


def _one(
    client: Client,
    given: Arguments,
    kind: str,
    warning: str,
    filters: dict[str, dict[str, bool]] | None = None,
    *,
    reclaims: bool = True,
) -> int:
    chosen = {**(filters_of(given.filter, "--filter") or {}), **(filters or {})}
    if not given.force and not confirm(warning):
        return 0
    freed = _prune(client, kind, chosen)
    if reclaims:
        print(f"Total reclaimed space: {human_size(freed)}")
    return 0


def _prune(client: Client, kind: str, filters: dict[str, dict[str, bool]]) -> int:
    """Prints what has gone; how many bytes that freed."""
    answer: dict[str, Any] = client.post(f"/{kind}/prune", {"filters": filters or None})
    removed = answer.get(f"{kind.capitalize()}Deleted") or []
    if removed:
        print(f"Deleted {kind.capitalize()}:")
        for entry in removed:
            if isinstance(entry, str):
                print(entry)
            else:
                for verb, what in entry.items():
                    print(f"{verb.lower()}: {what}")
        print()
    return int(answer.get("SpaceReclaimed") or 0)


def system(client: Client, given: Arguments) -> int:
    lines = [
        "  - all stopped containers",
        "  - all networks not used by at least one container",
        *(
            ["  - all anonymous volumes not used by at least one container"]
            if given.volumes
            else []
        ),
        "  - all images without at least one container associated to them"
        if given.all
        else "  - all dangling images",
        f"  - {'all' if given.all else 'unused'} build cache",
    ]
    filters = filters_of(given.filter, "--filter") or {}
    if given.volumes and "until" in filters:
        raise UsageError('ERROR: The "until" filter is not supported with "--volumes"')
    if not given.force and not confirm("\n".join(["This will remove:", *lines, ""])):
        return 0
    freed = _prune(client, "containers", filters)
    freed += _prune(client, "networks", filters)
    if given.volumes:
        freed += _prune(client, "volumes", filters)
    freed += _prune(client, "images", {**filters, **_dangling(given)})
    if not set(filters) - {"until"}:
        # Steps of a build have no labels.
        freed += _prune_cache(client, filters, everything=bool(given.all))
    print(f"Total reclaimed space: {human_size(freed)}")
    return 0


def _prune_cache(client: Client, filters: dict[str, dict[str, bool]], *, everything: bool) -> int:
    """Prints what has gone; how many bytes that freed."""
    from estiba.cli.builder import print_deleted

    query = {"all": everything, "filters": filters or None}
    answer: dict[str, Any] = client.post("/build/prune", query)
    print_deleted(answer.get("CachesDeleted") or [])
    return int(answer.get("SpaceReclaimed") or 0)
