"""Why the cache hit or missed, in one line for the user. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import SequenceMatcher

from estiba.build.keys import BASE
from estiba.build.record import CacheRecord, Facts

JOINED = "hit: another stage or build was doing the same"

_SHOWN = 3
_COMPARED = 50
_COMPARED_CHARS = 200
_LEAST_SIMILAR = 0.6


def decide_hit(record: CacheRecord, now_ns: int) -> str:
    return f"hit: nothing that counts has changed since {_ago(now_ns - record.created_ns)} ago"


def decide_miss(
    facts: Facts, parent: str, known: Iterable[CacheRecord], *, parent_was_built: bool
) -> str:
    """What sets the step apart from the most similar one that was ever done."""
    alike = [record for record in known if record.facts and record.facts.kind == facts.kind]
    same_text = [record for record in alike if record.facts and record.facts.text == facts.text]
    before = _newest(record for record in same_text if record.parent == parent)
    if before:
        nearest = min(before, key=lambda known: _distance(known, facts))
        return f"miss: {_difference(nearest, facts)}"
    if parent_was_built and same_text:
        return "miss: the step before it was built anew"
    was = _similar(facts, [record for record in alike if record.parent == parent])
    if was:
        return f"miss: the instruction changed: it was {_short(was)}"
    if same_text:
        below = "another base image" if parent.startswith(BASE) else "other steps"
        return f"miss: it was done before on {below} only"
    return "miss: no such step was built before, or its record was pruned"


def _similar(facts: Facts, records: Iterable[CacheRecord]) -> str:
    """Of instructions at the same place the one that this one may have been; "" for none.

    Dockerfiles that have nothing to do with each other stand on the same base images.
    """
    found, best = "", _LEAST_SIMILAR
    for known in _newest(records):
        if known.stage == facts.stage:
            pair = (known.text[:_COMPARED_CHARS], facts.text[:_COMPARED_CHARS])
            likeness = SequenceMatcher(None, *pair, autojunk=False).ratio()
            if likeness > best:
                found, best = known.text, likeness
    return found


def _distance(before: Facts, now: Facts) -> int:
    pairs = ((before.files, now.files), (before.args, now.args), (before.env, now.env))
    return sum(len(_changed(*pair)) for pair in (*pairs, (before.other, now.other)))


def _difference(before: Facts, now: Facts) -> str:
    told = []
    for what, old, new in (
        ("files", before.files, now.files),
        ("argument", before.args, now.args),
        ("variable", before.env, now.env),
    ):
        names = _changed(old, new)
        if names and ((old and new) or what != "files"):
            told.append(f"{what} changed: {_listed(names)}")
        elif names:
            told.append("files changed")  # of very many the names were not kept
    names = [name for name in _changed(before.other, now.other) if name != "inputs" or not told]
    if names:
        told.append(f"changed: {_listed(names)}")
    return "; ".join(told) or "its earlier result is gone, or the cache was not to be used then"


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def _listed(names: Collection[str]) -> str:
    shown = list(names)[:_SHOWN]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _newest(records: Iterable[CacheRecord]) -> list[Facts]:
    newest = sorted(records, key=lambda record: record.created_ns, reverse=True)[:_COMPARED]
    return [record.facts for record in newest if record.facts is not None]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."


def _ago(span_ns: int) -> str:
    seconds = max(0, span_ns // 10**9)
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {word}{'s' if count > 1 else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"
