"""Sharers and holders take turns in the order of their coming."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estiba.build.running.queues import Gate


class Visitor:
    """A task that enters a gate and stays until it is told to leave."""

    def __init__(self, gate: Gate, *, alone: bool, log: list[str], name: str = "") -> None:
        self.alone = alone
        self.name = name
        self.inside = False
        self._leave = asyncio.Event()
        self._log = log
        self.task = asyncio.create_task(self._visit(gate))

    async def _visit(self, gate: Gate) -> None:
        async with gate.entered(alone=self.alone):
            self.inside = True
            self._log.append(self.name)
            try:
                await self._leave.wait()
            finally:
                self.inside = False

    def leave(self) -> None:
        self._leave.set()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_sharers_are_together_and_a_holder_is_alone() -> None:
    gate, log = Gate(), []
    visitors = [
        Visitor(gate, alone=name.isupper(), log=log, name=name)
        for name in ("a", "b", "C", "d", "E")
    ]
    await settle()
    assert log == ["a", "b"]
    for visitor, expected in zip(visitors, ["ab", "abC", "abCd", "abCdE", "abCdE"], strict=True):
        visitor.leave()
        await settle()
        assert "".join(log) == expected
    assert gate.is_idle


async def test_whoever_is_cancelled_holds_nobody_up() -> None:
    gate, log = Gate(), []
    first = Visitor(gate, alone=True, log=log, name="first")
    await settle()
    waiting = Visitor(gate, alone=True, log=log, name="waiting")
    sharer = Visitor(gate, alone=False, log=log, name="sharer")
    await settle()
    waiting.task.cancel()
    first.leave()
    await settle()
    assert log == ["first", "sharer"]
    sharer.leave()
    await settle()
    assert gate.is_idle


async def test_a_turn_that_comes_in_the_moment_of_the_cancel_is_passed_on() -> None:
    gate = Gate()
    stack = AsyncExitStack()
    await stack.enter_async_context(gate.entered(alone=True))
    waiting = Visitor(gate, alone=True, log=[])
    await settle()
    await stack.aclose()
    waiting.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting.task
    assert gate.is_idle


MOVES = st.tuples(st.sampled_from(["share", "hold", "leave", "cancel"]), st.integers(0, 5))


@settings(max_examples=60, deadline=None)
@given(st.lists(MOVES))
def test_never_two_where_one_has_to_be_alone(moves: list[tuple[str, int]]) -> None:
    async def play() -> None:
        gate = Gate()
        visitors: list[Visitor] = []
        for move, which in moves:
            if move in ("share", "hold"):
                visitors.append(Visitor(gate, alone=move == "hold", log=[]))
            elif visitors:
                chosen = visitors[which % len(visitors)]
                chosen.leave() if move == "leave" else chosen.task.cancel()
            await asyncio.sleep(0)
            inside = [visitor for visitor in visitors if visitor.inside]
            assert len(inside) <= 1 or not any(visitor.alone for visitor in inside)
        for visitor in visitors:
            visitor.leave()
        await asyncio.gather(*(visitor.task for visitor in visitors), return_exceptions=True)
        assert gate.is_idle

    asyncio.run(play())
