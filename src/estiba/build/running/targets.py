"""Where the mounts of a step go: targets resolved, missing ones made before the run and gone after.

A target is resolved as the step will see it: in the root, and in what is mounted below it by then.
Every component is looked up by itself and no symlink is left to the kernel, so none leads out. What
is made as a place to mount on is a stub; a stub that is still empty afterwards goes again, with the
traces that it left in the times of its parents.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from estiba.kernel.confined import Resolve, openat2, opened_root
from estiba.model.errors import InvalidArgument

_MAX_LINKS = 40
_MAX_PATH_BYTES = 4096
_MAX_PARTS = 100
_PLACE = os.O_PATH | os.O_DIRECTORY
_HERE = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS
_KERNELS_OWN = ("dev", "proc", "sys")


@dataclass(frozen=True, slots=True)
class _Cover:
    """What is mounted at `parts`; `fd` None where the runtime makes what is missing."""

    parts: tuple[str, ...]
    fd: int | None
    writable: bool = True
    is_root: bool = False


@dataclass(frozen=True, slots=True)
class _Stub:
    """Something made to mount on, by name in its open parent directory."""

    parent: int
    name: str
    status: os.stat_result

    def with_mode(self, mode: int) -> _Stub:
        os.chmod(self.name, mode, dir_fd=self.parent)
        return replace(self, status=os.stat(self.name, dir_fd=self.parent, follow_symlinks=False))


@dataclass(slots=True)
class _Parent:
    """A directory that stubs were made in: its state before, and with all of them."""

    fd: int
    before: os.stat_result
    sealed: os.stat_result | None = None


@dataclass(slots=True)
class Targets:
    """For one run: `protect`, then `place` and `cover` in the order of the mounts, `seal`, the run,
    `undo`. All blocks. The descriptors of covers stay their owner's.
    """

    root: int
    _covers: list[_Cover] = field(default_factory=list)
    _stubs: list[_Stub] = field(default_factory=list)
    _parents: dict[tuple[int, int], _Parent] = field(default_factory=dict)
    _ways: dict[str, _Parent] = field(default_factory=dict)
    """Directories of the root above stubs: an overlay copies all of them up."""
    _aside: list[tuple[str, str]] = field(default_factory=list)
    _owned: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self._covers.append(_Cover((), self.root, is_root=True))

    # -- before the run --------------------------------------------------------------------

    def protect(self, cwd: str) -> None:
        """Notes from where on the working directory does not exist: whoever makes it means it."""
        with contextlib.suppress(OSError):
            way, existing = self._walk(cwd, None)
            self._owned = way[: existing + 1] if existing < len(way) else None

    def place_kernels_own(self) -> None:
        """/dev, /proc and /sys as directories; what an image has there instead stands aside."""
        for name in _KERNELS_OWN:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self.root, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    aside = f".{name}-of-the-image-{secrets.token_hex(8)}"
                    self._remember(self.root)
                    os.rename(name, aside, src_dir_fd=self.root, dst_dir_fd=self.root)
                    self._aside.append((aside, name))
            self.place(f"/{name}", directory=True)
            self.cover(f"/{name}", None)

    def place(self, target: str, *, directory: bool, mode: int = 0o755) -> str:
        """The target's own path, without symlinks; made, a directory with `mode`, when missing.

        Raises InvalidArgument for one that cannot be, or is of the other kind.
        """
        made_before = len(self._stubs)
        try:
            way, _ = self._walk(target, directory)
            "/".join(way).encode()  # as it stands in the spec, which is JSON
            if len(self._stubs) > made_before and directory and mode != 0o755:
                self._stubs[-1] = self._stubs[-1].with_mode(mode)
        except OSError as error:
            raise _unusable(target, error) from error
        except UnicodeEncodeError:
            raise InvalidArgument(
                f"cannot mount at {target!r}: a link leads to a name that is not UTF-8"
            ) from None
        return "/" + "/".join(way)

    def is_covered(self, target: str) -> bool:
        """Whether something that was mounted so far lies at or above `target`.

        Raises InvalidArgument for one that leads nowhere.
        """
        try:
            way, _ = self._walk(target, None)
        except OSError as error:
            raise _unusable(target, error) from error
        return not self._cover_of(way).is_root

    def cover(self, path: str, fd: int | None, *, writable: bool = True) -> None:
        """From now on `path`, as `place` gave it, shows the directory `fd`."""
        self._covers.append(_Cover(tuple(path.strip("/").split("/")), fd, writable))

    def seal(self) -> None:
        """All stubs are made, the run may begin."""
        for parent in (*self._parents.values(), *self._ways.values()):
            parent.sealed = os.fstat(parent.fd)

    # -- after it --------------------------------------------------------------------------

    def undo(self) -> tuple[str, ...]:
        """Takes away what is still a stub, and closes what is open.

        Returns the directories of the root, deepest first, that an overlay copied up for stubs
        and the program did not change itself.
        """
        untouched = [path for path, way in self._ways.items() if self._is_untouched(path, way)]
        ends = {key: os.fstat(parent.fd) for key, parent in self._parents.items()}
        for stub in reversed(self._stubs):
            with contextlib.suppress(OSError):
                _remove(stub)
        for aside, name in self._aside:
            with contextlib.suppress(OSError):
                os.rename(aside, name, src_dir_fd=self.root, dst_dir_fd=self.root)
        for key, parent in self._parents.items():
            end = ends[key]
            kept = parent.sealed is not None and end.st_mtime_ns == parent.sealed.st_mtime_ns
            times = parent.before if kept else end
            with contextlib.suppress(OSError):
                os.utime(f"/proc/self/fd/{parent.fd}", ns=(times.st_atime_ns, times.st_mtime_ns))
        self._close()
        return tuple(sorted(untouched, key=lambda path: path.count("/"), reverse=True))

    def _is_untouched(self, path: str, way: _Parent) -> bool:
        if way.sealed is None or os.fstat(way.fd).st_ctime_ns != way.sealed.st_ctime_ns:
            return False
        return self._owned is None or tuple(path.split("/"))[: len(self._owned)] != self._owned

    def _close(self) -> None:
        for parent in (*self._parents.values(), *self._ways.values()):
            os.close(parent.fd)
        self._parents.clear()
        self._ways.clear()
        self._stubs.clear()
        self._aside.clear()

    # -- the walk --------------------------------------------------------------------------

    def _walk(self, target: str, directory: bool | None) -> tuple[tuple[str, ...], int]:
        """The way to `target` without symlinks, and how much of it was there.

        What is missing is made, unless `directory` is None.
        """
        todo = _parts(posixpath.normpath("/" + target))[::-1]
        done: list[str] = []
        existing = links = 0
        while todo:
            if len(todo) + len(done) > _MAX_PARTS:
                raise OSError(errno.ENAMETOOLONG, "it is too deep")
            name = todo.pop()
            if name == "..":
                del done[-1:]
                existing = min(existing, len(done))
                continue
            cover = self._cover_of(tuple(done))
            if cover.fd is None or existing < len(done):
                done.append(name)
                continue
            parent = _open_below(cover.fd, done[len(cover.parts) :])
            try:
                status = _lstat(parent, name)
                if status is not None and stat.S_ISLNK(status.st_mode):
                    links += 1
                    todo, done = _follow(os.readlink(name, dir_fd=parent), todo, done, links)
                    existing = len(done)
                    continue
                if status is not None and directory is not None:
                    _check_kind(status, target, (*done, name), bool(todo) or directory)
                if status is None and directory is not None:
                    self._make(cover, parent, done, name, directory=bool(todo) or directory)
            finally:
                os.close(parent)
            existing += status is not None or directory is not None
            done.append(name)
        return tuple(done), existing

    def _cover_of(self, parts: tuple[str, ...]) -> _Cover:
        """The last one mounted of the deepest."""
        best = self._covers[0]
        for cover in self._covers:
            length = len(cover.parts)
            if length >= len(best.parts) and parts[:length] == cover.parts:
                best = cover
        return best

    def _make(
        self, cover: _Cover, parent: int, way: list[str], name: str, *, directory: bool
    ) -> None:
        path = "/".join((*way, name))
        if not cover.writable:
            raise InvalidArgument(
                f"cannot mount at /{path}: it does not exist in the read-only mount at "
                f"/{'/'.join(cover.parts)}: make it in its source, or choose another target"
            )
        if cover.is_root:
            self._note_way(way)
        kept = self._remember(parent)
        if directory:
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644, dir_fd=parent))
        self._stubs.append(
            _Stub(kept.fd, name, os.stat(name, dir_fd=parent, follow_symlinks=False))
        )

    def _remember(self, fd: int) -> _Parent:
        status = os.fstat(fd)
        key = status.st_dev, status.st_ino
        if key not in self._parents:
            self._parents[key] = _Parent(os.dup(fd), status)
        return self._parents[key]

    def _note_way(self, parts: list[str]) -> None:
        for depth in range(len(parts), 0, -1):
            path = "/".join(parts[:depth])
            if path in self._ways:
                return
            fd = _open_below(self.root, parts[:depth])
            self._ways[path] = _Parent(fd, os.fstat(fd))


def forget_untouched(upper: Path, paths: Iterable[str]) -> None:
    """Removes from a step's upper directory what `Targets.undo` returned, where it is empty.

    The overlay is not mounted meanwhile. Blocks.
    """
    with opened_root(upper) as root:
        for path in paths:
            above, _, name = path.rpartition("/")
            with contextlib.suppress(OSError):
                parent = _open_below(root, _parts(above))
                try:
                    times = os.fstat(parent)
                    os.rmdir(name, dir_fd=parent)
                    stamps = (times.st_atime_ns, times.st_mtime_ns)
                    os.utime(f"/proc/self/fd/{parent}", ns=stamps)
                finally:
                    os.close(parent)


def _unusable(target: str, error: OSError) -> InvalidArgument:
    return InvalidArgument(f"cannot mount at {target!r}: {error.strerror}: choose another target")


def _open_below(fd: int, parts: list[str]) -> int:
    return openat2(fd, "/".join(parts) or ".", _PLACE, 0, _HERE)


def _lstat(parent: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _follow(link: str, todo: list[str], done: list[str], links: int) -> tuple[list[str], list[str]]:
    todo = [*todo, *reversed(_parts(link))]
    if links > _MAX_LINKS or sum(len(part) + 1 for part in todo) > _MAX_PATH_BYTES:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return todo, [] if link.startswith("/") else done


def _check_kind(
    status: os.stat_result, target: str, parts: tuple[str, ...], directory: bool
) -> None:
    if stat.S_ISDIR(status.st_mode) == directory:
        return
    is_one = "a directory" if stat.S_ISDIR(status.st_mode) else "no directory"
    wanted = "a directory" if directory else "a file"
    raise InvalidArgument(
        f"cannot mount {wanted} at {target!r}: /{'/'.join(parts)} is {is_one}: "
        "choose another target"
    )


def _remove(stub: _Stub) -> None:
    status = os.stat(stub.name, dir_fd=stub.parent, follow_symlinks=False)
    made = stub.status
    same = (status.st_mode, status.st_uid, status.st_gid) == (
        made.st_mode,
        made.st_uid,
        made.st_gid,
    )
    if not same:
        return
    if stat.S_ISDIR(status.st_mode):
        os.rmdir(stub.name, dir_fd=stub.parent)
    elif status.st_size == 0:
        os.unlink(stub.name, dir_fd=stub.parent)
