"""Which records of the cache go: by filters, or the least recently used over a budget. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from estiba.build.record import CacheRecord
from estiba.model.digest import Digest
from estiba.model.errors import InvalidArgument
from estiba.model.times import parse_moment

FILTERS = ("until", "unused-for", "id", "parent", "type", "description", "inuse", "shared",
           "private", "mutable", "immutable")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """Sizes in bytes, None: no budget. `everything`: also what images share."""

    everything: bool = False
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    reserved_bytes: int | None = None
    max_used_bytes: int | None = None
    min_free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What decides besides the records themselves. `shared` are layers that images stand on."""

    in_use: Collection[str]
    shared: Collection[Digest]
    free_bytes: int
    now_ns: int


def decide_prune(
    records: Sequence[CacheRecord], options: PruneOptions, usage: Usage
) -> list[CacheRecord]:
    """Those that go, oldest use first. Raises InvalidArgument for a filter that is none."""
    unknown = [name for name in options.filters if name not in FILTERS]
    if unknown:
        raise InvalidArgument(f"invalid filter {unknown[0][:32]!r}: one of {', '.join(FILTERS)}")
    chosen = [
        record
        for record in records
        if record.id not in usage.in_use
        and (options.everything or record.layer not in usage.shared)
        and _matches(record, options.filters, usage)
    ]
    # A step is used whenever one above it is: of equal age the younger goes first.
    chosen.sort(key=lambda record: (record.last_used_ns, -record.created_ns))
    return _over_budget(chosen, sum(record.size_bytes for record in records), options, usage)


def _over_budget(
    chosen: list[CacheRecord], total: int, options: PruneOptions, usage: Usage
) -> list[CacheRecord]:
    limits = (options.reserved_bytes, options.max_used_bytes, options.min_free_bytes)
    if not any(limits):
        return chosen
    going, free = [], usage.free_bytes
    for record in chosen:
        is_over = options.max_used_bytes is not None and total > options.max_used_bytes
        is_low = options.min_free_bytes is not None and free < options.min_free_bytes
        if options.max_used_bytes is None and options.min_free_bytes is None:
            is_over = total > (options.reserved_bytes or 0)
        if not (is_over or is_low) or total <= (options.reserved_bytes or 0):
            break
        going.append(record)
        total -= record.size_bytes
        free += record.size_bytes
    return going


def unreachable(records: Sequence[CacheRecord], in_use: Collection[str]) -> list[CacheRecord]:
    """Records whose parent is gone: their key can never be asked for again."""
    kept = {record.id: record for record in records}
    gone: list[CacheRecord] = []
    while True:
        orphans = [
            record
            for record in kept.values()
            if record.parent and not record.parent.startswith("base:")
            and record.parent not in kept and record.id not in in_use
            and record.facts is not None
        ]  # fmt: skip
        if not orphans:
            return gone
        for record in orphans:
            del kept[record.id]
        gone += orphans


def _matches(record: CacheRecord, filters: Mapping[str, Sequence[str]], usage: Usage) -> bool:
    for name, values in filters.items():
        if name in ("until", "unused-for"):
            limits = [parse_moment(value, now_ns=usage.now_ns, name=name) for value in values]
            if record.last_used_ns >= min(limits, default=usage.now_ns):
                return False
        elif not _has(record, name, values, usage):
            return False
    return True


def _has(record: CacheRecord, name: str, values: Sequence[str], usage: Usage) -> bool:
    match name:
        case "id":
            return any(record.id.startswith(value) for value in values if value)
        case "parent":
            return any(record.parent.startswith(value) for value in values if value)
        case "type":
            return record.type in values
        case "description":
            return any(value in record.description for value in values)
        case "inuse":
            return record.id in usage.in_use
        case "shared":
            return record.layer in usage.shared
        case "private":
            return record.layer not in usage.shared
        case "mutable":
            return record.type == "exec.cachemount"
        case _:
            return record.type != "exec.cachemount"
