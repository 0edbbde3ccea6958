"""Carrying out one step in its workspace: RUN, COPY and ADD, WORKDIR."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from estiba.build.effects import settled, settled_or_cancelled
from estiba.build.failure import exit_message
from estiba.build.files.copying import put
from estiba.build.files.destination import Destination
from estiba.build.files.model import CopyOptions, CopySource, Taken
from estiba.build.files.selection import take
from estiba.build.ops import (
    ContextInput,
    CopyOp,
    DirectoryOp,
    GitInput,
    ImageInput,
    Input,
    MountSpec,
    RunOp,
    StageInput,
    UrlInput,
)
from estiba.build.ports import (
    BindMount,
    CacheMount,
    ConnectAgent,
    Executor,
    Output,
    RunLimits,
    RunMount,
    RunRequest,
    SecretMount,
    SshMount,
    TmpfsMount,
    Waiting,
)
from estiba.build.trees import Trees
from estiba.distribution.cancel import CancelToken
from estiba.kernel.confined import open_in_root, opened_root
from estiba.model.errors import Forbidden, InvalidArgument
from estiba.model.ids import new_id
from estiba.runtime.users import resolve_user

_CACHE_MODE = 0o755
"""Of a cache mount that asks for none."""


class ExitError(Exception):
    """The program of a RUN ended with another code than zero."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the client gave for the RUN steps. Nothing of it is in a key but what the op names."""

    network: str = ""
    extra_hosts: tuple[str, ...] = ()
    limits: RunLimits = field(default_factory=RunLimits)
    secrets: Mapping[str, bytes]
    agents: Mapping[str, ConnectAgent]
    allowed: frozenset[str] = frozenset()
    newest_ns: int | None = None


@dataclass(slots=True)
class StepWork:
    executor: Executor
    trees: Trees
    around: Surroundings

    # -- COPY and ADD ----------------------------------------------------------------------

    async def taken(self, op: CopyOp, stack: AsyncExitStack) -> Taken:
        """What the step copies, looked at and digested; the trees stay open with `stack`."""
        sources = []
        for source, patterns in op.groups:
            root = await stack.enter_async_context(self.trees.opened(source))
            sources.append(
                CopySource(
                    root=root,
                    patterns=_patterns(source, patterns, root),
                    shown=self.trees.shown(source),
                    ignore=self.trees.ignore(source),
                    is_remote_file=isinstance(source, UrlInput),
                    keeps_owner=isinstance(source, StageInput | ImageInput),
                    shares_files=isinstance(source, ContextInput),
                )
            )
        cancel = CancelToken()
        return await settled_or_cancelled(cancel, take, sources, self._options(op), cancel)

    async def bind_content(self, mount: MountSpec) -> tuple[str, Mapping[str, str]]:
        """Digest, and the files by their digests, of what a bind mount shows."""
        assert mount.input is not None
        async with self.trees.opened(mount.input) as root:
            source = CopySource(
                root=root,
                patterns=(mount.source,),
                shown=self.trees.shown(mount.input),
                ignore=self.trees.ignore(mount.input),
            )
            cancel, options = CancelToken(), CopyOptions(destination="/")
            taken = await settled_or_cancelled(cancel, take, [source], options, cancel)
            return taken.digest, taken.files

    async def copy(self, op: CopyOp, taken: Taken, root: Path, upper: Path) -> None:
        """Into the tree mounted at `root`, an overlay over `upper`."""
        cancel, options = CancelToken(), self._options(op)
        await settled_or_cancelled(cancel, put, taken, options, root, cancel, upper=upper)

    def _options(self, op: CopyOp) -> CopyOptions:
        return CopyOptions(
            destination=op.destination,
            owner=op.owner,
            mode=op.mode,
            parents=op.parents,
            excludes=op.excludes,
            unpacks=op.unpack is not False,
            unpacks_remote=op.unpack is True,
            follows_destination_links=not op.link,
            newest_ns=self.around.newest_ns,
        )

    # -- WORKDIR ---------------------------------------------------------------------------

    async def directory(self, op: DirectoryOp, root: Path) -> None:
        await settled(_ensure_directory, op, root)

    async def has_directory(self, op: DirectoryOp, root: Path) -> bool:
        return await settled(_has_directory, op.path, root)

    # -- RUN -------------------------------------------------------------------------------

    def check(self, op: RunOp) -> None:
        """Raises Forbidden for what the client did not allow."""
        network = self.network(op)
        if op.network == "host" and network == "host" and self.around.network != "host":
            self._require("network.host", "RUN --network=host")
        if op.insecure:
            self._require("security.insecure", "RUN --security=insecure")

    def _require(self, right: str, what: str) -> None:
        if right not in self.around.allowed:
            raise Forbidden(f"{what} is not allowed: give --allow {right}")

    def network(self, op: RunOp) -> str:
        asked = op.network or "default"
        if asked != "default":
            return asked
        return self.around.network if self.around.network not in ("", "default") else "bridge"

    async def run(self, op: RunOp, root: Path, output: Output, waiting: Waiting) -> tuple[str, ...]:
        """What `RunEnd.untouched` says. Raises ExitError, and what the executor raises."""
        async with AsyncExitStack() as stack:
            mounts = [await self._mount(mount, stack) for mount in op.mounts]
            end = await self.executor.run(
                RunRequest(
                    id=new_id(),
                    root=root,
                    argv=op.argv,
                    env=(*_environment(op), *op.hidden_env),
                    cwd=op.cwd,
                    user=op.user,
                    mounts=tuple(mount for mount in mounts if mount is not None),
                    network=self.network(op),
                    insecure=op.insecure,
                    extra_hosts=self.around.extra_hosts,
                    hostname=op.hostname,
                    limits=self.around.limits,
                ),
                output,
                waiting,
            )
        if end.code != 0:
            raise ExitError(exit_message(op.argv, end.code, oom_killed=end.oom_killed), end.code)
        return end.untouched

    async def _mount(self, spec: MountSpec, stack: AsyncExitStack) -> RunMount | None:
        match spec.type:
            case "bind":
                assert spec.input is not None
                root = await stack.enter_async_context(self.trees.opened(spec.input))
                return BindMount(spec.target, root, spec.source, writable=not spec.readonly)
            case "cache":
                return await self._cache_mount(spec, stack)
            case "tmpfs":
                return TmpfsMount(spec.target, spec.size_bytes)
            case "secret":
                return self._secret(spec)
            case _:
                return self._agent(spec)

    async def _cache_mount(self, spec: MountSpec, stack: AsyncExitStack) -> CacheMount:
        seed = None
        if spec.input is not None:
            root = await stack.enter_async_context(self.trees.opened(spec.input))
            seed = (root, spec.source)
        mode = _CACHE_MODE if spec.mode is None else spec.mode
        is_usual = (spec.uid, spec.gid, mode) == (0, 0, _CACHE_MODE)
        # With BuildKit too, another owner has another cache: one could not write to both.
        apart = "" if is_usual else f" ({spec.uid}:{spec.gid}, {mode:04o})"
        return CacheMount(
            spec.target,
            spec.id + apart,
            sharing=spec.sharing,
            mode=mode,
            uid=spec.uid,
            gid=spec.gid,
            readonly=spec.readonly,
            seed=seed,
        )

    def _secret(self, spec: MountSpec) -> SecretMount | None:
        data = self.around.secrets.get(spec.id)
        if data is None:
            if spec.required:
                raise InvalidArgument(
                    f"secret {spec.id}: not found: give it with --secret id={spec.id},src=FILE"
                )
            return None
        return SecretMount(
            data,
            target=spec.target,
            env=spec.env,
            mode=0o400 if spec.mode is None else spec.mode,
            uid=spec.uid,
            gid=spec.gid,
        )

    def _agent(self, spec: MountSpec) -> SshMount | None:
        connect = self.around.agents.get(spec.id)
        if connect is None:
            if spec.required:
                raise InvalidArgument(f"ssh agent {spec.id}: not forwarded: give --ssh {spec.id}")
            return None
        mode = 0o600 if spec.mode is None else spec.mode
        return SshMount(connect, spec.target, mode=mode, uid=spec.uid, gid=spec.gid)


def _environment(op: RunOp) -> tuple[str, ...]:
    return (*op.env, *(f"{name}={value}" for name, value in op.args))


def _patterns(source: Input, patterns: tuple[str, ...], root: Path) -> tuple[str, ...]:
    """A file that was fetched is called as it is called there."""
    if isinstance(source, UrlInput):
        return tuple(sorted(os.listdir(root)))
    return (".",) if isinstance(source, GitInput) else patterns


def _ensure_directory(op: DirectoryOp, root: Path) -> None:
    user = resolve_user(root, op.user) if op.user else None
    uid, gid = (user.uid, user.gid) if user else (0, 0)
    with opened_root(root) as fd:
        try:
            os.close(Destination(fd, (uid, gid), follows=True).directory(op.path))
        except InvalidArgument as error:
            raise InvalidArgument(
                f"cannot make the working directory {op.path}: a file is in its way, or it is "
                "too deep"
            ) from error


def _has_directory(path: str, root: Path) -> bool:
    with opened_root(root) as fd:
        try:
            os.close(open_in_root(fd, path, os.O_RDONLY | os.O_DIRECTORY))
        except OSError:
            return False
    return True
