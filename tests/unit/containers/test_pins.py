from __future__ import annotations

import os
from pathlib import Path

import pytest

from estiba.containers.pins import open_source
from estiba.containers.record import MountPlan
from estiba.model.errors import NotFound


def plan(subpath: str = "") -> MountPlan:
    return MountPlan(type="volume", name="v", destination="/a", driver="p", subpath=subpath)


def where(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.mark.parametrize("subpath", ["", "sub"])
def test_a_link_that_a_confined_plugin_puts_there_leads_nowhere(
    tmp_path: Path, subpath: str
) -> None:
    """It told a directory, and made it a link before the container mounts it."""
    told = tmp_path / "plugin/volume"
    (told / "sub").mkdir(parents=True)
    (tmp_path / "secret/sub").mkdir(parents=True)
    assert where(open_source(told, plan(subpath), follow=False)) == str(told / subpath)
    told.rename(tmp_path / "aside")
    told.symlink_to(tmp_path / "secret")
    assert where(open_source(told, plan(subpath), follow=True)) == str(
        tmp_path / "secret" / subpath
    )
    with pytest.raises(NotFound, match="cannot access path"):
        open_source(told, plan(subpath), follow=False)
    (tmp_path / "plugin").rename(tmp_path / "other")
    (tmp_path / "plugin").symlink_to(tmp_path / "other")
    with pytest.raises(NotFound, match="cannot access path"):
        open_source(told, plan(subpath), follow=False)
