"""Device nodes of the host, which come and go as somebody plugs things in."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event, Thread

import pytest

from estiba.model.container import DeviceMapping, HostConfig
from estiba.model.errors import InvalidArgument
from estiba.runtime import devices
from estiba.runtime.devices import resolve_devices


def test_all_devices_while_some_come_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop device that somebody took away kept a privileged container from starting."""
    monkeypatch.setattr(devices, "_DEV", tmp_path)
    (tmp_path / "plain").touch()
    over = Event()

    def plug() -> None:
        while not over.is_set():
            os.mkdir(tmp_path / "bus")
            os.mkfifo(tmp_path / "bus/one")
            os.unlink(tmp_path / "bus/one")
            os.rmdir(tmp_path / "bus")

    thread = Thread(target=plug)
    thread.start()
    try:
        for _ in range(2000):
            assert resolve_devices(HostConfig(privileged=True)).nodes == ()
    finally:
        over.set()
        thread.join()


def test_a_device_that_is_named_must_be_there() -> None:
    mapping = DeviceMapping(path_on_host="/dev/nothing-here")
    with pytest.raises(InvalidArgument, match="no such file or directory"):
        resolve_devices(HostConfig(devices=[mapping]))
