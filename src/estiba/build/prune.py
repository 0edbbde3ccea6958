"""Which records of the cache go: by filters, or the least recently used over a budget. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from estiba.build.keys import is_step
from estiba.build.record import CacheRecord
from estiba.model.digest import Digest
from estiba.model.errors import InvalidArgument
from estiba.model.times import parse_moment

_MOMENTS = ("until", "unused-for")
_TRUTHS = ("inuse", "shared", "private", "mutable", "immutable")
FILTERS = (*_MOMENTS, "id", "parent", "type", "description", *_TRUTHS)


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
    _check(options.filters, usage.now_ns)
    chosen = [
        record
        for record in records
        if record.id not in usage.in_use
        and (options.everything or record.layer not in usage.shared)
        and _matches(record, options.filters, usage)
    ]
    # A step is used whenever one above it is: of equal age the younger goes first.
    chosen.sort(key=lambda record: (record.last_used_ns, -record.created_ns))
    return _over_budget(chosen, Sizes(records, usage.shared), options, usage)


def _check(filters: Mapping[str, Sequence[str]], now_ns: int) -> None:
    """Also when there is no record that they could be asked of."""
    for name, values in filters.items():
        if name not in FILTERS:
            raise InvalidArgument(f"invalid filter {name[:32]!r}: one of {', '.join(FILTERS)}")
        for value in values:
            if name in _MOMENTS:
                parse_moment(value, now_ns=now_ns, name=name)
            elif name in _TRUTHS:
                _truth(name, value)


class Sizes:
    """What records take of the disk: a layer once, however many name it, and not at all when an
    image stands on it."""

    def __init__(self, records: Iterable[CacheRecord], shared: Collection[Digest]) -> None:
        self._shared = shared
        self._named = Counter(record.layer for record in records if record.layer)
        seen: set[Digest] = set()
        self.total_bytes = 0
        for record in records:
            if record.layer not in seen and record.layer not in shared:
                self.total_bytes += record.size_bytes
                seen |= {record.layer} if record.layer else set()

    def take(self, record: CacheRecord) -> int:
        """The bytes that are free once this record is gone too."""
        freed = record.size_bytes
        if record.layer:
            self._named[record.layer] -= 1
            if self._named[record.layer] or record.layer in self._shared:
                freed = 0
        self.total_bytes -= freed
        return freed


def _over_budget(
    chosen: list[CacheRecord], sizes: Sizes, options: PruneOptions, usage: Usage
) -> list[CacheRecord]:
    """As with Docker 0 is no limit."""
    reserved = options.reserved_bytes or 0
    most, least_free = options.max_used_bytes or 0, options.min_free_bytes or 0
    if not (reserved or most or least_free):
        return chosen
    going, free = [], usage.free_bytes
    for record in chosen:
        is_over = sizes.total_bytes > most if most else not least_free
        if not (is_over or free < least_free) or sizes.total_bytes <= reserved:
            break
        going.append(record)
        free += sizes.take(record)
    return going


def unreachable(records: Sequence[CacheRecord], in_use: Collection[str]) -> list[CacheRecord]:
    """Records that no build can find again: their parent is gone, or all of their keys lead to a
    newer one."""
    kept = {record.id: record for record in records}
    led_to: dict[str, str] = {}
    for record in sorted(records, key=lambda record: (record.created_ns, record.id)):
        led_to |= dict.fromkeys(record.keys, record.id)
    gone: list[CacheRecord] = []
    while True:
        orphans = [
            record
            for record in kept.values()
            if record.id not in in_use
            and record.facts is not None
            and (_is_orphan(record, kept) or not _is_led_to(record, led_to))
        ]
        if not orphans:
            return gone
        for record in orphans:
            del kept[record.id]
        gone += orphans


def _is_orphan(record: CacheRecord, kept: Collection[str]) -> bool:
    return is_step(record.parent) and record.parent not in kept


def _is_led_to(record: CacheRecord, led_to: Mapping[str, str]) -> bool:
    return not record.keys or any(led_to[key] == record.id for key in record.keys)


def _matches(record: CacheRecord, filters: Mapping[str, Sequence[str]], usage: Usage) -> bool:
    for name, values in filters.items():
        if name in _MOMENTS:
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
            is_so = record.id in usage.in_use
        case "shared" | "private":
            is_so = (record.layer in usage.shared) == (name == "shared")
        case _:
            is_so = (record.type == "exec.cachemount") == (name == "mutable")
    return all(_truth(name, value) == is_so for value in values or ("",))


def _truth(name: str, value: str) -> bool:
    """Without a value a filter of this kind is meant to hold."""
    if value.lower() in ("", "1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise InvalidArgument(f"invalid filter {name}={value[:32]}: use true or false")
