"""From a Dockerfile to the stages and steps that a target needs. Decides, touches nothing.

What a step means depends on the config of the base image, so the plan is made again when one
becomes known that was missing: that is cheap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from estiba.build.dispatch import DEFAULT_PATH, Dispatcher, Scope
from estiba.build.dockerfile.errors import nearest, refusal
from estiba.build.dockerfile.instructions import Arg, Dockerfile, From, Instruction, Stage
from estiba.build.dockerfile.words import expand
from estiba.build.ops import ImageInput, InlineInput, Input, Plan, StageInput, StagePlan
from estiba.build.runplan import PROXY_NAMES
from estiba.model.errors import InvalidArgument
from estiba.model.image import ImageConfig, ImageProcessConfig, Platform, parse_platform

SCRATCH = "scratch"
_MAX_DEPTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """`contexts` are the named ones, by what they stand for; `bases` the images known so far."""

    dockerfile: Dockerfile
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: Platform
    host: Platform
    contexts: Mapping[str, Input] = field(default_factory=dict)
    bases: Mapping[ImageInput, ImageConfig] = field(default_factory=dict)


class MissingBases(Exception):
    """The plan needs the configs of these images."""

    def __init__(self, inputs: Mapping[ImageInput, From]) -> None:
        super().__init__(", ".join(one.name for one in inputs))
        self.inputs = dict(inputs)
        """Each with the instruction that names it first."""


def decide_plan(request: PlanRequest) -> Plan:
    """Raises DockerfileError, InvalidArgument for an unknown target, MissingBases."""
    return _Planner(request).plan()


class _Planner:
    def __init__(self, request: PlanRequest) -> None:
        self._request = request
        self._stages = request.dockerfile.stages
        target = request.target or self._stages[-1].from_.name or "default"
        self._platform_args = platform_args(request.platform, request.host, target)
        self._globals = self._global_args()
        self._plans: dict[int, StagePlan] = {}
        self._under_way: list[int] = []
        self._missing: dict[ImageInput, From] = {}

    def plan(self) -> Plan:
        target = self._target()
        self._need(target)
        if self._missing:
            raise MissingBases(self._missing)
        return Plan(tuple(self._plans[index] for index in sorted(self._plans)), target)

    def _target(self) -> int:
        wanted = self._request.target
        if not wanted:
            return len(self._stages) - 1
        index = self._stage_named(wanted, len(self._stages))
        if index is None:
            names = [stage.from_.name for stage in self._stages if stage.from_.name]
            raise InvalidArgument(
                f"target stage {wanted[:128]!r} could not be found{nearest(wanted, names)}"
            )
        return index

    def _stage_named(self, name: str, before: int) -> int | None:
        """The last one of that name above stage `before`, or the one of that number."""
        lowered = name.lower()
        for index in range(before - 1, -1, -1):
            if self._stages[index].from_.name == lowered:
                return index
        number = _number(name)
        return number if number is not None and number < before else None

    def _need(self, index: int) -> StagePlan | None:
        """The stage's plan; None while a base below it is not known."""
        if index in self._plans:
            return self._plans[index]
        if len(self._under_way) > _MAX_DEPTH:
            raise InvalidArgument(f"stages stand on one another more than {_MAX_DEPTH} deep")
        self._under_way.append(index)
        try:
            plan = self._plan_stage(index)
        finally:
            self._under_way.pop()
        if plan is not None:
            self._plans[index] = plan
        return plan

    def _plan_stage(self, index: int) -> StagePlan | None:
        stage = self._stages[index]
        base, platform, config = self._base(stage.from_, index)
        if config is None:
            # What else it needs is asked for at once.
            for name in stage_names(stage):
                found = self._stage_named(name, index)
                if found is not None:
                    self._need(found)
            return None
        scope = Scope(
            request_args=self._request.build_args,
            global_args=self._globals,
            # Of the build, whatever the stage itself runs on.
            platform_args=self._platform_args,
            escape=self._request.dockerfile.directives.escape,
            find_input=lambda name, at: self._input(name, index, platform, at),
            inherited_args=(
                dict(self._plans[base.index].args) if isinstance(base, StageInput) else {}
            ),
        )
        dispatcher = Dispatcher(stage, index, base, platform, config, scope)
        plan = dispatcher.plan(self._request.labels if index == self._target() else {})
        for one in plan.inputs():
            if isinstance(one, StageInput):
                self._need(one.index)
        return plan

    # -- bases -----------------------------------------------------------------------------

    def _base(self, from_: From, index: int) -> tuple[Input | None, Platform, ImageConfig | None]:
        """What the stage stands on, its platform, and the config it begins with."""
        name = self._expand(from_.image, from_)
        if not name:
            raise refusal(
                f"base name ({from_.image}) should not be blank: give its ARG above the first "
                "FROM a default, or a value with --build-arg",
                from_.span,
            )
        platform = self._request.platform
        if from_.platform:
            platform = self._platform(from_)
        named = self._request.contexts.get(name.lower()) or self._request.contexts.get(name)
        if named is None:
            found = self._stage_named(name, index)
            # A number names no stage here.
            if found is not None and _number(name) is None:
                below = self._need(found)
                return StageInput(found), platform, below.config if below else None
            if name == SCRATCH:
                return None, platform, _scratch(platform)
        source = named or ImageInput(name, platform)
        if not isinstance(source, ImageInput):
            return source, platform, _scratch(platform)
        known = self._request.bases.get(source)
        if known is None:
            self._missing.setdefault(source, from_)
        return source, platform, known

    def _platform(self, from_: From) -> Platform:
        text = self._expand(from_.platform, from_)
        try:
            return parse_platform(text, self._request.host.architecture)
        except InvalidArgument as error:
            raise refusal(f"--platform: {error}", from_.span) from error

    def _input(self, name: str, index: int, platform: Platform, at: Instruction) -> Input:
        """What a `--from` in stage `index` names: a context, a stage above, or an image."""
        named = self._request.contexts.get(name.lower()) or self._request.contexts.get(name)
        if named is not None:
            return named
        found = self._stage_named(name, index)
        if found is not None:
            return StageInput(found)
        if self._stages[index].from_.name == name.lower() or _number(name) == index:
            raise refusal(f"stage {name!r} copies from itself: a circular dependency", at.span)
        below = self._stage_named(name, len(self._stages))
        if below is not None:
            raise refusal(
                f"invalid from flag value {name[:64]}: that stage comes below "
                f"(line {self._stages[below].from_.span.start.line}): move it above, or rename it",
                at.span,
            )
        if name.isdecimal():
            raise refusal(
                f"invalid from flag value {name[:64]}: there is no stage of that number above",
                at.span,
            )
        if name == SCRATCH:
            return InlineInput(())
        return ImageInput(name, platform)

    # -- global arguments ------------------------------------------------------------------

    def _global_args(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for arg in self._request.dockerfile.global_args:
            for name, default in arg.pairs:
                value = self._request.build_args.get(name)
                if value is None and default is not None:
                    value = self._expand_with(default, arg, {**self._platform_args, **found})
                if value is not None:
                    found[name] = value
                elif name in self._platform_args:
                    found[name] = self._platform_args[name]
        return found

    def _expand(self, text: str, at: Instruction) -> str:
        return self._expand_with(text, at, {**self._platform_args, **self._globals})

    def _expand_with(self, text: str, at: Instruction, known: Mapping[str, str]) -> str:
        try:
            return expand(text, known, self._request.dockerfile.directives.escape).text
        except InvalidArgument as error:
            raise refusal(str(error), at.span) from error


def stage_names(stage: Stage) -> list[str]:
    """What `--from` names in the stage, as written."""
    names = []
    for instruction in stage.instructions:
        if name := getattr(instruction, "from_", ""):
            names.append(name)
        for mount in getattr(instruction, "mounts", ()):
            if name := mount.get("from"):
                names.append(name)
    return names


def unused_args(dockerfile: Dockerfile, plan: Plan, given: Mapping[str, str]) -> str:
    """What to say of build arguments that nothing declares, as the classic builder has it; empty
    where there are none. Of base images only the triggers' own are known.
    """
    written = [one for stage in dockerfile.stages for one in stage.instructions]
    arguments = [*dockerfile.global_args, *(one for one in written if isinstance(one, Arg))]
    declared = {name for arg in arguments for name, _ in arg.pairs}
    declared |= {name for stage in plan.stages for name, _ in stage.args}
    # What means something undeclared.
    offered = {"SOURCE_DATE_EPOCH", *platform_args(Platform(), Platform(), "")}
    known = declared | PROXY_NAMES | offered
    unused = sorted(
        name for name in given if name not in known and not name.startswith("BUILDKIT_")
    )
    if not unused:
        return ""
    hint = nearest(unused[0], declared) if len(unused) == 1 else ""
    return f"One or more build-args [{' '.join(unused)}] were not consumed{hint}"


def platform_args(target: Platform, host: Platform, stage: str) -> dict[str, str]:
    """The arguments that every build has in the global scope; `stage` is what it ends with."""
    return {
        "TARGETPLATFORM": str(target), "TARGETOS": target.os,
        "TARGETARCH": target.architecture, "TARGETVARIANT": target.variant,
        "BUILDPLATFORM": str(host), "BUILDOS": host.os,
        "BUILDARCH": host.architecture, "BUILDVARIANT": host.variant,
        "TARGETSTAGE": stage,
    }  # fmt: skip


def _scratch(platform: Platform) -> ImageConfig:
    return ImageConfig(
        os=platform.os,
        architecture=platform.architecture,
        variant=platform.variant,
        config=ImageProcessConfig(env=[f"PATH={DEFAULT_PATH}"], working_dir="/"),
    )


def _number(name: str) -> int | None:
    """The stage that it means by number, if it can be one."""
    return int(name) if name.isascii() and name.isdecimal() and len(name) < 10 else None
