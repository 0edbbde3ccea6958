"""Fixtures that unit tests share."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest


@pytest.fixture
def little_room() -> Iterator[int]:
    """No file grows over so many bytes: a write takes what fits, as on a disk that is full."""
    room, (soft, hard) = 1 << 16, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    yield room
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
