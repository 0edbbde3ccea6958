"""What the builder needs of the parts below it, and what its own parts need of one another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from estiba.model.container import Ulimit
from estiba.model.digest import Digest
from estiba.storage.layers import LayerInfo

Output = Callable[[int, bytes], None]
"""(progress.STDOUT or STDERR, bytes); called on the loop."""


# -- trees ---------------------------------------------------------------------------------


class Frozen(Protocol):
    """The upper directory of a finished step: a layer that perhaps is still being hashed."""

    @property
    def diff_id(self) -> Digest | None:
        """None until it is a layer of the store."""


Lower = Digest | Frozen
"""One layer of what a step stands on."""


class Workspaces(Protocol):
    """Writable trees of steps under way, over layers and frozen steps. All blocks.

    Everything is named by `key`, made twice without harm, and swept at the engine's start.
    """

    def prepare(self, key: str, lower: Sequence[Lower]) -> None:
        """`lower` bottom first. Raises NotFound for a layer that is missing."""

    def mounted(self, key: str) -> AbstractContextManager[Path]:
        """The tree, writable; one mount of a key at a time."""

    def view(self, lower: Sequence[Lower]) -> AbstractContextManager[Path]:
        """The tree that `lower` makes, read-only."""

    def freeze(self, key: str, *, newest_ns: int | None = None) -> Frozen:
        """The step is over; with `newest_ns` no time stamp in its layer is later."""

    def commit(self, frozen: Frozen, keep: Callable[[Digest], None]) -> LayerInfo:
        """Packs, hashes and moves it into the layer store; `keep` leases the DiffID before it
        appears. May run while other steps stand on it."""

    def upper(self, key: str) -> Path:
        """The directory of what the step changed; for a look while it is not mounted."""

    def merged(self, layers: Sequence[Lower], key: str, *, below: Sequence[Lower]) -> Frozen:
        """Several layers, bottom first, as one that will stand on `below`."""

    def discard(self, key: str) -> None: ...


# -- running -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BindMount:
    """A directory or file of another tree. `writable` changes are thrown away after the step."""

    target: str
    root: Path
    source: str = "/"
    writable: bool = False


@dataclass(frozen=True, slots=True)
class CacheMount:
    """A directory that outlives the step. `seed` is (root, path) of its first content."""

    target: str
    id: str
    sharing: str = "shared"
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    readonly: bool = False
    seed: tuple[Path, str] | None = None


@dataclass(frozen=True, slots=True)
class TmpfsMount:
    target: str
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SecretMount:
    """`target` empty: only as the environment variable `env`."""

    data: bytes = field(repr=False)
    target: str = ""
    env: str = ""
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


ConnectAgent = Callable[[], Awaitable[tuple[int, Callable[[], None]]]]
"""A connected socket to the client's ssh agent, and what to call when it is done with."""


@dataclass(frozen=True, slots=True)
class SshMount:
    connect: ConnectAgent
    target: str
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


RunMount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """As of POST /build; 0, "" or empty: none."""

    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    shm_bytes: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One RUN. `id` (64 hex digits) names all kernel resources; `root` is the mounted tree.

    `network` is none, host, or the name of a network (bridge by default).
    """

    id: str
    root: Path
    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    mounts: tuple[RunMount, ...] = ()
    network: str = "bridge"
    insecure: bool = False
    extra_hosts: tuple[str, ...] = ()
    hostname: str = ""
    limits: RunLimits = RunLimits()
    stdin: bytes = b""
    """What the program reads, for a here-document with a `#!` line or an interpreter."""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """`untouched` are directories of the tree, deepest first, that the program did not change but
    an overlay copied up, because something was mounted below them: `forget_untouched` of
    `running/targets.py` takes them out of the upper directory, where they are empty.
    """

    code: int
    oom_killed: bool = False
    untouched: tuple[str, ...] = ()


Waiting = Callable[[], AbstractAsyncContextManager[None]]
"""Entered while a step does nothing but wait for others."""


class Executor(Protocol):
    async def run(
        self, request: RunRequest, output: Output, waiting: Waiting = nullcontext
    ) -> RunEnd:
        """Runs it to its end. A cancelled caller ends it; nothing is left in either case.

        Raises CommandNotFound, CommandNotExecutable, InvalidArgument, Unavailable.
        """
