"""An engine that goes ends its builds first, whoever else waits for them."""

from __future__ import annotations

import asyncio

import pytest

from estiba.build.effects import finished
from estiba.build.underway import UnderWay
from estiba.model.errors import Unavailable


class Build:
    """Waits, and is put away over several turns of the loop that nothing may cut."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.is_put_away = False

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await finished(self._end())

    async def _end(self) -> None:
        await self.go.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        self.is_put_away = True


async def test_all_are_ended_and_awaited() -> None:
    under_way, builds = UnderWay(), [Build(), Build()]
    tasks = [under_way.start(each.run()) for each in builds]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    await under_way.close()
    assert all(each.is_put_away for each in builds)
    assert all(task.cancelled() for task in tasks)
    await under_way.close()


async def test_none_begins_any_more() -> None:
    under_way = UnderWay()
    await under_way.close()
    with pytest.raises(Unavailable, match="about to end"):
        under_way.start(Build().run())


async def test_one_that_hangs_is_told_and_left(caplog: pytest.LogCaptureFixture) -> None:
    under_way, build = UnderWay(), Build()
    build.go.clear()
    task = under_way.start(build.run())
    await asyncio.sleep(0)
    await under_way.close(patience_s=0)
    assert "1 builds have not ended within 0 s" in caplog.text
    assert not task.done()
    build.go.set()
    await asyncio.wait([task])
    assert build.is_put_away
