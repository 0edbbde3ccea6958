"""The instructions of a Dockerfile as frozen data, each with its place in the file.

Words stand as they were written: variables are expanded when a build plans its steps, because
what they mean depends on the base image. Lines and columns count from 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Position:
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Span:
    """From the first character to the one behind the last."""

    start: Position
    end: Position


@dataclass(frozen=True, slots=True)
class Heredoc:
    """`expand` is false for a quoted delimiter, `strips_tabs` true for `<<-`; `content` has the
    tabs stripped already."""

    name: str
    content: str
    expand: bool = True
    strips_tabs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """`text` is the logical line, continuations joined, comments out; `span` covers all of it."""

    keyword: str
    """In capitals."""

    text: str
    span: Span
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Of CMD, ENTRYPOINT, RUN, HEALTHCHECK: exec form with its words, or shell form."""

    words: tuple[str, ...]
    """The JSON array's words, or the one text for the shell."""

    is_shell: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    image: str
    platform: str = ""
    name: str = ""
    """After AS, in lower case; empty without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """Each name with its default as written, None without one."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    pairs: tuple[tuple[str, str], ...]
    """Quotes and variables as written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files(Instruction):
    """COPY and ADD. `sources` and `destination` as written; here-documents come beside them,
    and stand among `sources` as `<<NAME` where they were written."""

    sources: tuple[str, ...]
    destination: str
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    keep_git_dir: bool = False
    checksum: str = ""
    unpack: bool | None = None
    """None: archives of the context are unpacked, remote ones are not."""


@dataclass(frozen=True, slots=True)
class MountFlag:
    """One `--mount` of RUN, its options as written; names in their long form (`target`, `source`,
    `from`, `readonly`, `id`, `sharing`, `mode`, `uid`, `gid`, `size`, `env`, `required`)."""

    type: str
    options: tuple[tuple[str, str], ...] = ()

    def get(self, name: str, default: str = "") -> str:
        return dict(self.options).get(name, default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    command: CommandLine
    mounts: tuple[MountFlag, ...] = ()
    network: str = ""
    security: str = ""
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(Instruction):
    command: CommandLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(Instruction):
    command: CommandLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Instruction):
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(Instruction):
    """`command` is None for NONE. Durations in nanoseconds, 0 where nothing was given."""

    command: CommandLine | None
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Words(Instruction):
    """EXPOSE and VOLUME."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value(Instruction):
    """USER, WORKDIR, STOPSIGNAL and MAINTAINER."""

    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Onbuild(Instruction):
    trigger: str
    """The instruction as written; it has been parsed once, so it is well formed."""


@dataclass(frozen=True, slots=True)
class Stage:
    """`from_` opens it; `doc` is the comment right above, `# name description`, if any."""

    from_: From
    instructions: tuple[Instruction, ...]
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Warning:
    """What a lint rule has to say."""

    rule: str
    message: str
    span: Span


@dataclass(frozen=True, slots=True)
class Directives:
    syntax: str = ""
    escape: str = "\\"
    check_skip: tuple[str, ...] = ()
    check_experimental: tuple[str, ...] = ()
    """Rules that are off unless they are named here; `all` for every one of them."""
    check_error: bool = False


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """`global_args` stand above the first FROM."""

    source: str
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    directives: Directives = field(default_factory=Directives)
    warnings: tuple[Warning, ...] = ()
    """What the parser itself noticed, `check=skip` not yet applied."""
