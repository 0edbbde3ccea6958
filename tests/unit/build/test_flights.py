"""The same work wanted by several at once: done by one, whoever fails or leaves on the way."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from estiba.build.flights import Flights


class Work:
    """Ends when it is told to; knows how often it was begun and whether two ran at once."""

    def __init__(self) -> None:
        self.begun = 0
        self.running = 0
        self.most = 0
        self.gate = asyncio.Event()
        self.failures = 0

    async def __call__(self) -> str:
        self.begun += 1
        number = self.begun
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
        finally:
            self.running -= 1
        if number <= self.failures:
            raise OSError(f"attempt {number}")
        return f"result {number}"


async def turns(count: int = 10) -> None:
    """Lets everybody go as far as he can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_one_does_it_for_all() -> None:
    flights: Flights[str] = Flights()
    work = Work()
    tasks = [asyncio.create_task(flights.join("k", work)) for _ in range(5)]
    await turns()
    work.gate.set()
    results = await asyncio.gather(*tasks)
    assert [name for name, _ in results] == ["result 1"] * 5
    assert [mine for _, mine in results] == [True, False, False, False, False]


async def test_other_keys_do_not_wait() -> None:
    flights: Flights[str] = Flights()
    work = Work()
    tasks = [asyncio.create_task(flights.join(key, work)) for key in "ab"]
    await turns()
    assert work.running == 2
    work.gate.set()
    assert [mine for _, mine in await asyncio.gather(*tasks)] == [True, True]


async def test_what_is_over_is_done_again() -> None:
    """The cache remembers results, not the flights."""
    flights: Flights[str] = Flights()
    work = Work()
    work.gate.set()
    assert await flights.join("k", work) == ("result 1", True)
    assert await flights.join("k", work) == ("result 2", True)
    assert not flights._under_way


async def test_a_failure_is_that_of_whoever_worked() -> None:
    flights: Flights[str] = Flights()
    work = Work()
    work.failures = 1
    first, second, third = (asyncio.create_task(flights.join("k", work)) for _ in range(3))
    await turns()
    work.gate.set()
    with pytest.raises(OSError, match="attempt 1"):
        await first
    assert await second == ("result 2", True)
    assert await third == ("result 2", False)


async def test_when_all_fail_each_has_tried() -> None:
    flights: Flights[str] = Flights()
    work = Work()
    work.failures = 3
    tasks = [asyncio.create_task(flights.join("k", work)) for _ in range(3)]
    await turns()
    work.gate.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(str(end) for end in ends) == ["attempt 1", "attempt 2", "attempt 3"]
    assert work.most == 1
    assert not flights._under_way


@pytest.mark.parametrize(
    "leaving", [c for n in range(5) for c in itertools.combinations(range(4), n)]
)
async def test_whoever_leaves_the_others_get_it(leaving: tuple[int, ...]) -> None:
    flights: Flights[str] = Flights()
    work = Work()
    tasks = [asyncio.create_task(flights.join("k", work)) for _ in range(4)]
    await turns()
    for one in leaving:
        tasks[one].cancel()
        await turns()
        assert work.running == (0 if set(leaving) == {0, 1, 2, 3} and one == leaving[-1] else 1)
    work.gate.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    for number, end in enumerate(ends):
        assert isinstance(end, asyncio.CancelledError) == (number in leaving)
    workers = [end for end in ends if isinstance(end, tuple) and end[1]]
    assert len(workers) == (0 if len(leaving) == 4 else 1)
    assert work.most == 1
    assert not flights._under_way


async def test_all_leave_at_the_same_moment() -> None:
    flights: Flights[str] = Flights()
    work = Work()
    tasks = [asyncio.create_task(flights.join("k", work)) for _ in range(3)]
    await turns()
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    assert work.begun == 1
    assert not flights._under_way


async def test_a_result_can_be_joined_until_it_is_found_elsewhere() -> None:
    flights: Flights[str] = Flights()
    work = Work()
    work.gate.set()
    stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert await flights.join("k", work, until=lambda _: stored) == ("result 1", True)
    assert await flights.join("k", work, until=lambda _: stored) == ("result 1", False)
    stored.set_result(None)
    await turns()
    assert await flights.join("k", work) == ("result 2", True)


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_a_result_that_could_not_be_stored_is_made_again(end: str) -> None:
    flights: Flights[str] = Flights()
    work = Work()
    work.gate.set()
    storing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await flights.join("k", work, until=lambda _: storing)
    if end == "failed":
        storing.set_exception(OSError("no room"))
        storing.exception()
    else:
        storing.cancel()
    await turns()
    assert await flights.join("k", work) == ("result 2", True)


async def test_a_result_that_is_stored_at_once_does_not_stay() -> None:
    flights: Flights[str] = Flights()
    work = Work()
    work.gate.set()
    stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stored.set_result(None)
    await flights.join("k", work, until=lambda _: stored)
    assert not flights._under_way
