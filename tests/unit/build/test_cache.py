"""The records of steps, over a real database and layer store: found, held, changed, removed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from estiba.build import cache as cache_module
from estiba.build.cache import Cache
from estiba.build.record import KIND, CacheRecord, Facts, decode
from estiba.model.digest import Digest
from estiba.model.errors import Internal
from estiba.storage.layers import LayerInfo, LayerStore
from estiba.storage.unpack import Limits
from estiba.store import EventBus, Store

MINUTE_NS = 60 * 10**9


@dataclass
class Place:
    """A cache, and what lies below it."""

    root: Path
    store: Store
    layers: LayerStore
    cache: Cache

    def layer(self, number: int) -> Digest:
        """One that is in the layer store, as far as a look tells."""
        diff_id = f"sha256:{number:064x}"
        path = self.layers.diff_path(diff_id).parent
        path.mkdir(parents=True, exist_ok=True)
        info = LayerInfo(diff_id=diff_id, size_bytes=1, tar_bytes=1)
        (path / "layer.json").write_bytes(msgspec.json.encode(info))
        return diff_id

    def lose(self, diff_id: Digest) -> None:
        (self.layers.diff_path(diff_id).parent / "layer.json").unlink()

    def rows(self) -> dict[str, CacheRecord]:
        return {row.id: decode(row.body) for row in self.store.load(KIND)}

    def reopened(self) -> Cache:
        """What the daemon finds at its next start."""
        found = Cache(self.store, self.layers)
        found.open()
        return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    store = Store.open(tmp_path / "estiba.db", EventBus())
    layers = LayerStore(tmp_path, Limits())
    layers.open()
    cache = Cache(store, layers)
    cache.open()
    yield Place(tmp_path, store, layers, cache)
    store.close()


def record(name: str, *keys: str, **changes: Any) -> CacheRecord:
    return CacheRecord(id=name, keys=list(keys), **changes)


def ids(records: list[CacheRecord]) -> set[str]:
    return {one.id for one in records}


# -- finding -------------------------------------------------------------------------------


def test_a_record_is_found_by_each_of_its_keys(place: Place) -> None:
    with place.cache.session() as session:
        session.add(record("r", "k1", "k2"))
        for key in ("k1", "k2"):
            found = session.find([key])
            assert found is not None and found.id == "r"
        assert session.find(["other", "k1"]) is not None
        assert session.find(["other"]) is None
        assert session.find([]) is None


def test_records_outlive_the_daemon(place: Place) -> None:
    full = record(
        "r", "k", parent="base:x", layer=place.layer(1), description="[1/2] RUN x", size_bytes=7,
        created_ns=5, last_used_ns=6, uses=2,
        facts=Facts(kind="run", text="RUN x", env={"A": "1"}, files={"/f": "sha256:1"}),
    )  # fmt: skip
    with place.cache.session() as session:
        session.add(full)
    again = place.reopened()
    assert again.records() == [full]
    assert again.get("r") == full
    assert again.layers_kept() == {full.layer}
    assert again.in_use() == set()


def test_a_step_that_changed_nothing_keeps_no_layer(place: Place) -> None:
    with place.cache.session() as session:
        session.add(record("r", "k"))
        assert session.find(["k"]) is not None
    assert place.cache.layers_kept() == set()


def test_a_record_whose_layer_is_gone_is_not_found(place: Place) -> None:
    lost, whole = place.layer(1), place.layer(2)
    with place.cache.session() as session:
        session.add(record("lost", "k1", layer=lost))
        session.add(record("whole", "k2", layer=whole))
        place.lose(lost)
        assert session.find(["k1"]) is None
        found = session.find(["k1", "k2"])
        assert found is not None and found.id == "whole"


def test_what_was_done_again_takes_the_place_of_what_was_lost(place: Place) -> None:
    lost = place.layer(1)
    with place.cache.session() as session:
        session.add(record("lost", "k", layer=lost, created_ns=9))
        place.lose(lost)
        session.add(record("new", "k", layer=place.layer(2), created_ns=3))
        found = session.find(["k"])
        assert found is not None and found.id == "new"


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_a_key_leads_to_its_newest_record_after_a_restart_too(place: Place, names: str) -> None:
    """The database gives them in the order of their ids, which are random."""
    old, new = names
    with place.cache.session() as session:
        session.add(record(old, "k", created_ns=1))
        session.add(record(new, "k", created_ns=2))
        found = session.find(["k"])
        assert found is not None and found.id == new
    with place.reopened().session() as session:
        found = session.find(["k"])
        assert found is not None and found.id == new


def test_records_of_another_form_are_dropped(place: Place) -> None:
    with place.cache.session() as session:
        session.add(record("good", "k"))
    place.store.commit_blocking(lambda tx: tx.put(KIND, "bad", b'{"id": 7, "keys": "no"}'))
    assert ids(place.reopened().records()) == {"good"}
    assert set(place.rows()) == {"good"}


# -- holding -------------------------------------------------------------------------------


def test_what_a_build_holds_is_not_removed(place: Place) -> None:
    with place.cache.session() as session:
        session.add(record("made", "k1"))
        assert place.cache.remove(["made"]) == []
    with place.cache.session() as session:
        assert session.find(["k1"]) is not None
        assert place.cache.in_use() == {"made"}
        assert place.cache.remove(["made"]) == []
    assert ids(place.cache.remove(["made"])) == {"made"}
    assert place.rows() == {}


def test_two_builds_hold_it_until_both_have_gone(place: Place) -> None:
    with place.cache.session() as first:
        first.add(record("r", "k"))
        with place.cache.session() as second:
            assert second.find(["k"]) is not None
            assert second.find(["k"]) is not None
        assert place.cache.in_use() == {"r"}
    assert place.cache.in_use() == set()


def test_a_build_that_fails_lets_go(place: Place) -> None:
    def build() -> None:
        with place.cache.session() as session:
            session.add(record("r", "k"))
            raise LookupError

    with pytest.raises(LookupError):
        build()
    assert place.cache.in_use() == set()


def test_a_record_that_could_not_be_written_is_no_record(place: Place) -> None:
    with place.cache.session() as session:
        place.store.close()
        with pytest.raises(Internal):
            session.add(record("r", "k"))
        assert session.find(["k"]) is None
    assert place.cache.in_use() == set()
    assert place.cache.records() == []


# -- changing ------------------------------------------------------------------------------


def test_a_use_counts_at_once_and_is_written_once_a_minute(place: Place) -> None:
    now = time.time_ns()
    old = record("old", "k1", last_used_ns=now - 2 * MINUTE_NS, uses=1)
    new = record("new", "k2", last_used_ns=now, uses=1)
    with place.cache.session() as session:
        session.add(old)
        session.add(new)
        place.cache.touch([old, new])
        place.cache.touch([old, new])
    rows = place.rows()
    assert rows["old"].uses == 2 and rows["old"].last_used_ns >= now
    assert rows["new"] == new
    known = {one.id: one for one in place.cache.records()}
    assert known["old"].uses == known["new"].uses == 3
    assert known["old"].last_used_ns >= now and known["new"].last_used_ns >= now
    place.cache.add_keys(new, ["k3"])
    assert place.rows()["new"] == place.cache.get("new"), "with whatever else is written"


def test_another_key_finds_it_from_now_on(place: Place) -> None:
    with place.cache.session() as session:
        session.add(first := record("r", "k1"))
        place.cache.add_keys(first, ["k2", "k1"])
        place.cache.add_keys(first, ["k2"])
    with place.reopened().session() as session:
        for key in ("k1", "k2"):
            assert session.find([key]) is not None
    assert place.rows()["r"].keys == ["k2", "k1"]


def test_another_key_takes_nothing_from_a_newer_record(place: Place) -> None:
    with place.cache.session() as session:
        session.add(old := record("old", "k1", "k2", created_ns=1))
        session.add(record("new", "k1", created_ns=2))
        place.cache.add_keys(old, ["k3"])
        found = session.find(["k1"])
        assert found is not None and found.id == "new"


def test_of_very_many_keys_the_oldest_are_forgotten(place: Place) -> None:
    most = cache_module._MAX_KEYS
    with place.cache.session() as session:
        session.add(one := record("r", "content"))
        for number in range(2 * most):
            place.cache.add_keys(one, [f"k{number}", "content"])
        assert session.find(["k0"]) is None
        assert session.find([f"k{2 * most - 1}"]) is not None
        assert session.find(["content"]) is not None
    assert len(place.rows()["r"].keys) == most


def test_removal_leaves_a_key_to_whoever_has_it(place: Place) -> None:
    with place.cache.session() as session:
        session.add(record("old", "k", created_ns=1))
        session.add(record("new", "k", created_ns=2))
    place.cache.remove(["old", "never there"])
    with place.cache.session() as session:
        found = session.find(["k"])
        assert found is not None and found.id == "new"


@pytest.mark.parametrize(
    "change",
    [
        lambda cache, one: cache.touch([one]),
        lambda cache, one: cache.add_keys(one, ["k2"]),
    ],
)
def test_what_is_removed_meanwhile_does_not_come_back(
    place: Place, change: Callable[[Cache, CacheRecord], None]
) -> None:
    """A change and a removal at once, the change's row written last."""
    one = record("r", "k")
    with place.cache.session() as session:
        session.add(one)
    removed, begun = threading.Event(), threading.Event()
    commit = place.store.commit_blocking

    def late(work: Any, *, durable: bool = False) -> Any:
        begun.set()
        assert removed.wait(10)
        return commit(work, durable=durable)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place.store, "commit_blocking", late)
        thread = threading.Thread(target=change, args=(place.cache, one))
        thread.start()
        assert begun.wait(10)
    place.cache.remove(["r"])
    removed.set()
    thread.join(10)
    assert place.rows() == {}


def test_many_threads_at_once(place: Place) -> None:
    """What is in memory afterwards is what is on disk."""
    errors: list[BaseException] = []

    def build(number: int) -> None:
        try:
            for turn in range(20):
                with place.cache.session() as session:
                    if session.find([f"k{turn}"]) is None:
                        session.add(record(f"r{turn}-{number}", f"k{turn}", created_ns=turn))
                    place.cache.touch(place.cache.records())
                place.cache.remove([f"r{turn - 3}-{number}"])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=build, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    rows, known = place.rows(), {one.id: one for one in place.cache.records()}
    assert unused(rows.values()) == unused(known.values())
    assert place.cache.in_use() == set()


def unused(records: Iterable[CacheRecord]) -> dict[str, CacheRecord]:
    """Without what their uses change."""
    return {one.id: msgspec.structs.replace(one, last_used_ns=0, uses=0) for one in records}
