"""The build for one platform: planned, solved, and its image put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from estiba.build.assemble import image_config, squashed_history
from estiba.build.attest.provenance import Material
from estiba.build.cache import Session
from estiba.build.effects import settled, settled_apart
from estiba.build.ops import ImageInput, Plan, StagePlan, Step
from estiba.build.planning import Planning
from estiba.build.record import CacheRecord
from estiba.build.solver import CachePolicy, Solver
from estiba.build.state import State, StepResult, finished_layer
from estiba.build.stepwork import StepWork, Surroundings
from estiba.build.trees import Trees
from estiba.build.vertices import number_vertices
from estiba.images.images import Naming, NewImage
from estiba.images.record import ImageRecord
from estiba.model.digest import digest_of
from estiba.model.ids import new_id
from estiba.model.image import ImageConfig, encode_config
from estiba.storage.layers import LayerInfo

Find = Callable[[list[str]], Awaitable[CacheRecord | None]]


@dataclass(frozen=True, slots=True)
class Built:
    """One platform's image, and what it was made of."""

    image: ImageRecord
    plan: Plan
    state: State
    states: Mapping[int, State]
    """Of all stages of the plan that are finished."""

    bases: Mapping[ImageInput, ImageRecord]
    materials: tuple[Material, ...]
    started_ns: int
    finished_ns: int
    epoch_s: int | None = None


@dataclass(slots=True)
class PlatformBuild:
    """One platform's build."""

    planning: Planning
    session: Session
    number: int
    remote: Find | None = None
    started_ns: int = field(default_factory=time.time_ns)
    solver: Solver | None = None
    trees: Trees | None = None
    state: State | None = None
    added: list[ImageRecord] = field(default_factory=list)
    """What `record` put in the store."""

    async def run(self) -> PlatformBuild:
        plan = await self.planning.make()
        self.planning.check_depth()
        if self.number == 0:
            await self.planning.comment()
        work = self.planning.request.work / f"platform{self.number}"
        await settled(work.mkdir)
        self.trees = self._trees(work, plan)
        self.solver = self._solver(plan, self.trees)
        try:
            self.state = await self.solver.solve()
        finally:
            await self.trees.close()
        await settled(self.session.cache.touch, self.solver.found)
        return self

    def _trees(self, work: Path, plan: Plan) -> Trees:
        tools, request = self.planning.tools, self.planning.request
        return Trees(
            work,
            tools.settings,
            tools.shared.workspaces,
            request.contexts,
            self._stage,
            self.planning.image,
            request.secrets,
            {stage.index: stage.name for stage in plan.stages},
        )

    def _solver(self, plan: Plan, trees: Trees) -> Solver:
        tools, request = self.planning.tools, self.planning.request
        around = Surroundings(
            network=request.network,
            extra_hosts=request.extra_hosts,
            limits=request.limits,
            secrets=request.secrets,
            agents=request.agents,
            allowed=request.allowed,
            newest_ns=self.planning.epoch_ns,
        )
        return Solver(
            shared=tools.shared,
            plan=plan,
            session=self.session,
            work=StepWork(tools.executor, trees, around),
            trees=trees,
            bases=self.planning.bases,
            policy=CachePolicy(request.ignored_stages, self.remote),
            tell=self.planning.tell,
            vertices=number_vertices(plan, self.number, len(request.platforms) > 1),
            keep_failed=self._keep_failed if request.keeps_failed else None,
        )

    def release(self) -> None:
        if self.solver is not None:
            self.solver.release()

    async def record(
        self, with_cache: Callable[[bytes, list[CacheRecord]], bytes], *, stays: bool
    ) -> Built:
        """The image, made of what was solved; `with_cache` may add the steps' records to it.

        Without `stays` whoever has put it out drops what was `added`.
        """
        plan, epoch_ns = self.planning.plan, self.planning.epoch_ns
        assert plan is not None and self.state is not None
        assert self.trees is not None and self.solver is not None
        target = plan.stage(plan.target)
        infos = [layer.info.result() for layer in self.state.layers]
        parent, records = self.planning.parent, self._records()

        def encode(config: ImageConfig) -> bytes:
            return with_cache(encode_config(config), records)

        if infos:
            config = self._config(target, self.state, infos, self.started_ns)
            if self.planning.request.squash:
                config, infos = await self._squashed(config, infos, parent)
            encoded = encode(config)
        else:
            encoded = await settled(self._without_layers, target, self.state, encode)
        new = NewImage(encoded, infos, parent=parent.id if parent else "")
        image = await settled(self._add, new, stays)
        return Built(
            image=image,
            plan=plan,
            state=self.state,
            states=self.solver.states(),
            bases=dict(self.planning.bases),
            materials=tuple(self.trees.materials),
            started_ns=self.started_ns,
            finished_ns=time.time_ns(),
            epoch_s=None if epoch_ns is None else epoch_ns // 10**9,
        )

    def _add(self, new: NewImage, stays: bool) -> ImageRecord:
        """The image and the note of it are one, whoever is cancelled meanwhile. Blocks."""
        image = self.planning.tools.passing.add(new, stays=stays)
        self.added.append(image)
        return image

    def _records(self) -> list[CacheRecord]:
        """Of the target's own steps."""
        assert self.state is not None
        found = (self.session.cache.get(record_id) for record_id in self.state.record_ids)
        return [record for record in found if record is not None]

    async def _stage(self, index: int) -> State:
        assert self.solver is not None
        return await self.solver.stage(index)

    # -- the image -------------------------------------------------------------------------

    def _config(
        self, stage: StagePlan, state: State, infos: list[LayerInfo], now_ns: int
    ) -> ImageConfig:
        return image_config(
            stage.config,
            state.done,
            [info.diff_id for info in infos],
            now_ns=now_ns,
            epoch_ns=self.planning.epoch_ns,
        )

    def _without_layers(
        self, stage: StagePlan, state: State, encode: Callable[[ImageConfig], bytes]
    ) -> bytes:
        """No layer dates it: where the cache is used it is the image that it was before."""
        if self.planning.request.ignored_stages is not None:
            for record in self.planning.tools.shared.images.list_all():
                if not record.layers:
                    encoded = encode(self._config(stage, state, [], record.created_ns))
                    if digest_of(encoded) == record.id:
                        return encoded
        return encode(self._config(stage, state, [], self.started_ns))

    async def _squashed(
        self, config: ImageConfig, infos: list[LayerInfo], parent: ImageRecord | None
    ) -> tuple[ImageConfig, list[LayerInfo]]:
        kept = len(parent.layers) if parent else 0
        below = [info.diff_id for info in infos[:kept]]
        above = [info.diff_id for info in infos[kept:]]
        if len(above) < 2:
            return config, infos
        spaces = self.planning.tools.shared.workspaces
        frozen = await settled_apart(spaces.merged, above, new_id(), below=below)
        assert self.solver is not None
        info = await settled_apart(spaces.commit, frozen, self.solver.keep)
        config = msgspec.structs.replace(
            config,
            history=squashed_history(config, parent.config if parent else None, config.created),
            rootfs=msgspec.structs.replace(
                config.rootfs, diff_ids=[*config.rootfs.diff_ids[:kept], info.diff_id]
            ),
        )
        return config, [*infos[:kept], info]

    async def _keep_failed(
        self, stage: StagePlan, state: State, step: Step, info: LayerInfo
    ) -> str:
        """An untagged image of what a failed RUN left, with the stage's config as far as it got."""
        infos = [await asyncio.shield(layer.info) for layer in state.layers]
        infos.append(info)
        op = step.op
        process = msgspec.structs.replace(
            stage.config.config,
            env=list(getattr(op, "env", ())),
            working_dir=getattr(op, "cwd", "/"),
            user=getattr(op, "user", ""),
            entrypoint=None,
            cmd=list(stage.shell[:1]),
        )
        left = StepResult("", finished_layer(info), time.time_ns())
        config = image_config(
            msgspec.structs.replace(stage.config, config=process),
            [*state.done, (step, left)],
            [one.diff_id for one in infos],
            now_ns=time.time_ns(),
        )
        new = NewImage(encode_config(config), infos)
        record = await settled(self.planning.tools.shared.images.add, new, Naming(), "build")
        return record.id
