"""Workspaces: the writable tree of a build step, which then becomes a layer where it stands.

    work/<key>/upper   what the step writes; `tree` is where it is mounted, `work` overlay's own
    views/<random>     read-only mounts
    trash/             removed ones, deleted in the background
    empty/             what stands in for layers that are not there

A frozen workspace is the lower directory of later steps while it is still being hashed, and
then moves into the layer store by rename. Nothing here outlives the engine: what finds itself
here at its start is swept.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from estiba.kernel import failpoint
from estiba.kernel.allocator import give_back
from estiba.kernel.blocking import start_clearing
from estiba.kernel.inode_flags import spread_subdirectories
from estiba.kernel.mounts import mount_overlay, unmount
from estiba.kernel.trees import discard_tree, opened_directory, walk
from estiba.model.digest import Digest
from estiba.model.errors import Conflict, FailedPrecondition, NotFound
from estiba.storage.adopt import describe_upper
from estiba.storage.flatten import flatten
from estiba.storage.frozen import PLACE, Frozen, Opener, opened, readable
from estiba.storage.layers import LayerInfo, LayerStore
from estiba.storage.recipe import RecipeWriter

_MUCH_BYTES = 16 << 20
_Root = tuple[int, int, int]
_PLAIN_ROOT: _Root = (0o755, 0, 0)


class Step(Protocol):
    """What `freeze` returns, as others name it."""

    @property
    def diff_id(self) -> Digest | None: ...


Lower = Digest | Step


@dataclass(slots=True)
class _Space:
    """One key. `root` is what the step found its root directory to be."""

    path: Path
    lower: tuple[Lower, ...]
    root: _Root
    is_mounted: bool = False
    frozen: Frozen | None = None


@dataclass(slots=True)
class Workspaces:
    """All methods block; all may be called from any thread."""

    root: Path
    layers: LayerStore
    _spaces: dict[str, _Space] = field(default_factory=dict)
    _views: dict[str, tuple[Lower, ...]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self) -> None:
        """Makes the directories and sweeps what a crash left."""
        for name in ("work", "views", "trash", "empty"):
            (self.root / name).mkdir(mode=0o710, parents=True, exist_ok=True)
        for name in ("0", "1"):
            (self.root / "empty" / name).mkdir(mode=0o755, exist_ok=True)
        spread_subdirectories(self.root / "work")
        for name, place in (("work", "tree"), ("views", "")):
            for leftover in (self.root / name).iterdir():
                unmount(leftover / place)
                os.rename(leftover, self._trash())
        start_clearing(self._empty_trash)

    def prepare(self, key: str, lower: Sequence[Lower]) -> None:
        """A writable tree over `lower`, bottom first. Raises NotFound for one that is missing."""
        if key in self._spaces:
            return
        root = _PLAIN_ROOT
        if lower:
            with self._stack(lower) as openers, opened(openers) as fds:
                root = _root_facts(os.fstat(fds[0]))
        path = self.root / "work" / key
        try:
            for name in ("", "tree", "upper"):
                (path / name).mkdir(mode=0o710, exist_ok=True)
            os.chown(path / "upper", root[1], root[2])
            os.chmod(path / "upper", root[0])
        except OSError:
            self._throw_away(path)  # no space, for instance
            raise
        with self._lock:
            self._spaces.setdefault(key, _Space(path, tuple(lower), root))

    @contextmanager
    def mounted(self, key: str) -> Iterator[Path]:
        """The tree, writable, for as long as the context lasts.

        Raises NotFound, Conflict when it is mounted already.
        """
        space = self._space(key)
        with self._lock:
            if space.is_mounted or space.frozen is not None:
                raise Conflict(f"the step {key} is mounted already, or over")
            space.is_mounted = True
        target, work = space.path / "tree", space.path / "work"
        try:
            with self._stack(space.lower) as lower:
                work.mkdir(mode=0o700)
                with opened(lower or self._fillers(1)) as fds:
                    # What a crash may damage is swept then; so nothing need ever be flushed.
                    mount_overlay(target, fds, upper=space.path / "upper", work=work, volatile=True)
                try:
                    yield target
                finally:
                    unmount(target)
        finally:
            discard_tree(work)
            space.is_mounted = False

    @contextmanager
    def view(self, lower: Sequence[Lower]) -> Iterator[Path]:
        """The tree that `lower` makes, bottom first, read-only. Raises NotFound."""
        name = secrets.token_hex(8)
        target = self.root / "views" / name
        target.mkdir()
        self._views[name] = tuple(lower)
        try:
            with self._stack(lower) as openers:
                # It may turn out that two are the same.
                with opened([*openers, *self._fillers(2)]) as fds:
                    mount_overlay(target, fds)
                try:
                    yield target
                finally:
                    unmount(target)
        finally:
            del self._views[name]
            target.rmdir()

    def upper(self, key: str) -> Path:
        """The directory of what the step changed; for a look while it is not mounted."""
        return self._space(key).path / "upper"

    def is_changed(self, key: str) -> bool:
        """Whether the step left anything. Raises NotFound."""
        space = self._space(key)
        with self._upper(space) as upper, os.scandir(upper) as entries:
            return next(entries, None) is not None or _root_facts(os.fstat(upper)) != space.root

    def freeze(self, key: str, *, newest_ns: int | None = None) -> Frozen:
        """The step is over; with `newest_ns` nothing in it stays later than that.

        Raises NotFound, FailedPrecondition while it is mounted.
        """
        space = self._space(key)
        if space.frozen is not None:
            return space.frozen
        if space.is_mounted:
            raise FailedPrecondition(f"the step {key} is still mounted")
        if newest_ns is not None:
            with opened_directory(space.path / "upper") as upper:
                _clamp(upper, newest_ns)
        failpoint.hit("workspace.frozen")
        with self._lock:
            space.frozen = space.frozen or Frozen(key, space.path / "upper")
            return space.frozen

    def commit(self, frozen: Step, keep: Callable[[Digest], None]) -> LayerInfo:
        """Makes it a layer of the store; steps may stand on it meanwhile.

        `keep` is told the DiffID before the layer appears, to protect it from collection; when it
        is a layer already `keep` is told too. Raises InvalidArgument or LimitExceeded for what a
        layer cannot hold, Cancelled when it is discarded meanwhile; NotFound.
        """
        own = _own(frozen)
        with own.committing:
            if own.diff_id is not None:
                keep(own.diff_id)
                return self._info(own.diff_id)
            with own.pinned() as opener, self.layers.staged() as staged:
                info = self._describe(own, opener, staged / "recipe")
                self.layers.note(staged, info)
                failpoint.hit("workspace.packed")
                keep(info.diff_id)
                layer = self.layers.diff_path(info.diff_id)
                move = partial(self._move, staged, info)
                own.settle(info.diff_id, layer, self._trash(), move)
        failpoint.hit("workspace.renamed")
        self._forget(own.key)
        if info.tar_bytes > _MUCH_BYTES:
            give_back()
        return info

    def discard(self, key: str) -> None:
        """At once; the files go in the background. Harmless for what is a layer, or unknown."""
        with self._lock:
            space = self._spaces.pop(key, None)
        if space is None:
            return
        if space.frozen is not None:
            space.frozen.discard(self._trash())
        unmount(space.path / "tree")
        self._throw_away(space.path)

    def merged(self, layers: Sequence[Lower], key: str, *, below: Sequence[Lower]) -> Frozen:
        """Several layers as one, bottom first, to be committed. Raises NotFound.

        What they delete of the layers `below`, on which it will stand, stays deleted.
        """
        self.prepare(key, layers[-1:])
        try:
            with (
                self._stack(layers) as openers,
                opened_directory(self._space(key).path / "upper") as upper,
                opened(openers) as fds,
                readable(fds) as topmost_first,
                self.view(below) as beneath,
                opened_directory(beneath) as root,
            ):
                flatten(topmost_first[::-1], upper, root)
            return self.freeze(key)
        except BaseException:
            self.discard(key)
            raise

    def used_layers(self) -> set[Digest]:
        """DiffIDs of the layers that workspaces and views stand on, as far as they have one."""
        stacks = [space.lower for space in list(self._spaces.values())]
        lower = [one for stack in (*stacks, *list(self._views.values())) for one in stack]
        found = (one if isinstance(one, str) else one.diff_id for one in lower)
        return {diff_id for diff_id in found if diff_id is not None}

    # -- moving ----------------------------------------------------------------------------

    def _describe(self, frozen: Frozen, opener: Opener, recipe: Path) -> LayerInfo:
        with (
            opened([opener]) as fds,
            readable(fds) as (upper,),
            RecipeWriter(recipe) as writer,
        ):
            return describe_upper(upper, writer, self.layers.limits, frozen.check)

    def _move(self, staged: Path, info: LayerInfo, upper: Path) -> bool:
        os.rename(upper, staged / "diff")
        try:
            failpoint.hit("workspace.moved")
            if self.layers.publish(staged, info):
                return True
        except BaseException:
            os.rename(staged / "diff", upper)
            raise
        os.rename(staged / "diff", upper)
        discard_tree(staged)
        return False

    def _forget(self, key: str) -> None:
        with self._lock:
            space = self._spaces.pop(key, None)
        if space is not None:
            discard_tree(space.path)

    def _throw_away(self, path: Path) -> None:
        trash = self._trash()
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, trash)
            start_clearing(discard_tree, trash)

    def _empty_trash(self) -> None:
        for leftover in (self.root / "trash").iterdir():
            discard_tree(leftover)

    def _trash(self) -> Path:
        return self.root / "trash" / secrets.token_hex(8)

    # -- finding ---------------------------------------------------------------------------

    def _space(self, key: str) -> _Space:
        try:
            return self._spaces[key]
        except KeyError:
            raise NotFound(f"no such workspace: {key}") from None

    def _info(self, diff_id: Digest) -> LayerInfo:
        info = self.layers.info(diff_id)
        if info is None:
            raise NotFound(f"layer {diff_id} is gone: nothing kept it from collection")
        return info

    @contextmanager
    def _upper(self, space: _Space) -> Iterator[int]:
        with ExitStack() as stack:
            if space.frozen is not None:
                opener = stack.enter_context(space.frozen.pinned())
            else:
                opener = partial(os.open, space.path / "upper", PLACE)
            (fd,) = stack.enter_context(opened([opener]))
            yield stack.enter_context(readable([fd]))[0]

    @contextmanager
    def _stack(self, lower: Sequence[Lower]) -> Iterator[list[Opener]]:
        """What opens the directories, topmost first; none is deleted meanwhile."""
        with ExitStack() as pins:
            yield [self._opener(one, pins) for one in reversed(lower)]

    def _fillers(self, count: int) -> list[Opener]:
        """Empty directories, for an overlay that would be of too few."""
        return [partial(os.open, self.root / "empty" / str(i), PLACE) for i in range(count)]

    def _opener(self, lower: Lower, pins: ExitStack) -> Opener:
        if isinstance(lower, Frozen):
            return pins.enter_context(lower.pinned())
        diff_id = lower if isinstance(lower, str) else _own(lower).diff_id
        return partial(self._open_layer, diff_id or "")

    def _open_layer(self, diff_id: Digest) -> int:
        try:
            return os.open(self.layers.diff_path(diff_id), PLACE)
        except FileNotFoundError:
            raise NotFound(f"layer {diff_id} is missing: build without the cache") from None


def _own(step: Step) -> Frozen:
    if not isinstance(step, Frozen):
        raise TypeError(f"{step!r} was not frozen here")
    return step


def _root_facts(status: os.stat_result) -> _Root:
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def _clamp(upper: int, newest_ns: int) -> None:
    """Whiteouts have no time in a layer, and share an inode."""
    times = (newest_ns, newest_ns)
    for found in walk(upper):
        status = found.status
        if status.st_mtime_ns > newest_ns and not _is_whiteout(status):
            os.utime(found.name, ns=times, dir_fd=found.parent, follow_symlinks=False)
    if os.fstat(upper).st_mtime_ns > newest_ns:
        os.utime(upper, ns=times)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
