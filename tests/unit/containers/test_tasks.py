"""Named tasks with an owner."""

from __future__ import annotations

import asyncio

import pytest

from estiba.containers.tasks import Tasks


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_failure_is_logged_with_its_name_and_takes_no_other_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise ValueError("broken")

    tasks = Tasks()
    lives = tasks.spawn(forever(), name="lives")
    fails = tasks.spawn(fail(), name="exit web")
    await asyncio.wait([fails])
    assert "task exit web failed" in caplog.text
    assert not lives.done()
    await tasks.close()
    assert lives.cancelled()


async def test_work_goes_on_when_its_caller_leaves() -> None:
    tasks = Tasks()
    go_on, done = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        await go_on.wait()
        done.set()
        return "result"

    waiting = asyncio.create_task(tasks.finish(work(), name="work"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    async with asyncio.timeout(5):
        await done.wait()
    assert await tasks.finish(work(), name="work") == "result"


async def test_the_caller_gets_the_error() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await Tasks().finish(fail(), name="fail")


async def test_close_from_within_a_task_spares_that_task() -> None:
    tasks = Tasks()
    other = tasks.spawn(forever(), name="other")

    async def closes() -> None:
        await tasks.close()
        assert other.cancelled()

    async with asyncio.timeout(5):
        await tasks.finish(closes(), name="closes")
