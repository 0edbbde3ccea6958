"""Compressed forms of a layer: guessed from their beginning, made again to the byte."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator

import pytest

from estiba.storage.encoding import OWN, PLAIN, UNKNOWN, Blob, Probe, encoded

ZLIB = "gzip/zlib6/1f8b08000000000000ff"
CONTENTS = {
    "text": "".join(f"line {n} of a layer, {n * 7919 % 10007}\n" for n in range(150_000)).encode(),
    "random": os.urandom(2 << 20),
    "small": b"x" * 1000,
    "zeros": bytes(1024),
}


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return iter([data[start : start + size] for start in range(0, len(data), size)])


def guess(blob: bytes, tar: bytes) -> str:
    probe = Probe()
    for piece in pieces(blob, 70_000):
        probe.raw(piece)
    for piece in pieces(tar, 90_000):
        probe.plain(piece)
    return probe.encoding()


@pytest.mark.parametrize("encoding", [OWN, ZLIB, PLAIN])
@pytest.mark.parametrize("name", CONTENTS)
def test_a_known_form_is_made_again(name: str, encoding: str) -> None:
    data = CONTENTS[name]
    made = b"".join(encoded(pieces(data, 1000), encoding))
    assert made == b"".join(encoded(pieces(data, 300_000), encoding)), "however it is cut"
    assert made == data if encoding == PLAIN else gzip.decompress(made) == data
    assert b"".join(encoded(pieces(data, 4096), guess(made, data))) == made


def test_python_s_gzip_is_known(tmp_path: object) -> None:
    data = CONTENTS["text"]
    blob = gzip.compress(data, 6, mtime=0)
    assert b"".join(encoded(pieces(data, 4096), guess(blob, data))) == blob


def test_what_nobody_knows() -> None:
    data = CONTENTS["text"]
    assert guess(gzip.compress(data, 2, mtime=0), data) == UNKNOWN
    assert guess(b"\x28\xb5\x2f\xfd" + bytes(600), data) == UNKNOWN


def test_what_is_proven_stays_so() -> None:
    proven = Blob(digest="sha256:1", size=1, encoding=OWN, is_proven=True, places=["a", "b"])
    seen = Blob(digest="sha256:1", size=1, media_type="gzip", places=["c", "a"])
    joined = proven.joined(seen)
    assert (joined.encoding, joined.is_proven, joined.media_type) == (OWN, True, "gzip")
    assert joined.places == ["b", "c", "a"]
    assert joined.settled(is_same=False).encoding == UNKNOWN
