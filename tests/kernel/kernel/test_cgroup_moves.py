"""The early move changes nothing but time."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba.kernel import cgroup_moves

pytestmark = pytest.mark.kernel


def test_the_process_stays_where_it_is() -> None:
    before = Path("/proc/self/cgroup").read_text()
    group = cgroup_moves._own_group()
    assert (group / "cgroup.procs").exists()
    cgroup_moves._move_nowhere()
    assert Path("/proc/self/cgroup").read_text() == before
