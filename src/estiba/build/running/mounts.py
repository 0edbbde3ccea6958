"""The mounts of a step made ready below its run directory, which is a file system in memory.

Sources in other trees are pinned by descriptor, so nothing that changes in those trees leads the
runtime elsewhere. Secrets are written here and nowhere else. Blocks.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from estiba.build.ports import (
    BindMount,
    CacheMount,
    RunMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from estiba.build.running.targets import Targets
from estiba.kernel.confined import open_in_root, opened_root
from estiba.kernel.mounts import MountFlag, mount, mount_overlay
from estiba.model.errors import InvalidArgument
from estiba.runtime.mounts import SpecMount, bind, tmpfs

_REFUSED = ("/proc", "/sys")
_SECRET_OPTIONS = ("nosuid", "nodev", "noexec")
NAMES = ("hostname", "hosts", "resolv.conf")


@dataclass(slots=True)
class MountMaker:
    """For one run: `add` each mount in order, `close` when the runtime has them all.

    `place` is the run directory, `scratch` where throw-away changes go, on disk; `caches` are the
    directories of cache mounts by id.
    """

    place: Path
    scratch: Path
    targets: Targets
    caches: Mapping[str, Path]
    cwd: str = "/"
    agents: list[tuple[SshMount, Path]] = field(default_factory=list)
    """The ssh mounts, and where a socket for each is to listen before the runtime starts."""
    _open: ExitStack = field(default_factory=ExitStack)
    _count: int = 0

    def add_all(self, mounts: tuple[RunMount, ...]) -> list[SpecMount]:
        """The engine's files and all of a step's mounts, parents before what lies in them.

        Raises InvalidArgument.
        """
        wanted: list[tuple[str, RunMount | None]] = [(f"/etc/{name}", None) for name in NAMES]
        for each in mounts:
            if isinstance(each, SecretMount) and not each.target:
                continue
            wanted.append((_checked(each.target, self.cwd), each))
        made = []
        for target, step_mount in sorted(wanted, key=lambda entry: entry[0].count("/")):
            if step_mount is None:
                spec = self._engine_file(target)
            else:
                spec = self._add(step_mount, target)
            if spec is not None:
                made.append(spec)
        return made

    def close(self) -> None:
        self._open.close()

    def _engine_file(self, target: str) -> SpecMount | None:
        """None where the step mounts something of its own around it."""
        if self.targets.is_covered(target):
            return None
        path = self.targets.place(target, directory=False)
        return bind(self.place / posixpath.basename(target), path)

    def _add(self, wanted: RunMount, target: str) -> SpecMount:
        self._count += 1
        source = self.place / f"mount-{self._count}"
        if isinstance(wanted, TmpfsMount):
            # runc gives a file system in memory the mode of what it is mounted on.
            path = self._place(target, directory=True, mode=0o1777)
            self.targets.cover(path, None)
            size = f",size={wanted.size_bytes}" if wanted.size_bytes else ""
            return tmpfs(path, f"exec,mode=1777{size}")
        if isinstance(wanted, CacheMount):
            data = self.caches[wanted.id]
            return self._directory(target, data, writable=not wanted.readonly)
        if isinstance(wanted, BindMount):
            return self._bind(wanted, target, source)
        path = self._place(target, directory=False)
        if isinstance(wanted, SshMount):
            self.agents.append((wanted, source))
            return bind(source, path, recursive=False)
        _write_secret(source, wanted)
        secret = bind(source, path, rw=False, recursive=False)
        return SpecMount(path, "bind", str(source), (*secret.options, *_SECRET_OPTIONS))

    def _place(self, target: str, *, directory: bool, mode: int = 0o755) -> str:
        path = self.targets.place(target, directory=directory, mode=mode)
        if path == "/" or any(f"{path}/".startswith(f"{each}/") for each in _REFUSED):
            raise InvalidArgument(f"cannot mount at {target!r}: {path} is the kernel's own")
        return path

    def _directory(self, target: str, source: Path, *, writable: bool) -> SpecMount:
        path = self._place(target, directory=True)
        fd = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open.callback(os.close, fd)
        self.targets.cover(path, fd, writable=writable)
        return bind(source, path, rw=writable, recursive=False)

    def _bind(self, wanted: BindMount, target: str, source: Path) -> SpecMount:
        with opened_root(wanted.root) as tree:
            try:
                fd = open_in_root(tree, wanted.source, os.O_PATH)
            except OSError as error:
                raise InvalidArgument(
                    f"cannot mount {wanted.source!r} at {wanted.target}: "
                    f"{(error.strerror or str(error)).lower()}: check its source and from"
                ) from error
            try:
                mode = os.fstat(fd).st_mode
                if stat.S_ISDIR(mode):
                    return self._bind_directory(wanted, target, fd, source)
                if stat.S_ISREG(mode):
                    return self._bind_file(wanted, target, fd, source)
            finally:
                os.close(fd)
        raise InvalidArgument(
            f"cannot mount {wanted.source!r} at {wanted.target}: it is neither a directory nor a "
            "file"
        )

    def _bind_directory(self, wanted: BindMount, target: str, fd: int, source: Path) -> SpecMount:
        source.mkdir()
        _pin(fd, source)
        if not wanted.writable:
            return self._directory(target, source, writable=False)
        changes = self.scratch / source.name
        upper, work, merged = changes / "upper", changes / "work", self.place / f"{source.name}-rw"
        status = os.fstat(fd)
        for each in (upper, work):
            each.mkdir(parents=True)
        os.chown(upper, status.st_uid, status.st_gid)
        upper.chmod(stat.S_IMODE(status.st_mode))
        merged.mkdir()
        mount_overlay(merged, [source], upper=upper, work=work)
        return self._directory(target, merged, writable=True)

    def _bind_file(self, wanted: BindMount, target: str, fd: int, source: Path) -> SpecMount:
        path = self._place(target, directory=False)
        if wanted.writable:
            self.scratch.mkdir(parents=True, exist_ok=True)
            source = self.scratch / source.name
            _copy_file(fd, source)
        else:
            source.touch()
            _pin(fd, source)
        return bind(source, path, rw=wanted.writable, recursive=False)


def _checked(target: str, cwd: str) -> str:
    """Made normal; one that does not begin at the root begins at the working directory.

    Raises InvalidArgument.
    """
    encoded = target.encode(errors="replace")
    if not target or "\0" in target or len(encoded) > 4096 or encoded.decode() != target:
        raise InvalidArgument(f"invalid mount target {target[:64]!r}: give a path")
    return posixpath.normpath(posixpath.join("/", cwd, target)).replace("//", "/")


def _pin(fd: int, target: Path) -> None:
    mount(f"/proc/self/fd/{fd}", target, "", MountFlag.BIND)


def _write_secret(path: Path, secret: SecretMount) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret.data)
        os.fchown(file.fileno(), secret.uid, secret.gid)
        os.fchmod(file.fileno(), secret.mode)


def _copy_file(fd: int, target: Path) -> None:
    status = os.fstat(fd)
    with open(f"/proc/self/fd/{fd}", "rb") as source, target.open("xb") as copy:
        shutil.copyfileobj(source, copy)
        os.fchown(copy.fileno(), status.st_uid, status.st_gid)
        os.fchmod(copy.fileno(), stat.S_IMODE(status.st_mode))
