"""Failures on the way, and the end of what goes on in the background."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from estiba.kernel import failpoint
from estiba.kernel.blocking import start_clearing


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, tuple[int, str]]]:
    """Points at which something fails, while it stands in here."""
    points: dict[str, tuple[int, str]] = {}
    monkeypatch.setattr(failpoint, "_points", points)
    monkeypatch.setattr(failpoint, "_hits", {})
    yield points


@pytest.fixture(autouse=True, scope="module")
def _background() -> Iterator[None]:
    """What goes in the background has gone before the directories do."""
    yield
    is_over = threading.Event()
    start_clearing(is_over.set)
    assert is_over.wait(60)
