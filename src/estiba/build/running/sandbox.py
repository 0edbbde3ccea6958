"""What one run has on the host besides its network: directory, mounts, stubs, the bundle.

    <exec root>/build/<id>/       a file system in memory, gone with the run:
        group                     its cgroup, for a sweep after a crash
        config.json, log, pid     the runtime-spec, the runtime's complaint, the first process
        state/                    the runtime's own, which has a copy of the spec
        hostname, hosts, resolv.conf
        mount-<n>                 pinned sources, secrets, agents
    <data root>/build/scratch/<id>/   changes of writable binds, thrown away

All blocks.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from estiba.build.ports import RunRequest, SecretMount, SshMount
from estiba.build.running.mounts import MountMaker
from estiba.build.running.targets import Targets
from estiba.kernel.mounts import MountFlag, mount, unmount
from estiba.kernel.trees import remove_tree
from estiba.runtime.mounts import SpecMount
from estiba.runtime.users import User, resolve_user
from estiba.runtime.workdir import ensure_working_directory

_OWN_BYTES = 32 << 20
_FLAGS = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC


@dataclass(frozen=True, slots=True)
class Places:
    """Where all runs of an engine are."""

    exec_root: Path
    data_root: Path

    @property
    def runs(self) -> Path:
        return self.exec_root / "build"

    @property
    def scratches(self) -> Path:
        return self.data_root / "build" / "scratch"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the spec needs to know of the tree."""

    user: User
    mounts: Sequence[SpecMount]
    agents: Sequence[tuple[SshMount, Path]]


class Sandbox:
    """`prepare`, `write`, the run, `undo`, `remove`."""

    def __init__(self, places: Places, run_id: str) -> None:
        self.path = places.runs / run_id
        self.scratch = places.scratches / run_id
        self._targets: Targets | None = None
        self._root: int | None = None

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def log(self) -> Path:
        return self.path / "log"

    def group(self) -> str:
        """The cgroup that a run noted which ended with its engine; "" when it came not so far."""
        try:
            return (self.path / "group").read_text()
        except FileNotFoundError:
            return ""

    def prepare(self, request: RunRequest, group: str, caches: Mapping[str, Path]) -> Prepared:
        """Raises InvalidArgument for what the request asks of a tree that it does not allow."""
        secrets = sum(len(each.data) for each in request.mounts if isinstance(each, SecretMount))
        self.path.mkdir(mode=0o700, parents=True)
        _mount_memory(self.path, _OWN_BYTES + secrets)
        (self.path / "group").write_text(group)
        self._root = os.open(request.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        targets = self._targets = Targets(self._root)
        targets.protect(request.cwd)
        ensure_working_directory(request.root, request.cwd)
        targets.place_kernels_own()
        maker = MountMaker(self.path, self.scratch, targets, caches, cwd=request.cwd)
        try:
            mounts = maker.add_all(request.mounts)
        finally:
            maker.close()
        targets.seal()
        user = resolve_user(request.root, request.user)
        return Prepared(user, mounts, maker.agents)

    def write(self, spec: dict[str, Any], files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.path / name
            path.write_text(text)
            path.chmod(0o644)
        (self.path / "config.json").write_bytes(msgspec.json.encode(spec))

    def undo(self) -> tuple[str, ...]:
        """Takes the stubs away; returns `Targets.undo`. Harmless twice."""
        untouched: tuple[str, ...] = ()
        if self._targets is not None:
            untouched = self._targets.undo()
            self._targets = None
        if self._root is not None:
            os.close(self._root)
            self._root = None
        return untouched

    def remove(self) -> None:
        """Harmless twice, and for a run of an earlier engine."""
        unmount(self.path)
        remove_tree(self.path)
        remove_tree(self.scratch)


def _mount_memory(target: Path, size_bytes: int) -> None:
    """A file system in memory that is not swapped out either, where Linux can (6.4)."""
    options = f"mode=700,size={size_bytes}"
    try:
        mount("tmpfs", target, "tmpfs", _FLAGS, f"noswap,{options}")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        mount("tmpfs", target, "tmpfs", _FLAGS, options)
    mount("", target, "", MountFlag.PRIVATE)
