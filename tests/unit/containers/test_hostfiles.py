"""Files of the host's that a container gets, whatever is in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.records import make_record

from estiba.containers import hostfiles
from estiba.containers.hostfiles import HostFiles
from estiba.containers.ports import Paths
from estiba.model.container import HostConfig


def test_a_hosts_file_that_is_no_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"127.0.0.1 localhost # B\xfcro\n")
    monkeypatch.setattr(hostfiles, "_HOSTS", theirs)
    record = make_record(host_config=HostConfig(network_mode="host", extra_hosts=["db:10.0.0.9"]))
    files = HostFiles(Paths(tmp_path, tmp_path))
    files.path(record, "hosts").parent.mkdir(parents=True)
    files.write(record, [])
    written = files.path(record, "hosts").read_bytes()
    assert b"127.0.0.1 localhost # B\xfcro\n" in written
    assert b"10.0.0.9\tdb\n" in written
