"""Mounts made aside before the runtime sees them, one directory or file for each of a run.

What is pinned stays what it was: another user of a volume who puts a symlink in the place of a
subpath leads nowhere, and owners are mapped whatever runtime mounts it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from estiba.containers.idmaps import parse_idmap
from estiba.kernel import failpoint
from estiba.kernel.confined import (
    Resolve,
    ensure_directory_in_root,
    open_in_root,
    openat2,
    opened_root,
)
from estiba.kernel.idmap import IdMap, mount_mapped, swap
from estiba.kernel.mounts import attach_tree, clone_tree, file_system_of, is_mounted
from estiba.model.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from estiba.containers.record import MountPlan

    Owner = tuple[int, int]

_AT_FDCWD = -100


def pin(
    target: Path,
    source: Path,
    plan: MountPlan,
    user: Callable[[], Owner],
    *,
    follow: bool = True,
) -> Path:
    """Mounts what the plan means below `source` at `target`; harmless when it is there.

    `user` says as whom the container runs. Raises NotFound for a subpath that is not there and
    cannot be made, FailedPrecondition where owners cannot be mapped.
    """
    if is_mounted(target):
        return target
    with _opened(source, plan, follow=follow) as fd:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        failpoint.hit("pins.place-made")
        recursive = not plan.non_recursive
        if plan.idmap is not None:
            wanted = parse_idmap(plan.idmap) or _owners_swapped(status, user())
            _mount_mapped(fd, target, wanted, plan, source)
            return target
        tree = clone_tree(fd, recursive=recursive)
        try:
            attach_tree(tree, target)
        finally:
            os.close(tree)
    return target


@contextmanager
def _opened(source: Path, plan: MountPlan, *, follow: bool) -> Iterator[int]:
    fd = open_source(source, plan, follow=follow)
    try:
        yield fd
    finally:
        os.close(fd)


def open_source(source: Path, plan: MountPlan, *, follow: bool) -> int:
    """A descriptor (O_PATH) of what the plan means. Without `follow` no part of `source` may be
    a symlink: a plugin that is confined might put one there at any time.

    Raises NotFound, OSError.
    """
    if follow:
        if plan.subpath:
            return open_below(source, plan)
        return os.open(source, os.O_PATH | os.O_CLOEXEC)
    try:
        root = openat2(_AT_FDCWD, os.fspath(source), os.O_PATH, 0, Resolve.NO_SYMLINKS)
    except OSError as error:
        raise NotFound(f"cannot access path {source}: {error.strerror}") from error
    if not plan.subpath:
        return root
    try:
        return open_below(Path(f"/proc/self/fd/{root}"), plan)
    finally:
        os.close(root)


def open_below(source: Path, plan: MountPlan) -> int:
    """A descriptor (O_PATH) of what is at the plan's subpath, confined to `source`.

    In a volume a directory is made where nothing is. Raises NotFound.
    """
    with opened_root(source) as root:
        try:
            try:
                return open_in_root(root, plan.subpath, os.O_PATH)
            except FileNotFoundError:
                if plan.type != "volume":
                    raise
            os.close(ensure_directory_in_root(root, plan.subpath, inherit_owner=True))
            return open_in_root(root, plan.subpath, os.O_PATH)
        except OSError as error:
            raise NotFound(
                f"cannot access path {source / plan.subpath}: {(error.strerror or '').lower()}"
            ) from error


def _owners_swapped(status: os.stat_result, user: Owner) -> IdMap:
    return IdMap(swap(status.st_uid, user[0]), swap(status.st_gid, user[1]))


def _mount_mapped(fd: int, target: Path, wanted: IdMap, plan: MountPlan, source: Path) -> None:
    try:
        mount_mapped(fd, target, wanted, recursive=not plan.non_recursive)
    except OSError as error:
        kind = file_system_of(fd)
        reasons = {
            errno.EINVAL: f"the file system {kind} of {source}, or one that is mounted below it, "
            "knows no id mapping: use a directory on another one, or bind-recursive=disabled",
            errno.EPERM: f"{source} is id-mapped already, or the kernel does not let this "
            f"engine map the file system {kind}",
            errno.ENOSYS: "the kernel is older than 5.12",
        }
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        raise FailedPrecondition(f"cannot map owners at {plan.destination}: {reason}") from error
