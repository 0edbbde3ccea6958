"""The index of images: tags, platforms under one name, removal, what is collected."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from estiba.images import removal
from estiba.images.images import Images, Naming, NewImage
from estiba.images.record import ImageRecord, Origin, parse_time
from estiba.model.digest import Digest, digest_of
from estiba.model.errors import Conflict, InvalidArgument, NotFound
from estiba.model.image import Platform
from estiba.model.reference import parse_reference
from estiba.storage.content import ContentStore
from estiba.storage.layers import LayerStore
from estiba.storage.unpack import Limits
from estiba.store import EventBus, Store

ARM = Platform(architecture="arm64")
AMD = Platform(architecture="amd64")


def make(root: Path, store: Store, snapshots: Any = set) -> Images:
    layers, content = LayerStore(root / "images", Limits()), ContentStore(root / "images")
    layers.open()
    content.open()
    images = Images(layers, content, store, snapshots, AMD)
    images.open()
    return images


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    store = Store.open(tmp_path / "estiba.db", EventBus(asyncio.get_running_loop()))
    yield store
    store.close()


@pytest.fixture
def images(tmp_path: Path, store: Store) -> Iterator[Images]:
    yield make(tmp_path, store)


def add(
    images: Images, tag: str, *, architecture: str = "amd64", beside: Any = (), mark: str = ""
) -> ImageRecord:
    config = {"os": "linux", "architecture": architecture, "author": mark, "rootfs": {}}
    body = json.dumps(config | {"rootfs": {"type": "layers", "diff_ids": []}}).encode()
    tags = (parse_reference(tag),) if tag else ()
    return images.add(NewImage(body, []), Naming(tags, beside), "load")


@pytest.mark.parametrize(
    ("text", "moment_ns"),
    [
        ("2026-11-27T03:06:23.254778447Z", 1795748783_254778447),
        ("2026-11-27T03:06:23.2547784471Z", 1795748783_254778447),
        ("2026-11-27T05:06:23.25+02:00", 1795748783_250000000),
        ("2026-11-27T03:06:23", 1795748783_000000000),
        ("1969-12-31T23:59:59.5Z", -500000000),
        ("0001-01-01T00:00:00Z", -62135596800_000000000),
        ("", 0),
        ("yesterday", 0),
    ],
)
def test_times_to_the_nanosecond(text: str, moment_ns: int) -> None:
    assert parse_time(text) == moment_ns


def unused(_image: Digest) -> list[str]:
    return []


def test_a_tag_moves_from_one_image_to_the_next(images: Images) -> None:
    first, second = add(images, "x:1", mark="a"), add(images, "x:1", mark="b")
    assert images.resolve("x:1").id == second.id
    assert images.resolve(first.id).repo_tags == []


def test_of_images_of_the_same_age_the_one_named_last_comes_first(images: Images) -> None:
    one, two, three = (add(images, f"x:{mark}", mark=mark) for mark in "abc")
    assert [record.id for record in images.list_all()] == [three.id, two.id, one.id]
    images.tag("x:a", parse_reference("y:1"))
    assert [record.id for record in images.list_all()] == [one.id, three.id, two.id]


def test_platforms_stand_side_by_side_when_they_came_together(images: Images) -> None:
    arm = add(images, "x:1", architecture="arm64")
    amd = add(images, "x:1", beside={arm.id})
    assert images.resolve("x:1").id == amd.id, "the host's own comes first"
    assert images.resolve("x:1", ARM).id == arm.id
    with pytest.raises(NotFound, match="does not match"):
        images.resolve("x:1", Platform(architecture="s390x"))
    newer = add(images, "x:1", mark="newer")
    assert images.named(parse_reference("x:1")) == [newer]


def test_a_new_tag_names_all_platforms(images: Images) -> None:
    arm = add(images, "x:1", architecture="arm64")
    amd = add(images, "x:1", beside={arm.id})
    images.tag("x:1", parse_reference("y:2"))
    assert {r.id for r in images.named(parse_reference("y:2"))} == {arm.id, amd.id}
    images.tag(amd.id, parse_reference("z:3"))
    assert [r.id for r in images.named(parse_reference("z:3"))] == [amd.id]
    removed = removal.remove(images, "y:2", force=False, in_use=unused)
    assert removed == [{"Untagged": "y:2"}] * 2
    removal.remove(images, "x:1", force=False, in_use=unused, platforms=[ARM])
    assert images.named(parse_reference("x:1")) == [images.resolve(amd.id)]


def test_what_containers_use_stays_whole_or_goes_whole(images: Images) -> None:
    arm = add(images, "x:1", architecture="arm64")
    amd = add(images, "x:1", beside={arm.id})
    with pytest.raises(Conflict):
        removal.remove(images, "x:1", force=False, in_use=lambda i: ["box"] if i == amd.id else [])
    assert len(images.named(parse_reference("x:1"))) == 2


def test_a_digest_names_what_came_from_there(images: Images) -> None:
    record = add(images, "r.test/x:1")
    manifest = digest_of(b"m")
    origin = Origin(repository="r.test/x", target=digest_of(b"t"), manifest=manifest)
    images.add(NewImage(record.config_json.encode(), [], (origin,)), Naming(), "pull")
    assert images.resolve(f"r.test/x@{manifest}").id == record.id
    assert images.resolve("r.test/x:1").repo_digests == [f"r.test/x@{origin.target}"]
    with pytest.raises(NotFound):
        images.resolve(f"r.test/y@{manifest}")
    removed = removal.remove(images, f"r.test/x@{manifest}", force=False, in_use=unused)
    assert removed == [{"Untagged": f"r.test/x@{manifest}"}]
    assert images.resolve("r.test/x:1").repo_digests == []


def test_content_goes_with_its_last_image_and_stays_while_leased(images: Images) -> None:
    bodies = [b"one", b"two", b"three"]
    for body in bodies:
        images.content.put(body, digest_of(body))
    origin = Origin(target=digest_of(b"one"), manifest=digest_of(b"two"))
    record = add(images, "x:1")
    images.add(NewImage(record.config_json.encode(), [], (origin,)), Naming(), "load")
    with images.leases.held([digest_of(b"three")]):
        removal.collect(images)
        assert set(images.content.digests()) == {digest_of(body) for body in bodies}
    removal.collect(images)
    assert set(images.content.digests()) == {digest_of(b"one"), digest_of(b"two")}
    removal.remove(images, "x:1", force=False, in_use=unused)
    assert list(images.content.digests()) == []


def test_the_beginning_of_a_pull_outlives_the_process(
    tmp_path: Path, store: Store, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = digest_of(b"layer")
    images.content.partial_path(digest).write_bytes(b"lay")
    images.leases.begin_pull("x", [digest])
    again = make(tmp_path, store)
    assert list(again.content.partials()) == [digest]
    images.leases.close()
    images.leases.give_up_pull("x")
    removal.collect(images)
    assert list(images.content.partials()) == [digest], "the engine stops: nobody gave it up"
    again.leases.give_up_pull("x")
    assert list(make(tmp_path, store).content.partials()) == []
    images.content.partial_path(digest).write_bytes(b"lay")
    images.leases.begin_pull("x", [digest])
    later = time.time_ns() + 25 * 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert list(make(tmp_path, store).content.partials()) == []


def test_the_last_use_is_kept_over_a_restart(tmp_path: Path, store: Store, images: Images) -> None:
    record = add(images, "x:1")
    assert images.usage.last_ns(record.id) == 0
    images.usage.note(record.id)
    noted = images.usage.last_ns(record.id)
    images.usage.note(record.id)
    assert images.usage.last_ns(record.id) == noted, "a use right after another is not written"
    assert make(tmp_path, store).usage.last_ns(record.id) == noted > 0
    removal.remove(images, "x:1", force=False, in_use=unused)
    assert make(tmp_path, store).usage.last_ns(record.id) == 0


def test_a_config_must_describe_the_layers(images: Images) -> None:
    config = b'{"rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' % (b"0" * 64)
    with pytest.raises(InvalidArgument, match="other layers"):
        images.add(NewImage(config, []), Naming(), "load")


def test_a_prune_spares_what_was_tagged_since_it_looked(images: Images) -> None:
    found = add(images, "")
    add(images, "just:built")
    assert removal.delete_unused(images, found, unused) == []
    assert images.resolve("just:built").id == found.id
    assert removal.delete_unused(images, images.resolve("just:built"), unused)
