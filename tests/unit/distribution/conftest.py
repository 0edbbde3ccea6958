"""Names below `.test` are this host, so that registries on it are not taken for insecure."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
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
