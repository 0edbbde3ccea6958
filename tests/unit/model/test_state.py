"""The table of moves: every legal one, and every illegal one with its words."""

from __future__ import annotations

import itertools

import pytest

from estiba.model.errors import Conflict
from estiba.model.state import ALLOWED, ContainerState, move

LEGAL = {
    ("created", "start"): "running",
    ("exited", "start"): "running",
    ("restarting", "start"): "running",
    ("running", "pause"): "paused",
    ("paused", "unpause"): "running",
    ("running", "exit"): "exited",
    ("paused", "exit"): "exited",
    ("exited", "await restart"): "restarting",
    ("restarting", "give up restart"): "exited",
    ("created", "remove"): "removing",
    ("exited", "remove"): "removing",
    ("dead", "remove"): "removing",
    ("restarting", "remove"): "removing",
    ("removing", "remove"): "removing",
    ("removing", "fail removal"): "dead",
}
EVERY = list(itertools.product(ContainerState, ALLOWED))


@pytest.mark.parametrize(("state", "verb"), EVERY, ids=lambda value: str(value))
def test_move(state: ContainerState, verb: str) -> None:
    target = LEGAL.get((state.value, verb))
    if target is not None:
        assert move(state, verb, name="web") == target
        return
    with pytest.raises(Conflict) as caught:
        move(state, verb, name="web")
    words = {
        "unpause": f"Container web is not paused: it is {state}",
        "pause": f"container web is not running: it is {state}",
    }
    if (state, verb) == (ContainerState.PAUSED, "pause"):
        words["pause"] = "Container web is already paused"
    assert str(caught.value) == words.get(verb, f"cannot {verb} container web: it is {state}")


def test_only_running_and_paused_have_processes() -> None:
    assert {state for state in ContainerState if state.is_up} == {"running", "paused"}


def test_every_state_can_be_left_and_reached() -> None:
    reached = {target for moves in ALLOWED.values() for target in moves.values()}
    left = {source for moves in ALLOWED.values() for source in moves}
    assert reached == set(ContainerState) - {ContainerState.CREATED}
    assert left == set(ContainerState)
