"""Layers that several pulls wait for."""

from __future__ import annotations

import threading

import pytest

from estiba.images import fetching
from estiba.images.fetching import Fetch, Fetches
from estiba.model.errors import Unavailable
from estiba.model.image import Descriptor

DIGEST = "sha256:" + "ab" * 32


class NoImages:
    """`images.images.Images` that takes nothing in."""

    def ingest(self, *_: object, **__: object) -> None:
        raise Unavailable("the registry is away")


class NoThread:
    """What `threading.Thread` is when there are too many."""

    def __init__(self, **_: object) -> None:
        pass

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


def test_nobody_waits_for_a_fetch_that_could_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    fetches = Fetches(NoImages(), 1)  # type: ignore[arg-type]

    def join() -> Fetch:
        wanted = Fetch(Descriptor(media_type="layer", digest=DIGEST, size=1), DIGEST, "here")
        return fetches.join(wanted, lambda *_: pytest.fail("asked"), threading.Event())

    with monkeypatch.context() as crowded:
        crowded.setattr(fetching.threading, "Thread", NoThread)
        with pytest.raises(RuntimeError, match="thread"):
            join()
    fetch = join()
    assert fetch.finished.wait(10)
    assert isinstance(fetch.error, Unavailable)
