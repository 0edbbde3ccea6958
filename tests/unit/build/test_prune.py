"""Which records go: filters, budgets in the order of their last use, and what nobody can find."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from estiba.build.keys import base_id, linked_id
from estiba.build.prune import PruneOptions, Sizes, Usage, decide_prune, unreachable
from estiba.build.record import CacheRecord, Facts
from estiba.model.errors import InvalidArgument

HOUR = 3600 * 10**9
NOW = 1_000_000 * HOUR
FACTS = Facts(kind="run", text="RUN x")
BASE = base_id(["sha256:" + "0" * 64])


def record(name: str, *, used: int = 0, size: int = 1, **changes: Any) -> CacheRecord:
    """`used` hours before now."""
    known: dict[str, Any] = {
        "facts": FACTS,
        "keys": [f"key of {name}"],
        "layer": f"layer of {name}",
    }
    return CacheRecord(id=name, last_used_ns=NOW - used * HOUR, size_bytes=size, **known | changes)


def pruned(
    records: Sequence[CacheRecord],
    filters: Mapping[str, Sequence[str]] | None = None,
    *,
    in_use: Sequence[str] = (),
    shared: Sequence[str] = (),
    free: int = 0,
    **options: Any,
) -> list[str]:
    usage = Usage(in_use, [f"layer of {name}" for name in shared], free, NOW)
    chosen = PruneOptions(filters=filters or {}, **options)
    return [one.id for one in decide_prune(records, chosen, usage)]


ABC = [record("a", used=1), record("b", used=3), record("c", used=2)]


# -- without a budget ----------------------------------------------------------------------


def test_all_go_but_what_images_share() -> None:
    assert pruned(ABC, shared=["c"]) == ["b", "a"]
    assert pruned(ABC, shared=["c"], everything=True) == ["b", "c", "a"]
    assert pruned([]) == []


def test_what_a_build_uses_stays() -> None:
    assert pruned(ABC, in_use=["b"], everything=True) == ["c", "a"]


def test_a_step_goes_before_the_one_it_stands_on() -> None:
    """Both were used in the same build."""
    chain = [record(f"r{n}", used=5, created_ns=n) for n in range(3)]
    assert pruned(chain) == ["r2", "r1", "r0"]


# -- filters -------------------------------------------------------------------------------

MANY = [
    record("abc1", used=1, parent="base:1", description="[build 1/2] RUN make"),
    record("abc2", used=30, parent="abc1", description="[build 2/2] COPY . /"),
    record("def1", used=200, parent="base:2", description="[run 1/1] RUN make"),
    record("mount", used=50, type="exec.cachemount", layer="", keys=[], facts=None,
           description="cache mount /root/.cache"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"until": ["24h"]}, "abc2 def1 mount"),
        ({"until": ["48h"]}, "def1 mount"),
        ({"unused-for": ["48h"]}, "def1 mount"),
        ({"until": ["48h", "24h"]}, "def1 mount"),
        ({"until": [str((NOW - 100 * HOUR) // 10**9)]}, "def1"),
        ({"until": ["0s"]}, "abc1 abc2 def1 mount"),
        ({"id": ["abc"]}, "abc1 abc2"),
        ({"id": ["abc1", "def1"]}, "abc1 def1"),
        ({"id": [""]}, ""),
        ({"id": ["bc1"]}, ""),
        ({"parent": ["base:"]}, "abc1 def1"),
        ({"parent": ["abc1"]}, "abc2"),
        ({"type": ["regular"]}, "abc1 abc2 def1"),
        ({"type": ["exec.cachemount"]}, "mount"),
        ({"type": ["source.local"]}, ""),
        ({"description": ["make"]}, "abc1 def1"),
        ({"mutable": []}, "mount"),
        ({"mutable": ["true"]}, "mount"),
        ({"mutable": ["false"]}, "abc1 abc2 def1"),
        ({"immutable": ["1"]}, "abc1 abc2 def1"),
        ({"immutable": ["0"]}, "mount"),
        ({"shared": ["true"]}, "def1"),
        ({"shared": ["false"]}, "abc1 abc2 mount"),
        ({"private": [""]}, "abc1 abc2 mount"),
        ({"private": ["false"]}, "def1"),
        ({"inuse": ["true"]}, ""),
        ({"inuse": ["false"]}, "abc1 abc2 def1 mount"),
        ({"type": ["regular"], "until": ["48h"]}, "def1"),
    ],
)
def test_filters(filters: dict[str, list[str]], names: str) -> None:
    chosen = pruned(MANY, filters, shared=["def1"], everything=True)
    assert sorted(chosen) == names.split()


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"label": ["a"]}, "invalid filter 'label': one of until"),
        ({"until": ["yesterday"]}, "until"),
        ({"unused-for": ["-1h"]}, "unused-for"),
        ({"shared": ["maybe"]}, "invalid filter shared=maybe: use true or false"),
    ],
)
def test_filters_that_are_none(filters: dict[str, list[str]], words: str) -> None:
    for records in (MANY, []):
        with pytest.raises(InvalidArgument, match=words):
            pruned(records, filters)


# -- budgets -------------------------------------------------------------------------------

TENS = [record(f"r{age}", used=age, size=10) for age in range(1, 11)]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"max_used_bytes": 100}, ""),
        ({"max_used_bytes": 99}, "r10"),
        ({"max_used_bytes": 75}, "r10 r9 r8"),
        ({"max_used_bytes": 1}, "r10 r9 r8 r7 r6 r5 r4 r3 r2 r1"),
        ({"reserved_bytes": 100}, ""),
        ({"reserved_bytes": 75}, "r10 r9 r8"),
        ({"reserved_bytes": 75, "max_used_bytes": 0, "min_free_bytes": 0}, "r10 r9 r8"),
        ({"reserved_bytes": 85, "max_used_bytes": 1}, "r10 r9"),
        ({"reserved_bytes": 1000, "max_used_bytes": 1}, ""),
        ({"min_free_bytes": 5}, ""),
        ({"min_free_bytes": 25}, "r10 r9"),
        ({"min_free_bytes": 25, "reserved_bytes": 90}, "r10"),
        ({"min_free_bytes": 25, "max_used_bytes": 70}, "r10 r9 r8"),
        ({"min_free_bytes": 25, "max_used_bytes": 1000}, "r10 r9"),
        ({"max_used_bytes": 0}, "r10 r9 r8 r7 r6 r5 r4 r3 r2 r1"),
    ],
)
def test_budgets(options: dict[str, int], names: str) -> None:
    """The least recently used go until it is small enough; 5 bytes of the disk are free."""
    assert pruned(TENS, free=5, **options) == names.split()


def test_what_is_in_use_counts_but_stays() -> None:
    assert pruned(TENS, in_use=["r10", "r9"], max_used_bytes=85) == ["r8", "r7"]


def test_a_filter_and_a_budget() -> None:
    assert pruned(TENS, {"until": ["5h"]}, max_used_bytes=1) == ["r10", "r9", "r8", "r7", "r6"]


def test_what_an_image_needs_anyway_costs_nothing() -> None:
    shared = ["r10", "r9", "r8", "r7", "r6", "r5", "r4", "r3"]
    assert pruned(TENS, shared=shared, everything=True, max_used_bytes=20) == []
    assert pruned(TENS, shared=shared, max_used_bytes=15) == ["r2"]


def test_two_records_of_one_layer_cost_it_once() -> None:
    twins = [
        record("old", used=9, size=10, layer="same"),
        record("new", used=1, size=10, layer="same"),
    ]
    other = record("other", used=5, size=10)
    assert pruned([*twins, other], max_used_bytes=20) == []
    assert pruned([*twins, other], max_used_bytes=10) == ["old", "other"]


def test_a_budget_is_kept_whatever_there_is() -> None:
    draw = random.Random(4)
    for _ in range(200):
        records = [
            record(str(n), used=draw.randrange(9), size=size, layer=f"layer of {size}")
            for n in range(draw.randrange(15))
            for size in [draw.randrange(12)]
        ]
        in_use, shared = set(draw.sample("0123456789", 3)), {f"layer of {n}" for n in (0, 1)}
        budget = draw.randrange(1, 40)
        usage = Usage(in_use, shared, 0, NOW)
        gone = decide_prune(records, PruneOptions(everything=True, max_used_bytes=budget), usage)
        left = [one for one in records if one not in gone]
        assert Sizes(left, shared).total_bytes <= budget or not set(map(id, left)) - {
            id(one) for one in left if one.id in in_use
        }
        if gone:
            assert Sizes([*left, gone[-1]], shared).total_bytes > budget
        uses = [one.last_used_ns for one in gone]
        assert uses == sorted(uses)


def test_sizes_add_up_whatever_goes_first() -> None:
    records = [
        record("a", size=3, layer="x"),
        record("b", size=3, layer="x"),
        record("c", size=5),
        record("d", size=7, layer=""),
        record("e", size=9, layer="y"),
    ]
    for order in itertools.permutations(records):
        sizes = Sizes(records, {"y"})
        assert sizes.total_bytes == 15
        assert sum(sizes.take(one) for one in order) == 15
        assert sizes.total_bytes == 0


# -- what nobody can find ------------------------------------------------------------------


def left_behind(*records: CacheRecord, in_use: Sequence[str] = ()) -> list[str]:
    return sorted(one.id for one in unreachable(records, in_use))


def test_what_stands_on_a_step_that_is_gone() -> None:
    chain = [record("b", parent="a"), record("c", parent="b"), record("d", parent="c")]
    assert left_behind(*chain) == ["b", "c", "d"]
    assert left_behind(record("a", parent=BASE), *chain) == []
    assert left_behind(record("a"), *chain) == []


def test_what_is_in_use_stays_with_what_stands_on_it() -> None:
    chain = [record("b", parent="a"), record("c", parent="b"), record("d", parent="c")]
    assert left_behind(*chain, in_use=["c"]) == ["b"]


def test_what_stands_on_a_linked_copy_can_be_found() -> None:
    """The tree below is no single step's."""
    assert left_behind(record("b", parent=linked_id("a", "copied")), record("c", parent="b")) == []


def test_what_a_newer_record_hides() -> None:
    old = record("old", parent=BASE, created_ns=1, keys=["k1", "k2"])
    above = record("above", parent="old")
    assert left_behind(old, record("new", parent=BASE, created_ns=2, keys=["k1"]), above) == []
    hiding = record("new", parent=BASE, created_ns=2, keys=["k1", "k2"])
    assert left_behind(old, hiding, above) == ["above", "old"]
    assert left_behind(old, hiding, above, in_use=["old"]) == []


def test_cache_mounts_are_no_steps() -> None:
    assert left_behind(record("m", type="exec.cachemount", keys=[], facts=None)) == []


def test_a_long_chain_is_no_burden() -> None:
    chain = [record(str(n), parent=str(n - 1)) for n in range(1, 400)]
    assert len(left_behind(*chain)) == 399
