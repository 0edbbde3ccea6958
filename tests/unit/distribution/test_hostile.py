"""Registries that lie, cut off and mislead: each ends in a clear error."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable

import pytest
from tests.support.scripted import Ask, Reply, scripted
from tests.unit.distribution.support import (
    ask_manifest,
    manifest_of,
    noise,
    read_all,
    repository,
    serving,
)

from estiba.distribution.content import OCI_INDEX, OCI_MANIFEST
from estiba.model.digest import digest_of
from estiba.model.errors import (
    DataLoss,
    EstibaError,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    Unavailable,
)

DATA = noise(300_000)
DIGEST = digest_of(DATA)
MANIFEST = manifest_of([b"layer"])
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
TYPED = {"Content-Type": OCI_MANIFEST}


def fetch(reply: Reply | Callable[[Ask], Reply], offset: int = 0) -> tuple[bytes, list[Ask]]:
    script = serving({DIGEST: reply}) if isinstance(reply, Reply) else reply
    with scripted(script) as server, repository(server.host) as source:
        data = read_all(source.blob(DIGEST, len(DATA), offset=offset))
        return data, [ask for ask in server.asks if ask.path.endswith(DIGEST)]


# -- blobs ---


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(body=noise(len(DATA), 2)), "other bytes, whose digest is"),
        (Reply(body=DATA[:-1]), "announced, the registry has 299999"),
        (Reply(body=DATA + b"x"), "announced, the registry has 300001"),
        (Reply(body=DATA + b"x", chunked=True), "more than 300000 bytes"),
        (Reply(body=DATA + b"x", length=None), "more than 300000 bytes"),
    ],
)
def test_a_blob_that_is_another(reply: Reply, message: str) -> None:
    with pytest.raises(DataLoss, match=message):
        fetch(reply)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=DATA, cut=1000),
        Reply(body=DATA, cut=1000, chunked=True),
        Reply(body=DATA[:1000], chunked=True),
        Reply(body=DATA[:1000], length=None),
        Reply(body=DATA, cut=0),
        Reply(raw=b""),
        Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Le"),
    ],
)
def test_a_blob_that_never_comes_whole(reply: Reply) -> None:
    with pytest.raises(Unavailable):
        fetch(reply)


def test_a_blob_in_pieces_is_put_together() -> None:
    """Every connection brings some of it and then breaks."""

    def script(ask: Ask) -> Reply:
        at = int(ask.header("Range").removeprefix("bytes=").rstrip("-") or 0)
        headers = {"Content-Range": f"bytes {at}-{len(DATA) - 1}/{len(DATA)}"} if at else {}
        rest = DATA[at:]
        cut = 70_000 if len(rest) > 70_000 else None
        return Reply(status=206 if at else 200, headers=headers, body=rest, cut=cut)

    data, asks = fetch(script)
    assert data == DATA
    assert len(asks) == 5


def test_a_registry_without_ranges_sends_all_again() -> None:
    replies = iter([Reply(body=DATA, cut=100_000), Reply(body=DATA)])
    data, asks = fetch(lambda ask: next(replies))
    assert data == DATA
    assert asks[1].header("Range") == "bytes=100000-"
    assert fetch(Reply(body=DATA), offset=299_000)[0] == DATA[299_000:]


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ("bytes 0-299999/300000", Unavailable),
        ("bytes 1001-299999/300000", Unavailable),
        ("bytes 1000-300000/300000", Unavailable),
        ("bytes 1000-999/*", Unavailable),
        ("rubbish", Unavailable),
        ("", Unavailable),
        ("bytes 1000-299999/300001", DataLoss),
    ],
)
def test_lies_about_ranges(told: str, error: type[EstibaError]) -> None:
    reply = Reply(status=206, headers={"Content-Range": told}, body=DATA[1000:])
    with pytest.raises(error, match=r"lies about ranges|announced"):
        fetch(reply, offset=1000)


def test_a_range_that_is_not_there() -> None:
    with pytest.raises(DataLoss, match="the registry has less"):
        fetch(Reply(status=416), offset=1000)


def test_another_encoding_is_refused() -> None:
    reply = Reply(headers={"Content-Encoding": "gzip"}, body=DATA)
    with pytest.raises(Unavailable, match="another encoding"):
        fetch(reply)


# -- manifests ---


def document(**members: object) -> bytes:
    return json.dumps({"schemaVersion": 2, **members}).encode()


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (Reply(body=b" " * ((4 << 20) + 1)), LimitExceeded, "more than 4194304"),
        (Reply(body=b" " * (5 << 20), chunked=True), LimitExceeded, "more than 4194304"),
        (Reply(body=b"[" * 100_000), InvalidArgument, "no manifest"),
        (Reply(body=b"<html>"), InvalidArgument, "no manifest"),
        (Reply(body=b"[]"), InvalidArgument, "no manifest"),
        (Reply(body=document(mediaType="text/x")), InvalidArgument, "unknown media type"),
        (Reply(body=document(mediaType=[1])), InvalidArgument, "unknown media type"),
        (Reply(body=document(manifests=[], layers=[])), InvalidArgument, "ambiguous"),
        (
            Reply(body=document(mediaType=OCI_INDEX), headers=TYPED),
            InvalidArgument,
            "media types differ",
        ),
        (Reply(body=document(manifests=[]), headers=TYPED), InvalidArgument, "is not what its"),
        (Reply(body=b'{"schemaVersion":1,"name":"x"}'), InvalidArgument, "schema 1"),
        (
            Reply(body=MANIFEST, headers={"Docker-Content-Digest": DIGEST}),
            DataLoss,
            "other bytes than",
        ),
        (
            Reply(
                body=b"{}",
                headers={
                    "Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"
                },
            ),
            InvalidArgument,
            "schema 1",
        ),
    ],
)
def test_bad_manifests(reply: Reply, error: type[EstibaError], message: str) -> None:
    with pytest.raises(error, match=message):
        ask_manifest(reply)


def test_a_manifest_of_another_digest() -> None:
    with pytest.raises(DataLoss, match="other bytes than"):
        ask_manifest(Reply(body=MANIFEST, headers=TYPED), DIGEST)


@pytest.mark.parametrize("kind", ["application/json", "text/plain; charset=utf-8", ""])
def test_a_media_type_that_the_header_does_not_tell(kind: str) -> None:
    assert ask_manifest(Reply(body=MANIFEST, headers={"Content-Type": kind})) == MANIFEST


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": OCI_MANIFEST},
        {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": "sha256:short"},
        {"Content-Type": "text/html", "Docker-Content-Digest": digest_of(MANIFEST)},
    ],
)
def test_a_head_that_says_too_little_is_followed_by_a_get(headers: dict[str, str]) -> None:
    reply = Reply(body=MANIFEST, headers=headers)
    with scripted(serving({"one": reply})) as server, repository(server.host) as source:
        assert source.resolve("one").digest == digest_of(MANIFEST)
        assert [ask.method for ask in server.asks if "manifests" in ask.path] == ["HEAD", "GET"]


def test_a_head_of_another_digest() -> None:
    reply = Reply(body=MANIFEST, headers={**TYPED, "Docker-Content-Digest": digest_of(MANIFEST)})
    with (
        scripted(serving({DIGEST: reply})) as server,
        repository(server.host) as source,
        pytest.raises(DataLoss, match="says that its digest is"),
    ):
        source.resolve(DIGEST)


# -- uploads ---


def test_an_upload_that_gets_nowhere() -> None:
    """A registry that takes every chunk and says that nothing came."""

    def script(ask: Ask) -> Reply:
        headers = {"Location": "/v2/library/thing/blobs/uploads/1", "Range": "0-0"}
        return Reply(status=404 if ask.method == "HEAD" else 202, headers=headers)

    with scripted(script) as server, repository(server.host, push=True) as target:
        with pytest.raises(Unavailable, match="takes nothing of the upload"):
            target.upload_blob(io.BytesIO(noise(9 << 20)))
        assert server.paths("DELETE")


def test_an_upload_that_has_more_than_was_sent() -> None:
    def script(ask: Ask) -> Reply:
        headers = {"Location": "/v2/library/thing/blobs/uploads/1", "Range": "0-99999999"}
        return Reply(status=202, headers=headers)

    with (
        scripted(script) as server,
        repository(server.host, push=True) as target,
        pytest.raises(DataLoss, match="100000000 bytes, 8388608 were sent"),
    ):
        target.upload_blob(io.BytesIO(noise(9 << 20)))


def test_an_upload_that_is_refused_before_its_end() -> None:
    """The answer counts that comes before all is sent."""
    denied = json.dumps({"errors": [{"code": "DENIED", "message": "quota"}]}).encode()
    head = b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n" % len(denied)

    def script(ask: Ask) -> Reply:
        if ask.method == "PUT":
            return Reply(raw=head + denied)
        return Reply(status=202, headers={"Location": "/v2/library/thing/blobs/uploads/1"})

    with (
        scripted(script) as server,
        repository(server.host, push=True) as target,
        pytest.raises(EstibaError, match="denied: quota"),
    ):
        target.upload_blob(io.BytesIO(DATA), size=len(DATA), digest=DIGEST)


@pytest.mark.parametrize("location", ["", "ftp://x/", "http://a b/", "http://u:p@h/"])
def test_an_upload_without_a_place(location: str) -> None:
    headers = {"Location": location} if location else {}
    with (
        scripted(lambda ask: Reply(status=202, headers=headers)) as server,
        repository(server.host, push=True) as target,
        pytest.raises(Unavailable),
    ):
        target.upload_blob(io.BytesIO(DATA), size=len(DATA), digest=DIGEST)


def test_a_manifest_that_is_stored_otherwise() -> None:
    reply = Reply(status=201, headers={"Docker-Content-Digest": DIGEST})
    with (
        scripted(lambda ask: reply) as server,
        repository(server.host, push=True) as target,
        pytest.raises(DataLoss, match="stored other bytes"),
    ):
        target.put_manifest("one", MANIFEST, OCI_MANIFEST)


def test_a_blob_that_is_gone_meanwhile() -> None:
    replies = iter([Reply(body=DATA, cut=100_000), Reply(status=404)])
    with pytest.raises(NotFound):
        fetch(lambda ask: next(replies))


def test_hundreds_of_headers() -> None:
    begun = time.monotonic()
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"H%d: x\r\n" % n for n in range(1000))
    for raw in (head, b"HTTP/1.1 200 OK\r\nH: " + b"x" * 70_000, b"\x16\x03\x01" * 100, b"\n" * 9):
        with pytest.raises(Unavailable, match="does not speak HTTP"):
            fetch(Reply(raw=raw + b"\r\n\r\n"))
    assert time.monotonic() - begun < 10


def test_an_upload_that_is_still_busy_after_a_break() -> None:
    """The registry has not noticed yet, and then has more than it said."""
    puts: list[str] = []

    def script(ask: Ask) -> Reply:
        headers = {"Location": "/v2/library/thing/blobs/uploads/1"}
        if ask.method == "PUT":
            puts.append(ask.header("Content-Range"))
            return [Reply(raw=b""), Reply(status=416), Reply(status=201)][len(puts) - 1]
        headers["Range"] = "0-999" if len(puts) == 1 else "0-1999"
        return Reply(status=204 if ask.method == "GET" else 202, headers=headers)

    with scripted(script) as server, repository(server.host, push=True) as target:
        target.upload_blob(io.BytesIO(DATA), size=len(DATA), digest=DIGEST)
    assert puts == ["", "1000-299999", "2000-299999"]
