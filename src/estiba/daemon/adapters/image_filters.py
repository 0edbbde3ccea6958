"""Filters of images, as `docker image ls` and `prune` have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from estiba.daemon.adapters.container_filters import matches_label, parse_until
from estiba.images.images import Images
from estiba.images.record import ImageRecord
from estiba.model.errors import InvalidArgument

Filters = Mapping[str, list[str]]
_KNOWN = {"dangling", "label", "label!", "before", "since", "reference", "until"}
_TRUE, _FALSE = ("true", "1"), ("false", "0")


def filtered(images: Images, records: list[ImageRecord], filters: Filters) -> list[ImageRecord]:
    """Those of `records` that every filter lets pass. Raises InvalidArgument, NotFound."""
    check_known(filters, _KNOWN)
    for value in filters.get("before", []):
        edge = images.resolve(value).created_ns
        records = [record for record in records if record.created_ns < edge]
    for value in filters.get("since", []):
        edge = images.resolve(value).created_ns
        records = [record for record in records if record.created_ns > edge]
    for value in filters.get("until", []):
        limit = parse_until(value)
        records = [record for record in records if record.created_ns < limit]
    if "dangling" in filters:
        for value in filters["dangling"]:
            wanted = parse_bool("dangling", value)
            records = [record for record in records if wanted is not bool(record.repo_tags)]
    for value in filters.get("label", []):
        records = [r for r in records if matches_label(r.labels, value)]
    for value in filters.get("label!", []):
        records = [r for r in records if not matches_label(r.labels, value)]
    patterns = filters.get("reference", [])
    if patterns:
        records = [kept for record in records if (kept := _matching(record, patterns))]
    return records


def found_filter(filters: Filters) -> Callable[[Mapping[str, Any]], bool]:
    """Which images that a search has found are wanted. Raises InvalidArgument."""
    check_known(filters, {"stars", "is-official", "is-automated"})
    stars = [_stars(value) for value in filters.get("stars", [])]
    flags = [
        (name.replace("-", "_"), parse_bool(name, value))
        for name in ("is-official", "is-automated")
        for value in filters.get(name, [])
    ]

    def is_wanted(found: Mapping[str, Any]) -> bool:
        return found["star_count"] >= max(stars, default=0) and all(
            found[name] is wanted for name, wanted in flags
        )

    return is_wanted


def _stars(value: str) -> int:
    if not value.isdecimal() or len(value) > 18:
        raise InvalidArgument(f"invalid filter 'stars={value[:32]}'")
    return int(value)


def check_known(filters: Filters, known: set[str]) -> None:
    """Raises InvalidArgument."""
    unknown = set(filters) - known
    if unknown:
        raise InvalidArgument(f"invalid filter '{min(unknown)}'")


def parse_bool(name: str, value: str) -> bool:
    """Raises InvalidArgument."""
    if value.lower() not in (*_TRUE, *_FALSE):
        raise InvalidArgument(f"invalid filter '{name}={value[:32]}'")
    return value.lower() in _TRUE


def _matching(record: ImageRecord, patterns: list[str]) -> ImageRecord | None:
    """The record with only the tags that match; None when none does."""
    kept = [tag for tag in record.repo_tags if any(_matches(tag, p) for p in patterns)]
    return msgspec.structs.replace(record, repo_tags=kept) if kept else None


def _matches(tag: str, pattern: str) -> bool:
    """As Go's path.Match, where `*` and `?` stop at a slash."""
    name = tag.rpartition(":")[0]
    wanted = pattern.split("/")
    return any(
        len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
        for parts in (tag.split("/"), name.split("/"))
    )
