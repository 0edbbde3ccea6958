"""Keeping logs within their limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.records import make_record
from tests.support.world import FakeWorld

from estiba.containers.logkeeper import LogKeeper, limits, rotate
from estiba.containers.logs import log_files
from estiba.containers.ports import Paths
from estiba.containers.record import ContainerRecord
from estiba.model.container import HostConfig, LogConfig
from estiba.model.state import ContainerState


def record(driver: str = "json-file", **options: str) -> ContainerRecord:
    config = {name.replace("_", "-"): value for name, value in options.items()}
    host = HostConfig(log_config=LogConfig(type=driver, config=config))
    return make_record("web", host_config=host, state=ContainerState.RUNNING)


def contents(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(path.parent.iterdir())}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, (-1, 3)),
        ({"max_size": "10m"}, (10 << 20, 3)),
        ({"max_size": "1k", "max_file": "1"}, (1024, 1)),
        ({"max_size": "-1", "max_file": "9"}, (-1, 9)),
    ],
)
def test_limits(options: dict[str, str], wanted: tuple[int, int]) -> None:
    assert limits(record(**options)) == wanted


@pytest.mark.parametrize("files", [1, 2, 3, 5])
def test_rotation_keeps_so_many_of_the_newest(tmp_path: Path, files: int) -> None:
    path = tmp_path / "log"
    for number in range(8):
        path.write_text(str(number))
        rotate(path, files)
    kept = contents(path)
    assert kept == {f"log.{age}": str(8 - age) for age in range(1, files)}


def test_a_log_is_whole_for_whoever_reads_it_in_the_middle_of_a_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    for name, text in (("log", "new"), ("log.1", "old"), ("log.2", "oldest")):
        path.with_name(name).write_text(text)
    rename, read = os.rename, []

    def renaming(source: Path, target: Path) -> None:
        rename(source, target)
        read.append([file.read_text() for file in log_files(path)])

    monkeypatch.setattr(os, "rename", renaming)
    rotate(path, 5)
    assert read == [["oldest", "old", "new"]] * 3


@pytest.mark.parametrize(
    ("files", "kept"),
    [
        (5, {"log.1": "new", "log.2": "old", "log.3": "oldest"}),
        (3, {"log.1": "new", "log.2": "old"}),
        (1, {}),
    ],
)
def test_a_rotation_that_was_cut_off_in_between_leaves_nothing_behind(
    tmp_path: Path, files: int, kept: dict[str, str]
) -> None:
    path = tmp_path / "log"
    for name, text in (("log", "new"), ("log.2", "old"), ("log.3", "oldest")):
        path.with_name(name).write_text(text)
    rotate(path, files)
    assert contents(path) == kept


def test_a_lower_limit_removes_what_is_above_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for age in range(1, 6):
        path.with_name(f"log.{age}").write_text(str(age))
    path.write_text("0")
    rotate(path, 2)
    assert contents(path) == {"log.1": "0"}


def test_no_log_is_nothing_to_rotate(tmp_path: Path) -> None:
    rotate(tmp_path / "log", 3)
    rotate(tmp_path / "log", 1)
    assert contents(tmp_path / "log") == {}


class Stand:
    """A keeper over a fake monitor and real files."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root / "data", root / "run")
        self.world = FakeWorld()
        self.keeper = LogKeeper(self.paths, self.world, list)

    def log(self, wanted: ContainerRecord, text: str) -> Path:
        path = self.paths.log(wanted.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    @property
    def reopened(self) -> int:
        return self.world.calls.count("reopen_log web")


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


@pytest.mark.parametrize(
    ("size", "rotated"), [(0, False), (1024, False), (1025, True), (5000, True)]
)
async def test_a_log_over_its_size_is_rotated_and_the_monitor_told(
    stand: Stand, size: int, rotated: bool
) -> None:
    wanted = record(max_size="1k", max_file="2")
    path = stand.log(wanted, "x" * size)
    await stand.keeper.check(wanted)
    assert path.exists() != rotated
    assert path.with_name(f"{path.name}.1").exists() == rotated
    assert stand.reopened == int(rotated)


async def test_a_log_without_limit_stays(stand: Stand) -> None:
    wanted = record()
    path = stand.log(wanted, "x" * 100_000)
    await stand.keeper.check(wanted)
    assert path.exists()
    assert stand.reopened == 0


async def test_a_rotation_that_a_crash_cut_off_is_finished(stand: Stand) -> None:
    wanted = record(max_size="1k")
    stand.log(wanted, "x").rename(stand.paths.log(wanted.id).with_name("container.log.1"))
    await stand.keeper.check(wanted)
    assert stand.reopened == 1
    assert contents(stand.paths.log(wanted.id)) == {"container.log.1": "x"}


async def test_no_log_is_kept_for_driver_none(stand: Stand) -> None:
    await stand.keeper.check(record("none"))
    assert stand.reopened == 0


@pytest.mark.parametrize("state", [ContainerState.RUNNING, ContainerState.EXITED])
async def test_truncate_removes_every_file(stand: Stand, state: ContainerState) -> None:
    wanted = make_record("web", state=state)
    path = stand.log(wanted, "x")
    path.with_name(f"{path.name}.1").write_text("y")
    await stand.keeper.truncate(wanted)
    assert contents(path) == {}
    assert stand.reopened == int(state.is_up)
