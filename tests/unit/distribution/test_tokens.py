"""Bearer tokens, and where secrets go."""

from __future__ import annotations

import io
import json
import threading

import pytest
from tests.support.scripted import Ask, Reply, scripted
from tests.unit.distribution.support import (
    ANN,
    DATA,
    DIGEST,
    GOOD,
    guarded,
    repository,
    serving,
)

from estiba.distribution.credentials import Credentials
from estiba.distribution.proxies import Proxies
from estiba.model.errors import (
    Unauthorized,
    Unavailable,
)


class Tokens:
    """`/token` gives what `answers` says; all else wants the bearer token `good`."""

    def __init__(self, *answers: object, realm: str = "") -> None:
        self.answers = list(answers)
        self.realm = realm
        self.good = "good"
        self.given: list[Ask] = []

    def __call__(self, ask: Ask) -> Reply:
        if ask.path.startswith("/token"):
            self.given.append(ask)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            return answer if isinstance(answer, Reply) else Reply(body=json.dumps(answer).encode())
        if ask.header("Authorization") == f"Bearer {self.good}":
            return GOOD if ask.path.endswith("one") else Reply(status=404)
        realm = self.realm or f"http://{ask.header('Host')}/token"
        challenge = f'Bearer realm="{realm}",service="s",scope="repository:library/thing:pull"'
        return Reply(status=401, headers={"WWW-Authenticate": challenge})


def test_a_token_is_kept() -> None:
    tokens = Tokens({"access_token": "good", "expires_in": 300})
    with scripted(tokens) as server, repository(server.host, credentials=ANN) as source:
        for _ in range(3):
            source.manifest("one")
    assert len(tokens.given) == 1
    assert "scope=repository%3Alibrary%2Fthing%3Apull" in tokens.given[0].path
    assert "account=ann" in tokens.given[0].path


def test_a_token_that_is_not_taken_any_more() -> None:
    tokens = Tokens({"token": "good"}, {"token": "better"})
    with scripted(tokens) as server, repository(server.host) as source:
        source.manifest("one")
        tokens.good = "better"
        source.manifest("one")
        tokens.good = "best"
        with pytest.raises(Unauthorized):
            source.manifest("one")
    assert len(tokens.given) == 3


def test_a_token_whose_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from estiba.distribution import auth

    tokens = Tokens({"token": "good", "expires_in": 100})
    with scripted(tokens) as server, repository(server.host) as source:
        source.manifest("one")
        genuine = auth.time.monotonic
        monkeypatch.setattr(auth.time, "monotonic", lambda: genuine() + 91)
        source.manifest("one")
        monkeypatch.undo()
    assert len(tokens.given) == 2


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"token": 5},
        {"token": "a\r\nX-Evil: 1"},
        {"token": "a b"},
        {"token": "x" * 70_000},
        {"token": "good", "expires_in": "soon"},
        Reply(body=b"[" * 100_000),
        Reply(status=404),
        Reply(status=307, headers={"Location": "http://127.0.0.1:1/"}),
        Reply(body=b" " * (2 << 20)),
    ],
)
def test_what_is_no_token(answer: object) -> None:
    tokens = Tokens(answer)
    with scripted(tokens) as server, repository(server.host, credentials=ANN) as source:
        with pytest.raises(Exception, match=r"gave no token|answers with more"):
            source.manifest("one")
        assert not any("x-evil" in ask.headers for ask in server.asks)


@pytest.mark.parametrize("realm", ["ftp://x/", "nonsense", "http://u:p@x/", "http://x\t/"])
def test_a_token_service_that_is_none(realm: str) -> None:
    with (
        scripted(Tokens({}, realm=realm)) as server,
        repository(server.host) as source,
        pytest.raises(Unavailable, match="no usable token service"),
    ):
        source.manifest("one")


def test_threads_share_one_token() -> None:
    tokens = Tokens({"token": "good"})
    with scripted(tokens) as server, repository(server.host) as source:
        threads = [threading.Thread(target=source.manifest, args=("one",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(tokens.given) == 1


def test_an_upload_elsewhere_carries_no_authorization() -> None:
    with scripted(lambda ask: Reply(status=201)) as storage:
        replies = {"uploads/": Reply(status=202, headers={"Location": f"http://{storage.host}/up"})}
        with (
            scripted(guarded(serving(replies))) as server,
            repository(server.host, credentials=ANN, push=True) as target,
        ):
            target.upload_blob(io.BytesIO(DATA), size=len(DATA), digest=DIGEST)
        assert storage.asks[0].body == DATA
        assert "authorization" not in storage.asks[0].headers


def test_secrets_are_not_shown() -> None:
    credentials = Credentials("ann", "hidden", "hidden", "hidden")
    assert "hidden" not in repr(credentials)
    assert "hidden" not in repr(Proxies("http://u:hidden@h:1", "http://u:hidden@h:1"))
