"""What the steps of a stage do, as frozen data: the planner writes it, the solver acts on it."""

from __future__ import annotations

from dataclasses import dataclass

from estiba.build.dockerfile.instructions import From, Instruction
from estiba.model.image import ImageConfig, Platform


@dataclass(frozen=True, slots=True)
class StageInput:
    """The tree that a stage of the same Dockerfile ends with."""

    index: int


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An image by its name; `platform` as the build's target unless FROM says otherwise."""

    name: str
    platform: Platform


@dataclass(frozen=True, slots=True)
class ContextInput:
    """A tree of the client's: the build context, or a named one."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class UrlInput:
    url: str
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class GitInput:
    url: str
    keep_git_dir: bool = False
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class InlineInput:
    """Files that stand in the Dockerfile itself: (name, content)."""

    files: tuple[tuple[str, str], ...]
    mode: int = 0o644


Input = StageInput | ImageInput | ContextInput | UrlInput | GitInput | InlineInput


@dataclass(frozen=True, slots=True)
class MountSpec:
    """One `--mount` of a RUN, its options expanded and checked."""

    type: str
    target: str
    input: Input | None = None
    source: str = "/"
    readonly: bool = True
    id: str = ""
    sharing: str = "shared"
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    env: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOp:
    """`args` are the build arguments that count for the key, `hidden_env` variables that do not:
    proxies, and arguments that the command does not use."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    args: tuple[tuple[str, str], ...] = ()
    hidden_env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    mounts: tuple[MountSpec, ...] = ()
    network: str = ""
    insecure: bool = False
    hostname: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOp:
    """COPY and ADD: `groups` are patterns by the input that they are found in."""

    groups: tuple[tuple[Input, tuple[str, ...]], ...]
    destination: str
    owner: str = ""
    mode: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    unpack: bool | None = False
    """None: local archives only, as ADD does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryOp:
    """WORKDIR: the directory is there afterwards."""

    path: str
    user: str = ""


Op = RunOp | CopyOp | DirectoryOp


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One instruction of a stage; without an op it changes the config alone.

    `name` is what is shown, `created_by` what the history says, nothing when it is empty. `index`
    counts within the stage.
    """

    index: int
    instruction: Instruction
    name: str
    created_by: str
    op: Op | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """`base` is None for scratch. `config` is what the image of this stage says of itself, but for
    times, layers and history; `shell` runs commands in it."""

    index: int
    name: str
    from_: From
    platform: Platform
    base: Input | None
    steps: tuple[Step, ...]
    config: ImageConfig
    shell: tuple[str, ...]
    args: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        return self.name or f"stage-{self.index}"

    def inputs(self) -> list[Input]:
        """All that the stage needs to be there, its base first."""
        found: list[Input] = [self.base] if self.base is not None else []
        for step in self.steps:
            if isinstance(step.op, CopyOp):
                found += [source for source, _ in step.op.groups]
            elif isinstance(step.op, RunOp):
                found += [mount.input for mount in step.op.mounts if mount.input is not None]
        return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Plan:
    """`stages` are those that the target needs, in the Dockerfile's order; the target last."""

    stages: tuple[StagePlan, ...]
    target: int

    def stage(self, index: int) -> StagePlan:
        return next(stage for stage in self.stages if stage.index == index)
