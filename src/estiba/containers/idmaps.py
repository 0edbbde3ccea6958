"""How a mount's owners are mapped: what users may write, and what it means. Pure.

    idmap                               the owner of the mounted directory is the container's
                                        user, and the other way round; all others are themselves
    idmap=uids=0-1000-1#…;gids=0-1000-1 ranges, as crun knows them: first id in the file system,
                                        first id that the container sees, length

Without `gids` the ranges of `uids` are those of groups too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from estiba.kernel.idmap import MAX_ID, MAX_RANGES, IdMap, IdRange
from estiba.model.errors import InvalidArgument

OWNER = ""
"""The form without ranges."""

ANNOTATION = "estiba.idmap"
"""Of a container: `DESTINATION[=RANGES]`, several with commas between them."""


def parse_idmap(text: str) -> IdMap | None:
    """None for `OWNER`. Raises InvalidArgument."""
    if text == OWNER:
        return None
    given: dict[str, tuple[IdRange, ...]] = {}
    for part in text.split(";"):
        kind, equals, ranges = part.partition("=")
        if kind not in ("uids", "gids") or not equals or kind in given:
            raise InvalidArgument(
                f"invalid idmap {text[:128]!r}: use uids=STORED-SHOWN-LENGTH#…;gids=…"
            )
        given[kind] = tuple(_range(word, text) for word in ranges.split("#"))
        _check_disjoint(given[kind], text)
    uids = given.get("uids") or given["gids"]
    return IdMap(uids, given.get("gids") or uids)


def _range(word: str, text: str) -> IdRange:
    numbers = word.split("-")
    if len(numbers) != 3 or not all(n.isdecimal() and len(n) <= 10 for n in numbers):
        raise InvalidArgument(
            f"invalid idmap {text[:128]!r}: {word[:64]!r} is not STORED-SHOWN-LENGTH"
        )
    stored, shown, length = map(int, numbers)
    if not length or max(stored, shown) + length - 1 > MAX_ID:
        raise InvalidArgument(f"invalid idmap {text[:128]!r}: ids go from 0 to {MAX_ID}")
    return IdRange(stored, shown, length)


def _check_disjoint(ranges: tuple[IdRange, ...], text: str) -> None:
    if len(ranges) > MAX_RANGES:
        raise InvalidArgument(f"invalid idmap: over {MAX_RANGES} ranges")
    for side in ("stored", "shown"):
        spans = sorted((getattr(each, side), each.length) for each in ranges)
        for (first, length), (following, _) in pairwise(spans):
            if first + length > following:
                raise InvalidArgument(f"invalid idmap {text[:128]!r}: ranges overlap")


def parse_annotation(annotations: Mapping[str, str]) -> dict[str, str]:
    """By destination the map that the annotation asks for. Raises InvalidArgument."""
    found: dict[str, str] = {}
    for entry in _entries(annotations.get(ANNOTATION, "")):
        destination, _, ranges = entry.partition("=")
        parse_idmap(ranges)
        found["/" + destination.strip("/")] = ranges
    return found


def _entries(text: str) -> Iterable[str]:
    return filter(None, (entry.strip() for entry in text.split(",")))
