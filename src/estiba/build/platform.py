"""The build for one platform: planned, linted, solved, and its image put together."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from estiba.build.assemble import image_config, squashed_history
from estiba.build.attest.provenance import Material
from estiba.build.bases import Bases
from estiba.build.cache import Session
from estiba.build.dockerfile.instructions import Dockerfile, From
from estiba.build.dockerfile.lint import ADVICE, lint, refuse
from estiba.build.dockerfile.lint_stages import Base
from estiba.build.effects import settled, settled_apart
from estiba.build.failure import Failure, StepFailed
from estiba.build.ops import CopyOp, ImageInput, Plan, RunOp, StageInput, StagePlan, Step
from estiba.build.passing import Passing
from estiba.build.plan import MissingBases, PlanRequest, decide_plan, unused_args
from estiba.build.ports import Executor
from estiba.build.progress import Noticed, Tell, Vertex
from estiba.build.record import CacheRecord
from estiba.build.request import BuildRequest
from estiba.build.solver import CachePolicy, Shared, Solver
from estiba.build.state import State, StepResult, finished_layer
from estiba.build.stepwork import StepWork, Surroundings
from estiba.build.trees import Trees
from estiba.build.vertices import number_vertices
from estiba.distribution.settings import RegistrySettings
from estiba.images.images import MAX_LAYERS, Naming, NewImage
from estiba.images.record import ImageRecord
from estiba.kernel.blocking import run_apart
from estiba.model.digest import digest_of
from estiba.model.errors import EstibaError, InvalidArgument, LimitExceeded
from estiba.model.ids import new_id
from estiba.model.image import ImageConfig, Platform, encode_config
from estiba.storage.layers import LayerInfo

_MAX_EPOCH = 253402300799  # the last second of the year 9999

Find = Callable[[list[str]], Awaitable[CacheRecord | None]]


@dataclass(frozen=True, slots=True)
class Tools:
    """What all builds of an engine work with."""

    shared: Shared
    executor: Executor
    settings: RegistrySettings
    bases: Bases
    passing: Passing


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

    tools: Tools
    request: BuildRequest
    dockerfile: Dockerfile
    platform: Platform
    tell: Tell
    session: Session | None
    number: int
    remote: Find | None = None
    known: dict[ImageInput, ImageRecord] = field(default_factory=dict)
    started_ns: int = field(default_factory=time.time_ns)
    plan: Plan | None = None
    solver: Solver | None = None
    trees: Trees | None = None
    state: State | None = None
    added: list[ImageRecord] = field(default_factory=list)
    """What `record` put in the store."""

    async def make_plan(self) -> Plan:
        """Raises DockerfileError, InvalidArgument, and what a pull raises."""
        self.plan = await self._plan()
        return self.plan

    def _check_depth(self, plan: Plan) -> None:
        """Raises LimitExceeded before anything is done for more layers than an image may have."""
        index: int | None = plan.target
        count = len(parent.layers) if (parent := self._parent()) is not None else 0
        while index is not None:
            stage = plan.stage(index)
            # A WORKDIR that is there makes none.
            count += sum(isinstance(step.op, RunOp | CopyOp) for step in stage.steps)
            index = stage.base.index if isinstance(stage.base, StageInput) else None
        if count > MAX_LAYERS:
            raise LimitExceeded(
                f"max depth exceeded: the image would have {count} layers, {MAX_LAYERS} at most: "
                "join RUN instructions, or copy the result into a new stage"
            )

    def _warn_of_filters(self) -> None:
        """A name that no stage has is no error, because one list may serve several Dockerfiles."""
        names = {str(index) for index in range(len(self.dockerfile.stages))}
        for index, stage in enumerate(self.dockerfile.stages):
            names.add(stage.from_.name or f"stage-{index}")
        for name in self.request.ignored_stages or ():
            if name.lower() not in names:
                message = f"the Dockerfile has no stage {name[:64]!r}"
                self.tell(Noticed("NoCacheFilter", message, "", 0, 0, 0))

    async def lint(self) -> int:
        """Tells what the linter says, by what is known of the base images; how many warnings."""
        return await run_apart(self._lint)

    def _lint(self) -> int:
        main = self.request.contexts.get("")
        bases = {}
        for stage in self.plan.stages if self.plan else ():
            if isinstance(stage.base, ImageInput):
                process = self.known[stage.base].process_config
                env = dict(entry.partition("=")[::2] for entry in process.env)
                bases[stage.index] = Base(env, bool(process.shell))
        ignore = main.ignore if main else None
        warnings = lint(
            self.dockerfile,
            build_args=self.request.build_args,
            target_platform=str(self.platform),
            build_platform=str(self.tools.shared.images.host),
            ignored=None
            if not ignore
            else lambda path: ignore.excludes(path) and not ignore.may_hold_exceptions(path),
            bases=bases,
            # Who asks for the checks alone means the whole file.
            only=None
            if self.request.checks_only or self.plan is None
            else [stage.index for stage in self.plan.stages],
        )
        for one in warnings:
            start, end = one.span.start, one.span.end
            advice = ADVICE.get(one.rule, "")
            self.tell(Noticed(one.rule, one.message, advice, start.line, start.column, end.line))
        refuse(self.dockerfile, warnings, self.request.build_args)
        return len(warnings)

    async def run(self) -> PlatformBuild:
        assert self.session is not None
        plan = await self.make_plan()
        self._check_depth(plan)
        if self.number == 0:
            self._warn_of_filters()
            await self.lint()
            unused = unused_args(self.dockerfile, plan, self.request.build_args)
            if unused:
                self.tell(Noticed("", unused, "", 0, 0, 0))
        work = self.request.work / f"platform{self.number}"
        await settled(work.mkdir)
        self.trees = Trees(
            work,
            self.tools.settings,
            self.tools.shared.workspaces,
            self.request.contexts,
            self._stage,
            self._image,
            self.request.secrets,
            {stage.index: stage.name for stage in plan.stages},
        )
        around = Surroundings(
            network=self.request.network,
            extra_hosts=self.request.extra_hosts,
            limits=self.request.limits,
            secrets=self.request.secrets,
            agents=self.request.agents,
            allowed=self.request.allowed,
            newest_ns=self.epoch_ns,
        )
        self.solver = Solver(
            shared=self.tools.shared,
            plan=plan,
            session=self.session,
            work=StepWork(self.tools.executor, self.trees, around),
            trees=self.trees,
            bases=self.known,
            policy=CachePolicy(self.request.ignored_stages, self.remote),
            tell=self.tell,
            vertices=number_vertices(plan, self.number, len(self.request.platforms) > 1),
            keep_failed=self._keep_failed if self.request.keeps_failed else None,
        )
        try:
            self.state = await self.solver.solve()
        finally:
            await self.trees.close()
        await settled(self.session.cache.touch, self.solver.found)
        return self

    def release(self) -> None:
        if self.solver is not None:
            self.solver.release()

    async def record(
        self, with_cache: Callable[[bytes, list[CacheRecord]], bytes], *, stays: bool
    ) -> Built:
        """The image, made of what was solved; `with_cache` may add the steps' records to it.

        Without `stays` whoever has put it out drops what was `added`.
        """
        assert self.plan is not None and self.state is not None
        assert self.trees is not None and self.solver is not None
        target = self.plan.stage(self.plan.target)
        infos = [layer.info.result() for layer in self.state.layers]
        parent, records = self._parent(), self._records()

        def encode(config: ImageConfig) -> bytes:
            return with_cache(encode_config(config), records)

        if infos:
            config = self._config(target, self.state, infos, self.started_ns)
            if self.request.squash:
                config, infos = await self._squashed(config, infos, parent)
            encoded = encode(config)
        else:
            encoded = await settled(self._without_layers, target, self.state, encode)
        new = NewImage(encoded, infos, parent=parent.id if parent else "")
        image = await settled(self._add, new, stays)
        return Built(
            image=image,
            plan=self.plan,
            state=self.state,
            states=self.solver.states(),
            bases=dict(self.known),
            materials=tuple(self.trees.materials),
            started_ns=self.started_ns,
            finished_ns=time.time_ns(),
            epoch_s=None if self.epoch_ns is None else self.epoch_ns // 10**9,
        )

    def _add(self, new: NewImage, stays: bool) -> ImageRecord:
        """The image and the note of it are one, whoever is cancelled meanwhile. Blocks."""
        image = self.tools.passing.add(new, stays=stays)
        self.added.append(image)
        return image

    def _records(self) -> list[CacheRecord]:
        """Of the target's own steps."""
        assert self.session is not None and self.state is not None
        found = (self.session.cache.get(record_id) for record_id in self.state.record_ids)
        return [record for record in found if record is not None]

    # -- planning --------------------------------------------------------------------------

    async def _plan(self) -> Plan:
        configs: dict[ImageInput, ImageConfig] = {}
        while True:
            try:
                # A hostile Dockerfile takes seconds of a thread.
                return await run_apart(
                    decide_plan,
                    PlanRequest(
                        dockerfile=self.dockerfile,
                        target=self.request.target,
                        build_args=self.request.build_args,
                        labels=self.request.labels,
                        platform=self.platform,
                        host=self.tools.shared.images.host,
                        contexts=self.request.named,
                        bases=dict(configs),
                    ),
                )
            except MissingBases as missing:
                found = await asyncio.gather(
                    *(self._base(one, from_) for one, from_ in missing.inputs.items())
                )
                configs |= {
                    one: record.config for one, record in zip(missing.inputs, found, strict=True)
                }

    async def _base(self, source: ImageInput, from_: From) -> ImageRecord:
        """Raises StepFailed: what is not there is told of as of a step, with its place."""
        try:
            return await self._image(source)
        except EstibaError as error:
            failure = Failure(Vertex(0, from_.text, line=from_.span.start.line), from_.span)
            place = f"Dockerfile:{from_.span.start.line}:{from_.span.start.column}"
            raise StepFailed(f"{place}: FROM {source.name}: {error.message}", failure) from error

    async def _image(self, source: ImageInput) -> ImageRecord:
        """Raises NotFound when no registry has it either."""
        record = self.known.get(source)
        if record is None:
            try:
                record = await self.tools.bases.find(
                    source, self.request.credentials, self.tell, pulls=self.request.pulls
                )
            except EstibaError as error:
                names = [one.from_.name for one in self.dockerfile.stages]
                raise self.tools.bases.explained(error, source, names) from error.__cause__
            self.known[source] = record
        return record

    async def _stage(self, index: int) -> State:
        assert self.solver is not None
        return await self.solver.stage(index)

    @property
    def epoch_ns(self) -> int | None:
        """SOURCE_DATE_EPOCH. Raises InvalidArgument."""
        text = self.request.build_args.get("SOURCE_DATE_EPOCH", "")
        if not text:
            return None
        if not (re.fullmatch("[0-9]{1,19}", text) and int(text) <= _MAX_EPOCH):
            raise InvalidArgument(
                f"SOURCE_DATE_EPOCH={text[:32]}: give seconds since 1970, as `date +%s` does"
            )
        return int(text) * 10**9

    # -- the image -------------------------------------------------------------------------

    def _config(
        self, stage: StagePlan, state: State, infos: list[LayerInfo], now_ns: int
    ) -> ImageConfig:
        return image_config(
            stage.config,
            state.done,
            [info.diff_id for info in infos],
            now_ns=now_ns,
            epoch_ns=self.epoch_ns,
        )

    def _without_layers(
        self, stage: StagePlan, state: State, encode: Callable[[ImageConfig], bytes]
    ) -> bytes:
        """No layer dates it: where the cache is used it is the image that it was before."""
        if self.request.ignored_stages is not None:
            for record in self.tools.shared.images.list_all():
                if not record.layers:
                    encoded = encode(self._config(stage, state, [], record.created_ns))
                    if digest_of(encoded) == record.id:
                        return encoded
        return encode(self._config(stage, state, [], self.started_ns))

    def _parent(self) -> ImageRecord | None:
        """The image that the target's chain of stages begins with."""
        assert self.plan is not None
        stage = self.plan.stage(self.plan.target)
        while stage.base is not None and not isinstance(stage.base, ImageInput):
            index = getattr(stage.base, "index", None)
            if index is None:
                return None
            stage = self.plan.stage(index)
        return self.known[stage.base] if isinstance(stage.base, ImageInput) else None

    async def _squashed(
        self, config: ImageConfig, infos: list[LayerInfo], parent: ImageRecord | None
    ) -> tuple[ImageConfig, list[LayerInfo]]:
        kept = len(parent.layers) if parent else 0
        below = [info.diff_id for info in infos[:kept]]
        above = [info.diff_id for info in infos[kept:]]
        if len(above) < 2:
            return config, infos
        spaces = self.tools.shared.workspaces
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
        record = await settled(self.tools.shared.images.add, new, Naming(), "build")
        return record.id
