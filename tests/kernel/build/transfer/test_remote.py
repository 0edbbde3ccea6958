"""Steps found in imported caches: adopted whole, or missed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest
from tests.kernel.build.transfer.test_caches import (
    HOST,
    hub,
    make_layers,
    records_of,
    serve_cache,
)
from tests.kernel.build.transfer.transfer_lab import Shop, layer_tar
from tests.support.daemon import wait_until
from tests.support.registry import OwnRegistry
from tests.support.scripted import ScriptedServer
from tests.support.served import Served

from estiba.build.cache import Cache, Session
from estiba.build.record import CacheRecord
from estiba.build.transfer.exports import push_cache
from estiba.build.transfer.imports import import_caches
from estiba.build.transfer.remote import RemoteCaches
from estiba.build.transfer.specs import CacheFrom
from estiba.images import removal
from estiba.images.images import Images
from estiba.model.digest import digest_of
from estiba.model.reference import parse_reference

pytestmark = pytest.mark.kernel


@pytest.fixture
def images(shop: Shop) -> Images:
    return shop.images("second")


@pytest.fixture
def cache(shop: Shop, images: Images) -> Cache:
    made = Cache(images.store, images.layers)
    made.open()
    images.snapshot_layers = made.layers_kept
    return made


@pytest.fixture
def session(cache: Cache) -> Iterator[Session]:
    with cache.session() as session:
        yield session


def remote(
    images: Images, session: Session, place: str, warnings: list[str] | None = None
) -> RemoteCaches:
    def warn(text: str) -> None:
        assert warnings is not None, text
        warnings.append(text)

    build = hub(images)
    found = import_caches(build, [CacheFrom("registry", parse_reference(place))], HOST, {}, warn)
    return RemoteCaches(build, session, found, warn)


@pytest.fixture
def place(shop: Shop, own: OwnRegistry) -> str:
    """A cache of three steps that another host has pushed."""
    first = shop.images("first")
    reference = parse_reference(f"{own.host}/team/cache:1")
    push_cache(hub(first), reference, records_of(make_layers(first)), lambda _: None)
    return str(reference)


async def test_a_step_becomes_ones_own(
    images: Images, cache: Cache, session: Session, place: str
) -> None:
    caches = remote(images, session, place)
    assert await caches.find(["unknown"]) is None
    record = await caches.find(["unknown", "k1"])
    assert record is not None and record.id == "r1" and record.created_ns
    removal.collect(images)
    assert images.layers.info(record.layer) is not None, "kept by the record"
    assert list(images.layers.diff_ids()) == [record.layer], "and no other was fetched"
    assert session.find(["k1"]) == record
    with images.leases.frozen() as leased:
        assert leased == set()
    changed_nothing = await caches.find(["k2"])
    assert changed_nothing is not None and changed_nothing.layer == ""
    again = Cache(images.store, images.layers)
    again.open()
    assert {one.id for one in again.records()} == {"r1", "r2"}
    assert not cache.remove(["r1"]), "held by the session"
    caches.close()


async def test_a_record_here_keeps_its_id(
    images: Images, cache: Cache, session: Session, place: str
) -> None:
    """A cache from elsewhere cannot change what the engine knows."""
    mine = CacheRecord(id="r0", keys=["mine"], description="mine")
    session.add(mine)
    caches = remote(images, session, place)
    assert await caches.find(["k0"]) is None
    assert cache.get("r0") == mine
    same = CacheRecord(id="r2", keys=["other"], description="mine too", created_ns=5)
    session.add(same)
    found = await caches.find(["k2"])
    assert found is not None
    assert found == msgspec.structs.replace(
        same, keys=["other", "k2"], last_used_ns=found.last_used_ns
    )
    caches.close()


async def test_a_layer_that_does_not_come_is_a_miss(
    images: Images,
    cache: Cache,
    session: Session,
    served: Served,
    registry: ScriptedServer,
) -> None:
    tars = [layer_tar({"a": b"1" * 5000}), layer_tar({"b": b"2" * 5000})]
    for entry in serve_cache(served, tars):
        served.blobs[entry["digest"]] = b"nothing"
    warnings: list[str] = []
    caches = remote(images, session, f"{registry.host}/x:1", warnings)
    assert await caches.find(["k0"]) is None
    assert await caches.find(["k1"]) is None
    assert len(warnings) == 1 and warnings[0].startswith(f"cache from {registry.host}/x:1: ")
    assert cache.records() == [] and list(images.layers.diff_ids()) == []
    caches.close()


async def test_a_cancelled_build_ends_its_fetch(
    images: Images,
    cache: Cache,
    session: Session,
    served: Served,
    registry: ScriptedServer,
) -> None:
    tar = layer_tar({"a": os.urandom(3 << 20)})
    (entry,) = serve_cache(served, [tar])
    served.faults[entry["digest"]] = lambda _, reply: replace(reply, hang=1 << 20)
    caches = remote(images, session, f"{registry.host}/x:1")
    task = asyncio.create_task(caches.find(["k0"]))
    path = f"/v2/x/blobs/{entry['digest']}"
    await asyncio.to_thread(
        wait_until, lambda: path in registry.paths("GET"), what="the fetch to begin"
    )
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cache.records() == []
    assert list(images.layers.diff_ids()) == [] and list(images.content.partials()) == []
    assert images.layers.info(digest_of(tar)) is None
    caches.close()


async def test_nothing_but_what_was_asked_for_is_believed(
    images: Images, session: Session, shop: Shop, own: OwnRegistry
) -> None:
    first = shop.images("first")
    reference = parse_reference(f"{own.host}/team/greedy:1")
    (record, *_) = records_of(make_layers(first))
    greedy = msgspec.structs.replace(record, keys=["k0", "stolen"])
    push_cache(hub(first), reference, [greedy], lambda _: None)
    caches = remote(images, session, str(reference))
    found = await caches.find(["k0"])
    assert found is not None and found.keys == ["k0"]
    assert session.find(["stolen"]) is None
    caches.close()
