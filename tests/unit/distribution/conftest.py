"""Names below `.test` are this host, so that registries on it are not taken for insecure."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import wait_until
from tests.support.registries import Authority


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        return genuine("127.0.0.1" if host.endswith(".test") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def sockets() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


@pytest.fixture(autouse=True)
def no_connection_left() -> Iterator[None]:
    """Nothing waits for the garbage collector, after errors neither."""
    before = sockets()
    gc.disable()
    yield
    try:
        wait_until(lambda: sockets() <= before, what="connections to be closed")
    finally:
        gc.enable()
