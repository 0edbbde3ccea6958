"""The states of a container and the moves between them.

    created ──start──▶ running ◀──unpause/pause──▶ paused
                          │ exit
                          ▼
    restarting ◀──────  exited ──remove──▶ removing ──▶ (gone) | dead

`restarting` is a container between an exit and the start that its restart policy owes it.
"""

from __future__ import annotations

from enum import StrEnum

from estiba.model.errors import Conflict


class ContainerState(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"

    @property
    def is_up(self) -> bool:
        """Processes exist: running or paused."""
        return self in (ContainerState.RUNNING, ContainerState.PAUSED)


_S = ContainerState
ALLOWED: dict[str, dict[ContainerState, ContainerState]] = {
    "start": {_S.CREATED: _S.RUNNING, _S.EXITED: _S.RUNNING, _S.RESTARTING: _S.RUNNING},
    "pause": {_S.RUNNING: _S.PAUSED},
    "unpause": {_S.PAUSED: _S.RUNNING},
    "exit": {_S.RUNNING: _S.EXITED, _S.PAUSED: _S.EXITED},
    "await restart": {_S.EXITED: _S.RESTARTING},
    "give up restart": {_S.RESTARTING: _S.EXITED},
    "remove": {
        _S.CREATED: _S.REMOVING,
        _S.EXITED: _S.REMOVING,
        _S.DEAD: _S.REMOVING,
        _S.RESTARTING: _S.REMOVING,
        _S.REMOVING: _S.REMOVING,
    },
    "fail removal": {_S.REMOVING: _S.DEAD},
}
"""verb → {from: to}: the only place that says which move is legal."""


def move(state: ContainerState, verb: str, *, name: str) -> ContainerState:
    """The state after `verb`.

    Raises Conflict that names the container, its state and the verb.
    """
    target = ALLOWED[verb].get(state)
    if target is None:
        raise Conflict(_refusal(state, verb, name))
    return target


def _refusal(state: ContainerState, verb: str, name: str) -> str:
    """Docker's words where it has any: clients look for them."""
    if verb == "unpause":
        return f"Container {name} is not paused: it is {state}"
    if verb == "pause" and state == ContainerState.PAUSED:
        return f"Container {name} is already paused"
    if verb == "pause":
        return f"container {name} is not running: it is {state}"
    return f"cannot {verb} container {name}: it is {state}"
