"""A cache that travels: what goes along, and what is refused of one that comes in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from estiba.build.record import CacheRecord, Facts
from estiba.build.transfer.wire import (
    INLINE,
    MAX_BYTES,
    decode_cache,
    encode_cache,
    inline_cache,
    layers_of,
    with_inline_cache,
)
from estiba.model.digest import digest_of
from estiba.model.errors import EstibaError, InvalidArgument, LimitExceeded
from estiba.model.image import MEDIA_LAYER, Descriptor

ONE, TWO = digest_of(b"one"), digest_of(b"two")
BASE = CacheRecord(
    id="r1", keys=["k1"], parent=digest_of(b"base"), layer=ONE, size_bytes=7, created_ns=11
)
RECORDS = [
    BASE,
    CacheRecord(id="r2", keys=["k2", "k2b"], parent="r1", description="RUN true"),
    CacheRecord(id="r3", keys=["k3"], parent="r2", layer=TWO),
]
LAYERS = {
    one: Descriptor(media_type=f"{MEDIA_LAYER}+gzip", digest=digest_of(one.encode()), size=9)
    for one in (ONE, TWO)
}
CONFIG = {
    "os": "linux",
    "moby.buildkit.cache.v0": "eyJ9",
    "rootfs": {"type": "layers", "diff_ids": [ONE]},
    "unknown": [1, None, {"a": 1.5}],
}


def test_there_and_back() -> None:
    records, layers = decode_cache(encode_cache(RECORDS, LAYERS))
    assert records == RECORDS and layers == LAYERS
    assert layers_of(records) == [ONE, TWO]


def test_what_stays_at_home() -> None:
    facts = Facts(kind="run", text="x", env={"TOKEN": "hunter2"}, args={"A": "hunter2"})
    told = CacheRecord(
        id="r1", keys=["k1"], facts=facts, created_ns=5, last_used_ns=6, uses=3, description="RUN"
    )
    mount = CacheRecord(id="m", type="exec.cachemount", mount="/var/cache/x")
    later = CacheRecord(
        id="r1", keys=["k1"], created_ns=5, last_used_ns=60, uses=9, description="RUN"
    )
    body = encode_cache([told, mount], {})
    assert b"hunter2" not in body and b"/var/cache" not in body
    assert body == encode_cache([later], {}), "the same steps, used at another time"


def test_a_record_without_its_layer_is_left_out() -> None:
    records, _ = decode_cache(encode_cache(RECORDS, {ONE: LAYERS[ONE]}))
    assert [record.id for record in records] == ["r1", "r2"]


def changed(**members: Any) -> bytes:
    """The cache with members of the first record changed."""
    cache = json.loads(encode_cache(RECORDS, LAYERS))
    cache["records"][0].update(members)
    return json.dumps(cache).encode()


def with_layer(**members: Any) -> bytes:
    cache = json.loads(encode_cache(RECORDS, LAYERS))
    cache["layers"][0].update(members)
    return json.dumps(cache).encode()


HOSTILE = {
    "nothing": b"",
    "no JSON": b"\xff{",
    "deep": b"[" * 200_000,
    "another thing": b"[]",
    "another version": b'{"version": 2, "records": []}',
    "no records": b'{"version": 1}',
    "no keys": changed(keys=[]),
    "many keys": changed(keys=[f"k{number}" for number in range(17)]),
    "a key that is none": changed(keys=[7]),
    "a long key": changed(keys=["k" * 257]),
    "a key of two lines": changed(keys=["a\nb"]),
    "no id": changed(id=""),
    "an id like a path\0": changed(id="../\0"),
    "the id of another": changed(id="r2"),
    "the id of a base image": changed(id="base:0123"),
    "above itself": changed(parent="r1"),
    "in a ring": changed(parent="r3"),
    "a bad layer": changed(layer="sha256:zz"),
    "a layer like a path": changed(layer="../../etc"),
    "a layer of sha512": changed(layer="sha512:" + "0" * 128),
    "a negative size": changed(size=-1),
    "a size that is none": changed(size="7"),
    "a time before 1970": changed(created=-1),
    "a time that is none": changed(created="now"),
    "a time after all clocks": changed(created=1 << 63),
    "a long description": changed(description="x" * 1025),
    "a DiffID like a path": with_layer(diffId="sha256:../../x"),
    "a digest that is none": with_layer(digest="sha256:1"),
    "a blob of no bytes": with_layer(size=-1),
    "a blob that is no layer": with_layer(mediaType="text/html"),
    "a blob of a petabyte": with_layer(size=1 << 50),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_caches_are_refused(name: str) -> None:
    with pytest.raises((InvalidArgument, LimitExceeded), match=r"cache|digest"):
        decode_cache(HOSTILE[name])


def test_a_tall_stack_is_refused_in_good_time() -> None:
    rows = [{"id": f"r{n}", "keys": ["k"], "parent": f"r{n - 1}"} for n in range(20_000)]
    for order in (rows, rows[::-1]):
        with pytest.raises(LimitExceeded, match="stacked too high"):
            decode_cache(json.dumps({"version": 1, "records": order}).encode())


def test_too_much_is_refused() -> None:
    rows = [{"id": f"r{n}", "keys": ["k"]} for n in range(50_001)]
    with pytest.raises(LimitExceeded, match="more than 50000"):
        decode_cache(json.dumps({"version": 1, "records": rows}).encode())
    with pytest.raises(LimitExceeded, match="16 MiB"):
        decode_cache(b" " * (MAX_BYTES + 1))
    many = [CacheRecord(id=f"r{n}", keys=["k" * 200], description="d" * 900) for n in range(16_000)]
    with pytest.raises(LimitExceeded, match="too large to export"):
        encode_cache(many, {})
    with pytest.raises(LimitExceeded, match="use --cache-to type=registry"):
        with_inline_cache(json.dumps(CONFIG).encode(), many[:5000])


# -- inline --------------------------------------------------------------------------------


def test_an_image_carries_its_own_steps() -> None:
    config = with_inline_cache(json.dumps(CONFIG).encode(), RECORDS)
    value = json.loads(config)
    assert value.pop(INLINE)["version"] == 1
    assert value == CONFIG, "all else stays"
    assert [record.id for record in inline_cache(config)] == ["r1", "r2"], "not a layer it lacks"
    assert with_inline_cache(config, RECORDS) == config, "twice is once"


def test_an_image_without_any() -> None:
    assert inline_cache(json.dumps(CONFIG)) == []


@pytest.mark.parametrize("name", [name for name in HOSTILE if "DiffID" not in name])
def test_hostile_images(name: str) -> None:
    try:
        member = json.loads(HOSTILE[name])
    except (ValueError, RecursionError):
        member = "damaged"
    config = json.dumps({**CONFIG, INLINE: member})
    if any(word in name for word in ("digest that", "blob of", "blob that")):
        assert [one.id for one in inline_cache(config)] == ["r1", "r2"], "its own layers count"
    else:
        with pytest.raises(EstibaError, match=r"cache|digest"):
            inline_cache(config)


@pytest.mark.parametrize("config", [b"", b"[]", b"\xff", b'{"rootfs": 7}', b'{"rootfs": {}}'])
def test_configs_that_are_none(config: bytes) -> None:
    try:
        assert inline_cache(config) == []
        assert inline_cache(with_inline_cache(config, RECORDS)) == [RECORDS[1]]
    except InvalidArgument as error:
        assert "damaged" in str(error)
