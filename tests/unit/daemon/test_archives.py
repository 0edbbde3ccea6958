"""The root that an export reads, whatever the container does meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.support.records import with_policy

from estiba.containers.ports import Paths
from estiba.daemon.adapters.archives import ContainerArchives
from estiba.model.state import ContainerState


@pytest.mark.parametrize("leaves_directory", [True, False])
def test_one_that_has_just_ended_is_read_from_its_layers(
    tmp_path: Path, leaves_directory: bool
) -> None:
    paths = Paths(tmp_path / "data", tmp_path / "run")
    record = msgspec.structs.replace(with_policy("no"), state=ContainerState.RUNNING)
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "file").touch()
    if leaves_directory:
        paths.rootfs(record.id).mkdir(parents=True)

    @contextmanager
    def mounted_aside(_key: str) -> Iterator[Path]:
        yield tmp_path / "aside"

    engine: Any = SimpleNamespace(world=SimpleNamespace(paths=paths))
    snapshots: Any = SimpleNamespace(mounted_aside=mounted_aside)
    nothing: Any = None
    archives = ContainerArchives(engine, nothing, snapshots, nothing, nothing, "amd64")
    with archives._root(record) as root:
        assert os.listdir(f"/proc/self/fd/{root}") == ["file"]
