"""What a stage has come to: the layers that its next step stands on. Pure."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from estiba.build.keys import linked_id
from estiba.build.ops import CopyOp, Step
from estiba.build.ports import Lower
from estiba.storage.layers import LayerInfo


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, perhaps still being hashed; `info` is ready when it is in the store."""

    lower: Lower
    info: asyncio.Future[LayerInfo]


@dataclass(frozen=True, slots=True)
class StepResult:
    """`record_id` is the identity of the tree after the step. Without a `layer` it changed
    nothing of it."""

    record_id: str
    layer: Layer | None
    created_ns: int
    cached: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """`id` is the last step's record, or the base's; `done` what each step so far came to, None
    for those that only change the config."""

    id: str
    base: tuple[Layer, ...] = ()
    done: tuple[tuple[Step, StepResult | None], ...] = ()
    was_built: bool = False
    """Whether the newest step was carried out, not found; with linked copies as newest ones
    whether any of them was, or the step below."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        made = [result.layer for _, result in self.done if result is not None and result.layer]
        return (*self.base, *made)

    @property
    def lowers(self) -> tuple[Lower, ...]:
        return tuple(layer.lower for layer in self.layers)

    @property
    def was_found(self) -> bool:
        """Whether the newest step was found in the cache; false without any."""
        return bool(self.record_ids) and not self.was_built

    @property
    def record_ids(self) -> list[str]:
        return [result.record_id for _, result in self.done if result is not None]

    def after(self, step: Step, result: StepResult | None) -> State:
        done = (*self.done, (step, result))
        if result is None:
            return State(self.id, self.base, done, self.was_built)
        if isinstance(step.op, CopyOp) and step.op.link:
            # It stands on nothing, so it tells nothing of what is below.
            was_built = self.was_built or not result.cached
            return State(linked_id(self.id, result.record_id), self.base, done, was_built)
        return State(result.record_id, self.base, done, not result.cached)


def finished_layer(info: LayerInfo) -> Layer:
    """A layer that is in the store already; needs the running loop."""
    future: asyncio.Future[LayerInfo] = asyncio.get_running_loop().create_future()
    future.set_result(info)
    return Layer(info.diff_id, future)
