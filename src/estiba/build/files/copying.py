"""Puts what was taken into a tree: content, modes, owners, times, links, attributes.

Every path is resolved below a descriptor of its own tree, on both sides, so no link leads out
whenever it is made. What is not taken stays as it is; directories are merged.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from pathlib import Path

from estiba.build.files.archives import unpack_archive
from estiba.build.files.content import copy_content
from estiba.build.files.destination import Destination, Directories, clear
from estiba.build.files.model import CopyOptions, Entry, Form, Selected, Taken, shown_path
from estiba.build.files.modes import new_directory_mode, parse_chmod
from estiba.build.files.owners import resolve_owner
from estiba.build.files.selection import is_directory_name
from estiba.build.files.sharing import Sharing, sharing
from estiba.distribution.cancel import CancelToken
from estiba.kernel.confined import exists_in_root, open_in_root, opened_root
from estiba.model.errors import FailedPrecondition, InvalidArgument
from estiba.storage.unpack import Limits

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_BELOW = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_UNSUPPORTED = (errno.ENOTSUP, errno.EPERM)
"""The tree's file system keeps no attributes, or not on such a file."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def put(
    taken: Taken,
    options: CopyOptions,
    root: Path,
    cancel: CancelToken | None = None,
    limits: Limits = Limits(),  # noqa: B008
    upper: Path | None = None,
) -> None:
    """Copies into the mounted tree at `root`, an overlay over `upper` if that is given. Blocks.

    Raises InvalidArgument for a destination that cannot be and an unknown owner,
    LimitExceeded for an archive that is too large, FailedPrecondition when a source changed
    since it was taken, Cancelled, OSError.
    """
    owner = resolve_owner(root, options.owner) if options.owner else None
    with opened_root(root) as fd, sharing(root, upper) as shared:
        _Putting(fd, options, owner, cancel or CancelToken(), limits, shared).all(taken)


class _Putting:
    def __init__(
        self,
        root: int,
        options: CopyOptions,
        owner: tuple[int, int] | None,
        cancel: CancelToken,
        limits: Limits,
        shared: Sharing | None,
    ) -> None:
        follows = options.follows_destination_links
        self._root = root
        mode = new_directory_mode(options.mode)
        self._to = Destination(root, owner or (0, 0), mode, follows=follows)
        self._replaces = not follows
        self._owner = owner
        self._change = parse_chmod(options.mode)
        self._newest_ns = options.newest_ns
        self._cancel = cancel
        self._limits = limits
        self._shared = shared
        self._is_directory = is_directory_name(options)
        path = posixpath.join("/", options.working_dir, options.destination)
        self._path = "/" + posixpath.normpath(path).lstrip("/")

    def all(self, taken: Taken) -> None:
        files = [each for each in taken.selected if each.form is Form.FILE]
        if len(files) > 1 and not self._is_directory and not self._to.is_directory(self._path):
            raise InvalidArgument(
                f"{len(files)} files cannot be copied to one name: let the destination end "
                f"with a /: {shown_path(self._path)}"
            )
        for selected in taken.selected:
            self._cancel.check()
            with opened_root(selected.root) as source:
                if selected.form is Form.CONTENTS:
                    self._contents(source, selected)
                elif selected.form is Form.ARCHIVE:
                    self._archive(source, selected)
                else:
                    self._file(source, selected)

    def _contents(self, source: int, selected: Selected) -> None:
        is_new = not exists_in_root(self._root, self._path)
        base = self._to.directory(self._path)
        with Directories(base) as to:
            top = open_in_root(source, selected.path or "/", _DIRECTORY)
            with Directories(top) as of:
                self._entries(of, to, selected, is_new=is_new)

    def _entries(
        self, of: Directories, to: Directories, selected: Selected, *, is_new: bool
    ) -> None:
        names: dict[tuple[int, int], str] = {}
        directories: list[Entry] = []
        empty = {""} if is_new else set()
        for entry in selected.entries:
            self._cancel.check()
            before, _, name = entry.path.rpartition("/")
            shown = shown_path(posixpath.join(self._path, entry.path))
            if stat.S_ISDIR(entry.mode):
                if self._directory(to.get(before), name, entry, selected, shown):
                    empty.add(entry.path)
                directories.append(entry)
                continue
            first = names.get(entry.inode) if entry.inode else None
            if first is not None:
                parent, _, base = first.rpartition("/")
                self._link(to.get(parent), base, to.get(before), name, shown)
                continue
            shares = before in empty and self._may_share(entry, selected)
            if not (shares and self._share(of.get(before), to.get(before), name)):
                self._place(of.get(before), name, to.get(before), name, entry, selected, shown)
            if entry.inode:
                names[entry.inode] = entry.path
        for entry in directories:
            self._times(to.get(entry.path), entry)

    def _file(self, source: int, selected: Selected) -> None:
        path = self._path
        if self._is_directory or self._to.is_directory(path):
            # A link of that name in the directory is replaced, as one below a directory is.
            parent, name = self._to.directory(path), selected.name
            path = shown_path(posixpath.join(path, name))
        else:
            parent, name = self._to.file(path)
        try:
            before, _, base = selected.path.rpartition("/")
            of = open_in_root(source, before or "/", _DIRECTORY)
            try:
                self._place(of, base, parent, name, selected.entries[0], selected, path)
            finally:
                os.close(of)
        finally:
            os.close(parent)

    def _archive(self, source: int, selected: Selected) -> None:
        # --chmod says nothing of what is unpacked, so nothing of the directory for it.
        place = Destination(self._root, self._owner or (0, 0), follows=not self._replaces)
        to = place.directory(self._path)
        try:
            fd = open_in_root(source, selected.path, _FILE)
            try:
                unpack_archive(
                    fd,
                    to,
                    owner=self._owner,
                    limits=self._limits,
                    cancel=self._cancel,
                    shown=f'"/{shown_path(selected.path)}"',
                )
            finally:
                os.close(fd)
        finally:
            os.close(to)

    # -- one entry -------------------------------------------------------------------------

    def _may_share(self, entry: Entry, selected: Selected) -> bool:
        """Whether the file is just as it has to become."""
        return (
            selected.shares_files
            and stat.S_ISREG(entry.mode)
            and (entry.uid, entry.gid) == self._owner_of(entry, selected)
            and stat.S_IMODE(entry.mode) == self._change(entry.mode)
            and entry.mtime_ns == self._mtime_ns(entry)
        )

    def _share(self, of: int, to: int, name: str) -> bool:
        return self._shared is not None and self._shared.link(of, to, name)

    def _directory(
        self, parent: int, name: str, entry: Entry, selected: Selected, shown: str
    ) -> bool:
        """Whether it was made, and so is empty."""
        is_new = True
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            is_new = False
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                if not self._replaces:
                    raise InvalidArgument(f"cannot copy to non-directory: {shown}") from None
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, _BELOW, dir_fd=parent)
        try:
            self._metadata(fd, entry, selected)
        finally:
            os.close(fd)
        return is_new

    def _place(
        self,
        of: int,
        base: str,
        to: int,
        name: str,
        entry: Entry,
        selected: Selected,
        shown: str,
    ) -> None:
        if stat.S_ISREG(entry.mode):
            self._regular(of, base, to, name, entry, selected, shown)
            return
        clear(to, name, shown, replaces=self._replaces)
        if stat.S_ISLNK(entry.mode):
            os.symlink(entry.link, name, dir_fd=to)
        else:
            os.mknod(name, stat.S_IFMT(entry.mode) | 0o600, entry.rdev, dir_fd=to)
        os.chown(name, *self._owner_of(entry, selected), dir_fd=to, follow_symlinks=False)
        if not stat.S_ISLNK(entry.mode):
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=to)
            try:
                os.chmod(f"/proc/self/fd/{fd}", self._change(entry.mode))
            finally:
                os.close(fd)
        mtime_ns = self._mtime_ns(entry)
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=to, follow_symlinks=False)

    def _regular(
        self,
        of: int,
        base: str,
        to: int,
        name: str,
        entry: Entry,
        selected: Selected,
        shown: str,
    ) -> None:
        source = os.open(base, _FILE, dir_fd=of)
        try:
            if not stat.S_ISREG(os.fstat(source).st_mode):
                raise FailedPrecondition(f"{shown}: its source changed while it was copied")
            try:
                target = os.open(name, _NEW, 0o600, dir_fd=to)
            except FileExistsError:
                clear(to, name, shown, replaces=self._replaces)
                target = os.open(name, _NEW, 0o600, dir_fd=to)
            try:
                copy_content(source, target, entry.size, self._cancel)
                self._metadata(target, entry, selected)
                self._times(target, entry)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _link(self, first: int, base: str, parent: int, name: str, shown: str) -> None:
        own = os.stat(base, dir_fd=first, follow_symlinks=False)
        try:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            there = None
        if there is not None:
            if (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino):
                return
            clear(parent, name, shown, replaces=self._replaces)
        os.link(base, name, src_dir_fd=first, dst_dir_fd=parent, follow_symlinks=False)

    def _metadata(self, fd: int, entry: Entry, selected: Selected) -> None:
        """Owner before mode, because chown clears set-id bits; attributes last, for
        capabilities."""
        os.fchown(fd, *self._owner_of(entry, selected))
        os.fchmod(fd, self._change(entry.mode))
        for name, value in entry.xattrs:
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise

    def _owner_of(self, entry: Entry, selected: Selected) -> tuple[int, int]:
        if self._owner is not None:
            return self._owner
        return (entry.uid, entry.gid) if selected.keeps_owner else (0, 0)

    def _times(self, fd: int, entry: Entry) -> None:
        mtime_ns = self._mtime_ns(entry)
        os.utime(fd, ns=(mtime_ns, mtime_ns))

    def _mtime_ns(self, entry: Entry) -> int:
        return entry.mtime_ns if self._newest_ns is None else min(entry.mtime_ns, self._newest_ns)
