"""Words, names and lists of registries."""

from __future__ import annotations

import json

import pytest
from tests.support.scripted import Ask, Reply, scripted
from tests.unit.distribution.support import (
    QUICK,
    ask_manifest,
    noise,
    repository,
    serving,
)

from estiba.distribution.content import OCI_MANIFEST
from estiba.distribution.credentials import Credentials
from estiba.distribution.registry import Registry
from estiba.distribution.repository import Repository
from estiba.model.digest import digest_of
from estiba.model.errors import (
    EstibaError,
    InvalidArgument,
    LimitExceeded,
    Unavailable,
)
from estiba.model.reference import Reference

DATA = noise(300_000)
DIGEST = digest_of(DATA)


def test_words_of_a_registry_do_no_harm() -> None:
    evil = {"errors": [{"code": "DENIED\x1b[2J", "message": "a\r\nb\u202e" + "x" * 5000}]}
    reply = Reply(status=400, body=json.dumps(evil).encode())
    with pytest.raises(InvalidArgument) as caught:
        ask_manifest(reply)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 500


@pytest.mark.parametrize("target", ["a b", "a\r\nX: y", "../../x", "", "a/b", "sha256:zz", "a?b"])
def test_bad_targets(target: str) -> None:
    with repository("127.0.0.1:1") as source:
        for ask in (source.manifest, source.resolve, source.delete_manifest):
            with pytest.raises(InvalidArgument):
                ask(target)
        with pytest.raises(InvalidArgument):
            source.put_manifest(target, b"{}", OCI_MANIFEST)
        with pytest.raises(InvalidArgument):
            source.blob(target, 5)


@pytest.mark.parametrize(
    ("domain", "path"),
    [
        ("r.example", "a/../b"),
        ("r.example", "A"),
        ("r.example", "a b"),
        ("r.example", "a\r\nHost: x"),
        ("r.example/x", "a"),
        ("r.example\r\n", "a"),
        ("user@r.example", "a"),
        ("", "a"),
        ("r.example", ""),
        ("r.example", "a:b"),
        ("r.example", "a@b"),
    ],
)
def test_bad_repositories(domain: str, path: str) -> None:
    with pytest.raises(InvalidArgument):
        Repository(Reference(domain, path), QUICK)


def test_secrets_that_would_break_a_header() -> None:
    evil = Credentials(registry_token="a\r\nX-Evil: 1")
    with scripted(serving({})) as server, repository(server.host, credentials=evil) as source:
        with pytest.raises(InvalidArgument, match="illegal characters"):
            source.manifest("one")
        with pytest.raises(InvalidArgument):
            source.put_manifest("one", b"{}", "a\r\nX-Evil: 1")
        assert not any("x-evil" in ask.headers for ask in server.asks)


def tags_of(*pages: tuple[object, str]) -> list[str]:
    """Each page is its list and its Link."""
    left = iter(pages)

    def script(ask: Ask) -> Reply:
        tags, link = next(left)
        headers = {"Link": link} if link else {}
        return Reply(headers=headers, body=json.dumps({"name": "x", "tags": tags}).encode())

    with scripted(script) as server, repository(server.host) as source:
        return source.tags()


def test_pages_of_tags() -> None:
    assert tags_of((["a"], '<?n=1&last=a>; rel="next"'), (["b"], "")) == ["a", "b"]
    assert tags_of((["a"], "</v2/other?last=a>;rel=next"), (["b"], "")) == ["a", "b"]
    assert tags_of((["a"], '</x>; rel="prev", </y>; rel="next"'), (["b"], "")) == ["a", "b"]
    assert tags_of((None, "")) == []
    assert tags_of((["ok", "no/no", "\x1b[2J", 5, None, "a b"], "")) == ["ok"]


@pytest.mark.parametrize(
    ("pages", "error"),
    [
        ([(["a"], "<?n=1>; rel=next")] * 5, Unavailable),
        ([(["a"], "<http://127.0.0.1:1/v2/>; rel=next")], Unavailable),
        ([("text", "")], Unavailable),
        ([(["a"] * 99_000, f"<?n={n}>; rel=next") for n in range(3)], LimitExceeded),
    ],
)
def test_bad_pages(pages: list[tuple[object, str]], error: type[EstibaError]) -> None:
    with pytest.raises(error):
        tags_of(*pages)


def test_a_catalogue_with_bad_names() -> None:
    names = ["good/one", "Bad", "../x", "a b", 7, "\x1b", "library/y"]
    body = json.dumps({"repositories": names}).encode()
    with (
        scripted(serving({"_catalog": Reply(body=body)})) as server,
        Registry(server.host, QUICK) as registry,
    ):
        assert registry.catalog() == ["good/one", "library/y"]


def test_referrers() -> None:
    good = {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": 5, "artifactType": "a/b"}
    entries = [good, {**good, "digest": "x"}, {**good, "size": -1}, {**good, "size": "5"}, 7]
    body = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    tag = DIGEST.replace(":", "-")
    for end in (f"referrers/{DIGEST}", f"manifests/{tag}"):
        with (
            scripted(serving({end: Reply(body=body)})) as server,
            repository(server.host) as source,
        ):
            found = source.referrers(DIGEST, "a/b")
            assert [(r.content.digest, r.artifact_type) for r in found] == [(DIGEST, "a/b")]
            assert source.referrers(DIGEST, "c/d") == []
