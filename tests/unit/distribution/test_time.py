"""Registries that hang, and callers that do not want to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.support.scripted import Ask, Reply, Stopwatch, scripted
from tests.unit.distribution.support import (
    HASTY,
    QUICK,
    manifest_of,
    noise,
    read_all,
    repository,
    serving,
)

from estiba.distribution.cancel import CancelToken
from estiba.distribution.content import OCI_MANIFEST
from estiba.model.digest import digest_of
from estiba.model.errors import (
    Cancelled,
    Unavailable,
)

DATA = noise(300_000)
DIGEST = digest_of(DATA)
MANIFEST = manifest_of([b"layer"])
TYPED = {"Content-Type": OCI_MANIFEST}


def fetch(reply: Reply | Callable[[Ask], Reply], offset: int = 0) -> tuple[bytes, list[Ask]]:
    script = serving({DIGEST: reply}) if isinstance(reply, Reply) else reply
    with scripted(script) as server, repository(server.host, settings=HASTY) as source:
        data = read_all(source.blob(DIGEST, len(DATA), offset=offset))
        return data, [ask for ask in server.asks if ask.path.endswith(DIGEST)]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=DATA, hang=0),
        Reply(body=DATA, hang=100_000),
        Reply(body=DATA, drip_s=0.02),
        Reply(raw=b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + b"HTTP/1.1 200 OK\r\n"),
    ],
)
def test_a_registry_that_hangs(reply: Reply) -> None:
    with Stopwatch() as watch, pytest.raises(Unavailable):
        fetch(reply)
    assert watch.seconds < 10


def test_a_registry_that_does_not_answer_at_all() -> None:
    release = threading.Event()

    def script(ask: Ask) -> Reply:
        release.wait(20)
        return Reply(raw=b"")

    with scripted(script) as server, repository(server.host, settings=HASTY) as source:
        with Stopwatch() as watch, pytest.raises(Unavailable, match="did not answer in time"):
            source.manifest("one")
        release.set()
    assert watch.seconds < 10


def cancelled_soon(cancel: Callable[[], None], work: Callable[[], object]) -> None:
    """`cancel` ends `work` at once, though its registry hangs."""
    timer = threading.Timer(0.2, cancel)
    with Stopwatch() as watch, pytest.raises(Cancelled):
        timer.start()
        work()
    timer.join()
    assert 0.1 < watch.seconds < 10


PATIENT = replace(QUICK, read_timeout_s=30, connect_timeout_s=30, backoff_s=30)


@pytest.mark.parametrize("tls", [False, True])
def test_a_cancelled_read(tls: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    from tests.support.registries import Authority

    certificate = None
    if tls:
        certificate = Authority(tmp_path_factory.mktemp("ca")).issue("server", "127.0.0.1")
    for hang in (0, 100_000):
        script = serving({DIGEST: Reply(body=DATA, hang=hang)})
        with scripted(script, certificate=certificate) as server:
            with repository(server.host, settings=PATIENT) as source:
                stream = source.blob(DIGEST, len(DATA))
                cancelled_soon(source.cancel.cancel, lambda: read_all(stream))  # noqa: B023
                with pytest.raises(Cancelled):
                    source.manifest("one")
            with repository(server.host, settings=PATIENT) as source:
                stream = source.blob(DIGEST, len(DATA))
                cancelled_soon(stream.close, lambda: read_all(stream))  # noqa: B023


def test_a_cancelled_head() -> None:
    release = threading.Event()

    def script(ask: Ask) -> Reply:
        release.wait(20)
        return Reply()

    with scripted(script) as server, repository(server.host, settings=PATIENT) as source:
        cancelled_soon(source.cancel.cancel, lambda: source.manifest("one"))
        release.set()


def test_a_cancelled_pause() -> None:
    with (
        scripted(lambda ask: Reply(status=503)) as server,
        repository(server.host, settings=PATIENT) as source,
    ):
        cancelled_soon(source.cancel.cancel, lambda: source.manifest("one"))


def test_a_part_is_cancelled_alone() -> None:
    hanging = {DIGEST: Reply(body=DATA, hang=5), "one": Reply(body=MANIFEST, headers=TYPED)}
    with scripted(serving(hanging)) as server, repository(server.host, settings=PATIENT) as source:
        cancel = CancelToken()
        stream = source.fork(cancel).blob(DIGEST, len(DATA))
        cancelled_soon(cancel.cancel, lambda: read_all(stream))
        assert source.manifest("one").body == MANIFEST
