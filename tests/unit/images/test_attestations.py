"""What is stated of an image: kept with it, gone with it, and in the layouts that it goes as."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from estiba.images import removal
from estiba.images.attestations import (
    IN_TOTO,
    SLSA,
    SPDX,
    Predicate,
    attach,
    predicates_in,
    predicates_of,
    referrer,
)
from estiba.images.images import Images, Naming, NewImage
from estiba.images.loading import load
from estiba.images.record import ImageRecord
from estiba.images.saving import DOCKER, GZIP, OCI, archive, save
from estiba.kernel import failpoint
from estiba.model.digest import digest_of
from estiba.model.errors import InvalidArgument, NotFound
from estiba.model.image import Descriptor, Platform
from estiba.model.reference import parse_reference
from estiba.storage.content import ContentStore
from estiba.storage.layers import LayerStore
from estiba.storage.unpack import Limits
from estiba.store import EventBus, Store

BOTH = [Predicate(SPDX, b'{"packages":[]}'), Predicate(SLSA, b'{"runDetails":{}}')]
HOST = Platform(architecture="amd64")


def open_images(root: Path, store: Store) -> Images:
    layers, content = LayerStore(root / "images", Limits()), ContentStore(root / "images")
    layers.open()
    content.open()
    images = Images(layers, content, store, set, HOST)
    images.open()
    return images


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    store = Store.open(tmp_path / "estiba.db", EventBus(asyncio.get_running_loop()))
    yield store
    store.close()


@pytest.fixture
def images(tmp_path: Path, store: Store) -> Images:
    return open_images(tmp_path, store)


def tar_of(name: str, data: bytes = b"data") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def add(images: Images, tag: str, text: str = "a", *, architecture: str = "amd64") -> ImageRecord:
    layer = images.ingest(io.BytesIO(tar_of(text, text.encode() * 3000)))
    config = {
        "os": "linux",
        "architecture": architecture,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    }
    new = NewImage(json.dumps(config).encode(), [layer])
    record = images.add(new, Naming((parse_reference(tag),)), "build")
    images.leases.release([layer.diff_id])
    return record


def members(pieces: Any) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        return {
            info.name: file.read() for info in tar if (file := tar.extractfile(info)) is not None
        }


def blob(found: dict[str, bytes], digest: str) -> bytes:
    data = found[f"blobs/{digest.replace(':', '/')}"]
    assert digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    return data


def unused(_image: str) -> list[str]:
    return []


def test_they_survive_a_restart_and_a_collection(
    tmp_path: Path, store: Store, images: Images
) -> None:
    record = add(images, "app:1")
    attach(images, record.id, BOTH)
    images.tag("app:1", parse_reference("app:2"))
    again = open_images(tmp_path, store)
    removal.collect(again)
    found = again.resolve("app:2")
    assert sorted(predicates_of(again, found), key=lambda one: one.type) == sorted(
        BOTH, key=lambda one: one.type
    )


def test_a_later_one_of_the_same_type_takes_the_place(images: Images) -> None:
    record = add(images, "app:1")
    attach(images, record.id, BOTH)
    attach(images, record.id, [Predicate(SPDX, b'{"packages":[1]}')])
    kept = predicates_of(images, images.resolve("app:1"))
    assert Predicate(SPDX, b'{"packages":[1]}') in kept and len(kept) == 2
    removal.collect(images)
    assert not images.content.has(digest_of(BOTH[0].body)), "the earlier one is collected"


def test_they_go_with_the_image(images: Images) -> None:
    record = add(images, "app:1")
    attach(images, record.id, BOTH)
    removal.remove(images, "app:1", force=False, in_use=unused)
    assert list(images.content.digests()) == []
    assert list(images.layers.diff_ids()) == []


def test_two_images_share_what_is_the_same(images: Images) -> None:
    one, two = add(images, "one:1", "one"), add(images, "two:1", "two")
    attach(images, one.id, BOTH)
    attach(images, two.id, BOTH[:1])
    removal.remove(images, "one:1", force=False, in_use=unused)
    assert predicates_of(images, images.resolve("two:1")) == BOTH[:1]
    assert len(list(images.content.digests())) == 1


def test_nothing_is_attached_to_what_is_gone(images: Images) -> None:
    with pytest.raises(NotFound, match="No such image"):
        attach(images, digest_of(b"nothing"), BOTH)
    removal.collect(images)
    assert list(images.content.digests()) == []


@pytest.mark.parametrize("kind", ["", "a b", "x" * 300, "ä"])
def test_a_type_is_plain_text(images: Images, kind: str) -> None:
    record = add(images, "app:1")
    with pytest.raises(InvalidArgument, match="predicate type"):
        attach(images, record.id, [Predicate(kind, b"{}")])


@pytest.mark.parametrize("point", ["content.written", "attestations.kept", "image.writing"])
def test_what_breaks_off_leaves_the_image_and_nothing_else(
    tmp_path: Path, store: Store, images: Images, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    record = add(images, "app:1")

    def die(name: str) -> None:
        if name == point:
            raise SystemExit(point)

    with monkeypatch.context() as patched:
        patched.setattr(failpoint, "hit", die)
        with pytest.raises(SystemExit):
            attach(images, record.id, BOTH)
    again = open_images(tmp_path, store)
    assert again.resolve("app:1").attestations == []
    assert list(again.content.digests()) == []
    attach(again, record.id, BOTH)
    assert len(again.resolve("app:1").attestations) == 2


def test_a_layout_has_them_as_referrers(images: Images) -> None:
    record = add(images, "team/app:1")
    attach(images, record.id, BOTH)
    found = members(save(images, ["team/app:1"], form=OCI))
    entries = json.loads(found["index.json"])["manifests"]
    assert [entry.get("artifactType", "") for entry in entries] == ["", IN_TOTO, IN_TOTO]
    for entry in entries[1:]:
        manifest = json.loads(blob(found, entry["digest"]))
        assert manifest["artifactType"] == IN_TOTO
        assert manifest["subject"]["digest"] == entries[0]["digest"]
        assert blob(found, manifest["config"]["digest"]) == b"{}"
        (layer,) = manifest["layers"]
        statement = json.loads(blob(found, layer["digest"]))
        assert layer["annotations"] == entry["annotations"]
        assert statement["predicateType"] == layer["annotations"]["in-toto.io/predicate-type"]
        (subject,) = statement["subject"]
        assert f"sha256:{subject['digest']['sha256']}" == entries[0]["digest"]
        assert subject["name"] == "team/app"


def test_other_archives_have_none(images: Images) -> None:
    """Programs that expect one image in them would not know which to take."""
    record = add(images, "app:1")
    attach(images, record.id, BOTH)
    for form in ("", DOCKER):
        found = members(save(images, ["app:1"], form=form))
        assert not any(b"in-toto" in data for data in found.values())


def test_they_come_in_again_with_a_layout(tmp_path: Path, images: Images) -> None:
    record = add(images, "app:1")
    attach(images, record.id, BOTH)
    before = predicates_of(images, images.resolve("app:1"))
    data = b"".join(save(images, ["app:1"], form=OCI))
    removal.remove(images, "app:1", force=False, in_use=unused)
    (loaded,) = load(images, io.BytesIO(data), tmp_path / "work")
    assert loaded.tags == ["app:1"]
    assert predicates_of(images, images.resolve("app:1")) == before
    assert images.list_all() == [images.resolve("app:1")], "none became an image of its own"


def test_an_archive_under_names_that_are_given(images: Images) -> None:
    one, two = add(images, "a:1", "one"), add(images, "b:1", "two", architecture="arm64")
    made = archive(
        images, [one, two], ["x/y:1", "x/y:2"], OCI, layers=GZIP, annotations={"key": "value"}
    )
    found = members(made)
    entries = json.loads(found["index.json"])["manifests"]
    names = [entry["annotations"]["io.containerd.image.name"] for entry in entries]
    assert names == ["docker.io/x/y:1", "docker.io/x/y:2"]
    index = json.loads(blob(found, entries[0]["digest"]))
    for entry in index["manifests"]:
        manifest = json.loads(blob(found, entry["digest"]))
        assert manifest["annotations"] == {"key": "value"}
        (layer,) = manifest["layers"]
        assert layer["mediaType"].endswith("tar+gzip")
        assert blob(found, layer["digest"])[:2] == b"\x1f\x8b"
    assert images.resolve("a:1").origins == [], "nothing is noted of the image itself"


SUBJECT = Descriptor(media_type="m", digest=digest_of(b"manifest"), size=8)


def test_the_same_statement_gives_the_same_bytes() -> None:
    assert referrer(BOTH[0], SUBJECT, "a/b") == referrer(BOTH[0], SUBJECT, "a/b")
    assert referrer(BOTH[0], SUBJECT, "a/b").body != referrer(BOTH[0], SUBJECT, "a/c").body


def test_statements_of_others_say_nothing() -> None:
    made = list(referrer(BOTH[0], SUBJECT, "a/b").blobs.values())
    assert predicates_in(made, SUBJECT.digest) == [BOTH[0]]
    assert predicates_in(made, digest_of(b"other")) == []
    hostile = [b"", b"[", b"[" * 100_000, b'{"predicateType":1}', b"\xff", b'{"subject":[{}]}']
    assert predicates_in(hostile, SUBJECT.digest) == []
