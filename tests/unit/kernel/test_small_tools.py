"""Whole files, fail points, directory watches and the way into threads."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from estiba.kernel import failpoint
from estiba.kernel.blocking import run_blocking
from estiba.kernel.files import write_atomic
from estiba.kernel.inotify import DirectoryWatch, SignWatch

# -- whole files ---------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_with_its_mode_whatever_the_umask(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"old")
    old_umask = os.umask(0o077)
    try:
        write_atomic(path, b"new", mode=0o644, durable=durable)
    finally:
        os.umask(old_umask)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["hosts"]


def test_a_reader_keeps_the_file_that_it_opened(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    write_atomic(path, b"old")
    with path.open("rb") as reader:
        write_atomic(path, b"new")
        assert reader.read() == b"old"


@pytest.mark.parametrize("failing", ["fsync", "rename", "fchmod"])
def test_a_failure_keeps_the_old_content_and_leaves_no_temporary(
    tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hosts"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["hosts"]


# -- fail points ---------------------------------------------------------------------------


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(failpoint, "_hits", {})
    return monkeypatch


def test_an_unset_point_does_nothing(points: pytest.MonkeyPatch) -> None:
    points.setattr(failpoint, "_points", {})
    for _ in range(3):
        failpoint.hit("area.step")


def test_an_error_is_raised_once_at_the_hit_asked_for(points: pytest.MonkeyPatch) -> None:
    points.setattr(failpoint, "_points", failpoint._parse("area.step#2=error,other=error"))
    failpoint.hit("area.step")
    with pytest.raises(OSError) as caught:
        failpoint.hit("area.step")
    assert caught.value.errno == errno.EIO
    failpoint.hit("area.step")
    with pytest.raises(OSError, match="other"):
        failpoint.hit("other")


def test_kill_is_a_death_without_goodbye() -> None:
    program = (
        "import atexit; from estiba.kernel import failpoint; atexit.register(print, 'goodbye')\n"
        "failpoint.hit('a'); print('first', flush=True); failpoint.hit('a'); print('second')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "ESTIBA_FAILPOINTS": "a#2=kill"},
        capture_output=True,
        timeout=30,
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == b"first\n"


# -- directory watches ---------------------------------------------------------------------


async def test_a_watch_wakes_for_every_kind_of_change(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with DirectoryWatch(tmp_path) as watch:
        for change in (
            lambda: path.write_bytes(b""),
            lambda: path.write_bytes(b"line\n"),
            lambda: path.rename(tmp_path / "log.1"),
            lambda: (tmp_path / "log.1").unlink(),
        ):
            change()
            async with asyncio.timeout(5):
                await watch.wait()


async def test_a_watch_wakes_for_its_owner_and_is_quiet_otherwise(tmp_path: Path) -> None:
    with DirectoryWatch(tmp_path) as watch:
        watch.wake()
        async with asyncio.timeout(5):
            await watch.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await watch.wait()


async def test_a_watch_of_nothing_is_an_error_and_holds_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        DirectoryWatch(tmp_path / "absent")
    with DirectoryWatch(tmp_path):
        pass
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_signs_are_told_once(tmp_path: Path) -> None:
    signs, seen = SignWatch(), asyncio.Queue[str]()

    def watch(key: str, path: Path, condition: Callable[[], bool]) -> None:
        signs.watch(key, path, condition, functools.partial(seen.put_nowait, key))

    events = tmp_path / "events"
    events.write_text("0")
    (tmp_path / "there").touch()
    try:
        async with asyncio.timeout(5):
            watch("file", events, lambda: events.read_text() == "2")
            watch("there", tmp_path, (tmp_path / "there").exists)
            assert await seen.get() == "there"
            for text in ("1", "2", "3", "2"):
                events.write_text(text)
                await asyncio.sleep(0.01)
            assert await seen.get() == "file"
            watch("gone", tmp_path, (tmp_path / "mark").exists)
            signs.forget("gone")
            signs.forget("gone")
            watch("mark", tmp_path, (tmp_path / "mark").exists)
            (tmp_path / "other").touch()
            (tmp_path / "mark").touch()
            assert await seen.get() == "mark"
        assert seen.empty()
        with pytest.raises(FileNotFoundError):
            watch("nothing", tmp_path / "absent", lambda: True)
    finally:
        signs.close()


# -- threads -------------------------------------------------------------------------------


async def test_blocking_calls_run_elsewhere_and_bring_their_result_and_error_back() -> None:
    assert await run_blocking(threading.current_thread) is not threading.current_thread()
    assert await run_blocking(int, "ff", base=16) == 255
    with pytest.raises(ValueError, match="invalid literal"):
        await run_blocking(int, "x")


async def test_a_cancelled_caller_leaves_the_call_running() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(5)
        done.set()

    task = asyncio.create_task(run_blocking(work))
    assert await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not done.is_set()
    go_on.set()
    assert await asyncio.to_thread(done.wait, 5)
