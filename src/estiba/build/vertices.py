"""The pieces of work of a plan, numbered for whoever watches. Pure."""

from __future__ import annotations

from estiba.build.dockerfile.instructions import Instruction
from estiba.build.ops import Plan, StagePlan
from estiba.build.progress import Vertex

BASE = -1
"""The index of a stage's FROM among its steps."""

_PER_PLATFORM = 100_000


def number_vertices(plan: Plan, build: int, is_one_of_many: bool) -> dict[tuple[int, int], Vertex]:
    """By (stage, step); `build` counts the platforms that are built at once."""
    numbered = _Numbered(plan, build * _PER_PLATFORM)
    for stage in plan.stages:
        where = f"{stage.platform} {stage.title}" if is_one_of_many else stage.title
        acting = 1 + sum(step.op is not None for step in stage.steps)
        place = 1
        numbered.add(stage, BASE, stage.from_, f"[{where} 1/{acting}] {stage.from_.text}")
        for step in stage.steps:
            if step.op is None:
                numbered.add(stage, step.index, step.instruction, step.name, is_silent=True)
                continue
            place += 1
            name = f"[{where} {place}/{acting}] {step.name}"
            numbered.add(stage, step.index, step.instruction, name)
    return numbered.found


class _Numbered:
    def __init__(self, plan: Plan, beginning: int) -> None:
        self._beginning = beginning
        self._total = sum(len(stage.steps) + 1 for stage in plan.stages)
        self.found: dict[tuple[int, int], Vertex] = {}

    def add(
        self, stage: StagePlan, index: int, at: Instruction, name: str, *, is_silent: bool = False
    ) -> None:
        position = len(self.found) + 1
        self.found[stage.index, index] = Vertex(
            id=self._beginning + position,
            name=" ".join(name.split()),
            stage=stage.title,
            text=" ".join(at.text.split()),
            line=at.span.start.line,
            end_line=at.span.end.line,
            step=position,
            steps=self._total,
            is_silent=is_silent,
        )
