"""Mirrors: asked first, and passed over when they fail."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.scripted import Reply, scripted
from tests.unit.distribution.support import (
    ANN,
    BODY,
    DATA,
    DIGEST,
    GOOD,
    HASTY,
    QUICK,
    read_all,
    repository,
    serving,
)

from estiba.distribution.cancel import CancelToken
from estiba.model.digest import digest_of


def test_mirrors_come_first_and_may_fail(names: None) -> None:
    mine = serving({"one": GOOD, DIGEST: Reply(body=DATA)})
    with scripted(mine) as mirror, scripted(mine) as server:
        for urls in ((f"http://{mirror.host}",), ("http://127.0.0.1:1", f"http://{mirror.host}/")):
            for key in (server.host, "*"):
                settings = replace(QUICK, mirrors={key: urls})
                with repository(server.host, settings=settings, credentials=ANN) as source:
                    assert source.manifest("one").body == BODY
                    assert read_all(source.blob(DIGEST, len(DATA))) == DATA
        assert server.asks == []
        assert not any("authorization" in ask.headers for ask in mirror.asks)
        # A mirror's path stands before the name.
        settings = replace(QUICK, mirrors={"*": (f"http://{mirror.host}/all/of",)})
        with repository(server.host, settings=settings) as source:
            source.manifest("one")
        assert mirror.asks[-1].path == "/v2/all/of/library/thing/manifests/one"


@pytest.mark.parametrize(
    "bad",
    [
        Reply(status=404),
        Reply(status=500),
        Reply(status=401),
        Reply(body=b"rubbish"),
        Reply(raw=b"rubbish"),
        Reply(hang=0, body=b"x"),
        Reply(status=307, headers={"Location": ""}),
    ],
)
def test_a_bad_mirror_is_passed_over(bad: Reply) -> None:
    with (
        scripted(lambda ask: bad) as mirror,
        scripted(serving({"one": GOOD, DIGEST: Reply(body=DATA)})) as server,
    ):
        patience = HASTY if bad.hang is not None else QUICK
        settings = replace(patience, mirrors={server.host: (f"http://{mirror.host}",)})
        with repository(server.host, settings=settings) as source:
            assert source.manifest("one").body == BODY
            assert source.resolve("one").digest == digest_of(BODY)
            assert read_all(source.blob(DIGEST, len(DATA))) == DATA


def test_a_mirror_that_breaks_or_lies_in_the_middle() -> None:
    rest = Reply(
        status=206,
        headers={"Content-Range": f"bytes 1000-{len(DATA) - 1}/{len(DATA)}"},
        body=DATA[1000:],
    )
    with (
        scripted(lambda ask: Reply(body=DATA, cut=1000)) as mirror,
        scripted(serving({DIGEST: rest})) as server,
    ):
        settings = replace(QUICK, mirrors={server.host: (f"http://{mirror.host}",)})
        with repository(server.host, settings=settings) as source:
            assert read_all(source.blob(DIGEST, len(DATA))) == DATA
        assert server.asks[0].header("Range") == "bytes=1000-"
    with (
        scripted(lambda ask: Reply(body=DATA[::-1])) as mirror,
        scripted(serving({DIGEST: Reply(body=DATA)})) as server,
    ):
        settings = replace(QUICK, mirrors={server.host: (f"http://{mirror.host}",)})
        with repository(server.host, settings=settings) as source:
            with pytest.raises(Exception, match="other bytes"):
                read_all(source.blob(DIGEST, len(DATA)))
            assert read_all(source.blob(DIGEST, len(DATA))) == DATA
        with repository(server.host, settings=settings) as source:
            # A fork learns for all.
            with pytest.raises(Exception, match="other bytes"):
                read_all(source.fork(CancelToken()).blob(DIGEST, len(DATA)))
            assert read_all(source.blob(DIGEST, len(DATA))) == DATA
            assert source.read_blob(DIGEST, len(DATA)) == DATA
        with repository(server.host, settings=settings) as source:
            assert source.read_blob(DIGEST, len(DATA)) == DATA


def test_pushes_pass_mirrors_by() -> None:
    with scripted(serving({})) as mirror, scripted(serving({"one": GOOD})) as server:
        settings = replace(QUICK, mirrors={"*": (f"http://{mirror.host}",)})
        with repository(server.host, settings=settings, push=True) as target:
            target.manifest("one")
            target.has_blob(DIGEST)
        assert mirror.asks == []
