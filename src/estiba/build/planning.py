"""What one platform's build is to do: its base images, its plan, what the linter says of it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

from estiba.build.bases import Bases
from estiba.build.dockerfile.instructions import Dockerfile, From
from estiba.build.dockerfile.lint import ADVICE, lint, refuse
from estiba.build.dockerfile.lint_stages import Base
from estiba.build.failure import Failure, StepFailed
from estiba.build.ops import CopyOp, ImageInput, Plan, RunOp, StageInput
from estiba.build.passing import Passing
from estiba.build.plan import MissingBases, PlanRequest, decide_plan, unused_args
from estiba.build.ports import Executor
from estiba.build.progress import Noticed, Tell, Vertex
from estiba.build.request import BuildRequest
from estiba.build.solver import Shared
from estiba.distribution.settings import RegistrySettings
from estiba.images.images import MAX_LAYERS
from estiba.images.record import ImageRecord
from estiba.kernel.blocking import run_apart
from estiba.model.errors import EstibaError, InvalidArgument, LimitExceeded
from estiba.model.image import ImageConfig, Platform

_MAX_EPOCH = 253402300799  # the last second of the year 9999


@dataclass(frozen=True, slots=True)
class Tools:
    """What all builds of an engine work with."""

    shared: Shared
    executor: Executor
    settings: RegistrySettings
    bases: Bases
    passing: Passing


@dataclass(slots=True)
class Planning:
    """`bases` are the images that were asked for so far, `plan` what `make` has decided."""

    tools: Tools
    request: BuildRequest
    dockerfile: Dockerfile
    platform: Platform
    tell: Tell
    bases: dict[ImageInput, ImageRecord] = field(default_factory=dict)
    plan: Plan | None = None

    async def make(self) -> Plan:
        """Pulls what is missing.

        Raises DockerfileError, InvalidArgument, StepFailed for a base image that cannot be had.
        """
        configs: dict[ImageInput, ImageConfig] = {}
        while True:
            try:
                # A hostile Dockerfile takes seconds of a thread.
                self.plan = await run_apart(decide_plan, self._asked(configs))
                return self.plan
            except MissingBases as missing:
                found = await asyncio.gather(
                    *(self._base(one, from_) for one, from_ in missing.inputs.items())
                )
                configs |= {
                    one: record.config for one, record in zip(missing.inputs, found, strict=True)
                }

    def _asked(self, configs: dict[ImageInput, ImageConfig]) -> PlanRequest:
        return PlanRequest(
            dockerfile=self.dockerfile,
            target=self.request.target,
            build_args=self.request.build_args,
            labels=self.request.labels,
            platform=self.platform,
            host=self.tools.shared.images.host,
            contexts=self.request.named,
            bases=dict(configs),
        )

    async def _base(self, source: ImageInput, from_: From) -> ImageRecord:
        """Raises StepFailed: what is not there is told of as of a step, with its place."""
        try:
            return await self.image(source)
        except EstibaError as error:
            failure = Failure(Vertex(0, from_.text, line=from_.span.start.line), from_.span)
            place = f"Dockerfile:{from_.span.start.line}:{from_.span.start.column}"
            raise StepFailed(f"{place}: FROM {source.name}: {error.message}", failure) from error

    async def image(self, source: ImageInput) -> ImageRecord:
        """Raises NotFound when no registry has it either."""
        record = self.bases.get(source)
        if record is None:
            try:
                record = await self.tools.bases.find(
                    source, self.request.credentials, self.tell, pulls=self.request.pulls
                )
            except EstibaError as error:
                names = [one.from_.name for one in self.dockerfile.stages]
                raise self.tools.bases.explained(error, source, names) from error.__cause__
            self.bases[source] = record
        return record

    @property
    def parent(self) -> ImageRecord | None:
        """The image that the target's chain of stages begins with."""
        assert self.plan is not None
        stage = self.plan.stage(self.plan.target)
        while isinstance(stage.base, StageInput):
            stage = self.plan.stage(stage.base.index)
        return self.bases[stage.base] if isinstance(stage.base, ImageInput) else None

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

    def check_depth(self) -> None:
        """Raises LimitExceeded before anything is done for more layers than an image may have."""
        assert self.plan is not None
        index: int | None = self.plan.target
        count = len(parent.layers) if (parent := self.parent) is not None else 0
        while index is not None:
            stage = self.plan.stage(index)
            # A WORKDIR that is there makes none.
            count += sum(isinstance(step.op, RunOp | CopyOp) for step in stage.steps)
            index = stage.base.index if isinstance(stage.base, StageInput) else None
        if count > MAX_LAYERS:
            raise LimitExceeded(
                f"max depth exceeded: the image would have {count} layers, {MAX_LAYERS} at most: "
                "join RUN instructions, or copy the result into a new stage"
            )

    # -- what it says of the Dockerfile ----------------------------------------------------

    async def comment(self) -> None:
        """Tells what the linter says, and of names and arguments that mean nothing."""
        assert self.plan is not None
        self._warn_of_filters()
        await self.lint()
        unused = unused_args(self.dockerfile, self.plan, self.request.build_args)
        if unused:
            self.tell(Noticed("", unused, "", 0, 0, 0))

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
        """Tells what the linter says, by what is known of the base images; how many warnings.

        Raises DockerfileError where the file itself makes them errors.
        """
        return await run_apart(self._lint)

    def _lint(self) -> int:
        main = self.request.contexts.get("")
        bases = {}
        for stage in self.plan.stages if self.plan else ():
            if isinstance(stage.base, ImageInput):
                process = self.bases[stage.base].process_config
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
