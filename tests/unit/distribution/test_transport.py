"""Retries, kept connections, redirects."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.support.scripted import Ask, Reply, ScriptedServer, Stopwatch, scripted
from tests.unit.distribution.support import (
    ANN,
    BODY,
    DATA,
    DIGEST,
    GOOD,
    QUICK,
    guarded,
    moved,
    read_all,
    repository,
    serving,
)

from estiba.model.errors import (
    Forbidden,
    InvalidArgument,
    NotFound,
    Unavailable,
)

TARGET = "/v2/library/thing/manifests/one"


def in_turn(*replies: Reply) -> Callable[[Ask], Reply]:
    """For manifests; the last one stays."""
    left = list(replies)
    return lambda ask: left.pop(0) if len(left) > 1 else left[0]


# -- retries ---


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with scripted(in_turn(Reply(status=status), GOOD)) as server:
        with repository(server.host) as source:
            assert source.manifest("one").body == BODY
        assert len(server.asks) == 2


@pytest.mark.parametrize("status", [400, 403, 404, 418, 501])
def test_what_stays_wrong_is_not(status: int) -> None:
    with scripted(lambda ask: Reply(status=status)) as server:
        with (
            repository(server.host) as source,
            pytest.raises((InvalidArgument, Forbidden, NotFound, Unavailable)),
        ):
            source.manifest("one")
        assert len(server.asks) == 1


def test_attempts_end() -> None:
    body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}).encode()
    with scripted(lambda ask: Reply(status=429, body=body)) as server:
        with (
            repository(server.host) as source,
            pytest.raises(Unavailable, match="toomanyrequests: slow down; try again later"),
        ):
            source.manifest("one")
        assert len(server.asks) == QUICK.attempts


def test_a_pause_that_the_registry_asks_for() -> None:
    wait = Reply(status=429, headers={"Retry-After": "1"})
    with (
        scripted(in_turn(wait, GOOD)) as server,
        repository(server.host) as source,
        Stopwatch() as watch,
    ):
        source.manifest("one")
    assert 1 <= watch.seconds < 10


@pytest.mark.parametrize("pause", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_pause_too_long_is_told(pause: str) -> None:
    with scripted(lambda ask: Reply(status=429, headers={"Retry-After": pause})) as server:
        with (
            repository(server.host) as source,
            pytest.raises(Unavailable, match=r"try again in [0-9]+ seconds"),
        ):
            source.manifest("one")
        assert len(server.asks) == 1


@pytest.mark.parametrize("pause", ["rubbish", "-5", "1e9", "\xb2", "Fri, 31 Dec 1999 23:59:59 GMT"])
def test_a_pause_that_is_none(pause: str) -> None:
    wait = Reply(status=503, headers={"Retry-After": pause})
    with scripted(in_turn(wait, GOOD)) as server, repository(server.host) as source:
        assert source.manifest("one").body == BODY


def test_a_connection_that_is_reset() -> None:
    with scripted(in_turn(Reply(raw=b""), GOOD)) as server, repository(server.host) as source:
        assert source.manifest("one").body == BODY


def test_nobody_is_there() -> None:
    with (
        repository("127.0.0.1:1") as source,
        Stopwatch() as watch,
        pytest.raises(Unavailable, match="connection refused"),
    ):
        source.manifest("one")
    assert watch.seconds < 10
    with (
        repository("no-such-host.invalid") as source,
        pytest.raises(Unavailable, match="cannot be looked up"),
    ):
        source.manifest("one")


def test_connections_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = []
    genuine = ScriptedServer.get_request

    def count(self: ScriptedServer) -> object:
        accepted.append(1)
        return genuine(self)

    monkeypatch.setattr(ScriptedServer, "get_request", count)
    script = serving({"one": GOOD, DIGEST: Reply(body=DATA), "two": Reply(status=404)})
    with scripted(script) as server, repository(server.host) as source:
        for _ in range(5):
            source.manifest("one")
            with pytest.raises(NotFound):
                source.manifest("two")
            assert read_all(source.blob(DIGEST, len(DATA))) == DATA
    # One found out that TLS is not spoken.
    assert len(accepted) == 2


# -- redirects ---


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_elsewhere_carries_no_authorization(status: int) -> None:
    with scripted(serving({"data": Reply(body=DATA), "one": GOOD})) as storage:
        replies = {
            DIGEST: moved(f"http://{storage.host}/data?sig=1", status),
            "one": moved("/v2/library/thing/manifests/there", status),
            "there": moved(f"http://{storage.host}/one", status),
        }
        with scripted(guarded(serving(replies))) as server:
            with repository(server.host, credentials=ANN) as source:
                assert read_all(source.blob(DIGEST, len(DATA))) == DATA
                assert source.manifest("one").body == BODY
            own = [ask for ask in server.asks if ask.path.endswith("there")]
            assert all(ask.header("Authorization") for ask in own)
        assert len(storage.asks) == 2
        assert not any("authorization" in ask.headers for ask in storage.asks)


def test_a_range_survives_a_redirect() -> None:
    headers = {"Content-Range": f"bytes 5-{len(DATA) - 1}/{len(DATA)}"}
    part = Reply(status=206, headers=headers, body=DATA[5:])
    with scripted(serving({"data": part})) as storage:
        with (
            scripted(serving({DIGEST: moved(f"http://{storage.host}/data")})) as server,
            repository(server.host) as source,
        ):
            assert read_all(source.blob(DIGEST, len(DATA), offset=5)) == DATA[5:]
        assert storage.asks[0].header("Range") == "bytes=5-"


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (TARGET, "redirects in a loop"),
        ("", "without a usable Location"),
        ("http://x y/", "without a usable Location"),
        ("ftp://x.example/", "invalid URL"),
        ("http://u:p@x.example/", "invalid URL"),
        ("http://x.example:99999/", "invalid URL"),
        ("http://[::1/", "Location|invalid URL"),
        ("/" + "x" * 20_000, "too long"),
    ],
)
def test_bad_redirects(location: str, message: str) -> None:
    with (
        scripted(lambda ask: moved(location)) as server,
        repository(server.host) as source,
        pytest.raises(Unavailable, match=message),
    ):
        source.manifest("one")


def test_redirects_without_end() -> None:
    def script(ask: Ask) -> Reply:
        return moved(f"{ask.path}x")

    with scripted(script) as server, repository(server.host) as source:
        with pytest.raises(Unavailable, match="more than 5 times"):
            source.manifest("one")
        assert len(server.asks) == 6
