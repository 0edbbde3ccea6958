"""Unpacking a tar stream into a directory, safely: nothing leaves the root, nothing is followed
out of it, and every limit is kept.

Every entry is made relative to a descriptor of its parent directory, which openat2 resolves
inside the root; so no symlink, in the archive or swapped in meanwhile, can lead elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections import OrderedDict
from dataclasses import dataclass

from estiba.kernel.confined import ensure_directory_in_root, open_in_root
from estiba.kernel.trees import remove_tree
from estiba.model.errors import InvalidArgument, LimitExceeded
from estiba.storage.tar import Entry, Kind, TarReader

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"
_META = b".wh..wh."
_MAX_CACHED_PARENTS = 64
_FORBIDDEN_XATTRS = (b"trusted.overlay.", b"user.overlay.", b"trusted.", b"system.")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UNUSUAL = re.compile(rb"\A/|//|(?:\A|/)\.{0,2}(?:/|\Z)")
"""Empty, `.` and `..` parts."""

_UNPLACEABLE = (errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP, errno.EXDEV,
                errno.ENAMETOOLONG, errno.ERANGE, errno.E2BIG, errno.EFBIG, errno.EINVAL,
                errno.EBUSY, errno.EROFS, errno.EPERM, errno.EACCES,
                errno.ENOENT, errno.EEXIST, errno.ESTALE)  # fmt: skip
"""The last three: a program in the container changes the place at the same time."""

_NO_SUPPORT = (errno.ENOTSUP, errno.EPERM, errno.ENODATA)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one archive may hold."""

    total_bytes: int = 256 << 30
    entries: int = 5_000_000
    depth: int = 256
    name_bytes: int = 4096


@dataclass(frozen=True, slots=True)
class UnpackOptions:
    """`layer`: whiteouts become overlay's form. Otherwise they are plain names.

    `owner` overrides uid and gid; `keep_owner` false makes everything root's.
    `no_overwrite_dir`: a directory never replaces a file nor a file a directory.
    `prefix` is the directory below the root in which everything goes.
    """

    layer: bool = False
    keep_owner: bool = True
    owner: tuple[int, int] | None = None
    no_overwrite_dir: bool = False
    prefix: bytes = b""
    limits: Limits = Limits()


class Unpacker:
    """Applies entries to the directory behind `root`; call `finish` at the end."""

    def __init__(self, root: int, options: UnpackOptions) -> None:
        self._root = root
        self._options = options
        self._parents: OrderedDict[bytes, int] = OrderedDict()
        self._directory_times: dict[bytes, int] = {}
        self._entries = 0
        self._is_stale = False
        self.bytes_written = 0

    def apply(self, entry: Entry, reader: TarReader) -> bytes | None:
        """Makes one entry; returns its clean path, None when nothing was made.

        Raises InvalidArgument for a hostile or damaged entry, LimitExceeded, OSError.
        """
        if self._is_stale:
            self.close()
            self._is_stale = False
        self._count_entries(1)
        path = self._place(entry.name)
        if path == self._options.prefix:
            if entry.kind == Kind.DIRECTORY:
                self._set_metadata(self._parent(path), entry)
                self._directory_times[path] = entry.mtime_ns
            return path
        parent, _, name = path.rpartition(b"/")
        try:
            if self._options.layer and name.startswith(WHITEOUT):
                self._whiteout(parent, name)
                return None
            self._make(path, parent, name, entry, reader)
        except OSError as error:
            if error.errno in _UNPLACEABLE:
                shown = entry.name[:200].decode(errors="replace")
                raise InvalidArgument(f"tar: cannot place {shown!r}: {error.strerror}") from error
            raise
        return path

    def finish(self) -> None:
        """Sets the times of directories, which their content had changed."""
        for path, mtime_ns in self._directory_times.items():
            with contextlib.suppress(OSError):
                fd = open_in_root(self._root, path or b"/", _DIRECTORY | os.O_NOFOLLOW)
                try:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
                finally:
                    os.close(fd)
        self.close()

    def close(self) -> None:
        for fd in self._parents.values():
            os.close(fd)
        self._parents.clear()

    # -- one entry -------------------------------------------------------------------------

    def _make(
        self, path: bytes, parent: bytes, name: bytes, entry: Entry, reader: TarReader
    ) -> None:
        directory = self._parent(parent)
        if entry.kind is Kind.FILE:
            self._make_file(directory, name, entry, reader)
            return
        if entry.kind is Kind.DIRECTORY:
            self._make_directory(directory, path, name, entry)
            return
        if entry.kind is Kind.HARDLINK:
            self._make_link(directory, name, entry)
            return
        self._clear(directory, name, entry)
        if entry.kind == Kind.SYMLINK:
            too_long = len(entry.link) > self._options.limits.name_bytes
            if not entry.link or too_long or b"\0" in entry.link:
                raise InvalidArgument("tar: a symlink without a valid target")
            os.symlink(entry.link, name, dir_fd=directory)
            self._own_link(directory, name, entry)
        else:
            self._make_node(directory, name, entry)

    def _make_file(self, directory: int, name: bytes, entry: Entry, reader: TarReader) -> None:
        try:
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=directory)
        except FileExistsError:
            self._clear(directory, name, entry)
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=directory)
        try:
            if entry.sparse is not None:
                self._write_sparse(fd, entry, reader)
            else:
                while piece := reader.data():
                    self._count(len(piece))
                    _write_all(fd, piece)
            self._set_metadata(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _write_sparse(self, fd: int, entry: Entry, reader: TarReader) -> None:
        """Holes count as what they are to a reader: a copy of the file may have none."""
        self._count(entry.size)
        for offset, length in entry.sparse or []:
            os.lseek(fd, offset, os.SEEK_SET)
            while length:
                piece = reader.data(min(length, 1 << 18))
                _write_all(fd, piece)
                length -= len(piece)
        os.ftruncate(fd, entry.size)

    def _make_directory(self, directory: int, path: bytes, name: bytes, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=directory)
        except FileExistsError:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                self._clear(directory, name, entry)
                os.mkdir(name, 0o700, dir_fd=directory)
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            self._set_metadata(fd, entry)
        finally:
            os.close(fd)
        self._directory_times[path] = entry.mtime_ns

    def _make_link(self, directory: int, name: bytes, entry: Entry) -> None:
        target = self._place(entry.link)
        parent, _, base = target.rpartition(b"/")
        if not base:
            raise InvalidArgument("tar: a hard link without a target")
        source = self._parent(parent, create=False)
        try:
            status = os.stat(base, dir_fd=source, follow_symlinks=False)
        except FileNotFoundError:
            shown = entry.link[:200].decode(errors="replace")
            raise InvalidArgument(f"tar: a hard link to {shown!r}, which is not there") from None
        if stat.S_ISDIR(status.st_mode):
            raise InvalidArgument("tar: a hard link to a directory")
        try:
            own = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if (own.st_dev, own.st_ino) == (status.st_dev, status.st_ino):
                return
        except FileNotFoundError:
            pass
        self._clear(directory, name, entry)
        os.link(base, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

    def _make_node(self, directory: int, name: bytes, entry: Entry) -> None:
        kinds = {Kind.CHAR: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}
        if entry.kind == Kind.CHAR and entry.major == entry.minor == 0:
            raise InvalidArgument("tar: a character device 0:0 is overlay's own mark")
        if entry.major >= 1 << 12 or entry.minor >= 1 << 20:
            raise InvalidArgument("tar: a device number out of range")
        device = os.makedev(entry.major, entry.minor)
        os.mknod(name, kinds[entry.kind] | 0o600, device, dir_fd=directory)
        self._own_link(directory, name, entry)
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.chmod(f"/proc/self/fd/{fd}", entry.mode)
        finally:
            os.close(fd)

    def _own_link(self, directory: int, name: bytes, entry: Entry) -> None:
        uid, gid = self._owner(entry)
        os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)

    def _set_metadata(self, fd: int, entry: Entry) -> None:
        """Owner before mode, because chown clears set-id bits; xattrs last, for capabilities."""
        uid, gid = self._owner(entry)
        os.fchown(fd, uid, gid)
        os.fchmod(fd, entry.mode)
        for key, value in entry.xattrs.items():
            if key.startswith(_FORBIDDEN_XATTRS):
                continue
            if not key or b"\0" in key:
                raise InvalidArgument("tar: an extended attribute without a valid name")
            try:
                os.setxattr(fd, key, value)
            except OSError as error:
                if error.errno not in _NO_SUPPORT:
                    raise

    def _owner(self, entry: Entry) -> tuple[int, int]:
        if self._options.owner is not None:
            return self._options.owner
        if not self._options.keep_owner:
            return 0, 0
        if entry.uid >= 2**32 - 1 or entry.gid >= 2**32 - 1:
            raise InvalidArgument("tar: an owner out of range")
        return entry.uid, entry.gid

    # -- what was there before -------------------------------------------------------------

    def _clear(self, directory: int, name: bytes, entry: Entry) -> None:
        """Takes away what stands at `name`, so that it can be made anew."""
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        is_directory = stat.S_ISDIR(status.st_mode)
        if self._options.no_overwrite_dir and is_directory != (entry.kind == Kind.DIRECTORY):
            shown = name.decode(errors="replace")
            raise InvalidArgument(
                f"cannot overwrite {'directory' if is_directory else 'non-directory'} "
                f"{shown!r} with {'non-directory' if is_directory else 'directory'}"
            )
        if is_directory:
            remove_tree(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
        self._is_stale = True

    def _whiteout(self, parent: bytes, name: bytes) -> None:
        """Overlay's marks: a character device 0:0 for a deletion, an xattr for an opaque
        directory (Documentation/filesystems/overlayfs.rst)."""
        if name == OPAQUE:
            os.setxattr(self._parent(parent), OPAQUE_XATTR, b"y")
            return
        if name.startswith(_META):
            return
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise InvalidArgument("tar: a whiteout of no valid name")
        directory = self._parent(parent)
        try:
            status = os.stat(hidden, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            if stat.S_ISDIR(status.st_mode):
                remove_tree(hidden, dir_fd=directory)
            else:
                os.unlink(hidden, dir_fd=directory)
            self._is_stale = True
        os.mknod(hidden, stat.S_IFCHR | 0o000, os.makedev(0, 0), dir_fd=directory)

    # -- parents ---------------------------------------------------------------------------

    def _place(self, name: bytes) -> bytes:
        path = clean_name(name, self._options.limits)
        prefix = self._options.prefix
        return b"/".join((prefix, path)) if prefix and path else prefix or path

    def _parent(self, path: bytes, *, create: bool = True) -> int:
        """A descriptor of the directory `path`, resolved in the root; made when it is missing.

        Valid for the entry at hand: what an entry replaces may have been on the way to others.
        """
        fd = self._parents.get(path)
        if fd is not None:
            self._parents.move_to_end(path)
            return fd
        try:
            fd = open_in_root(self._root, path or b"/", _DIRECTORY)
        except FileNotFoundError:
            if not create:
                raise InvalidArgument("tar: a hard link into a missing directory") from None
            self._count_entries(path.count(b"/") + 1)
            fd = ensure_directory_in_root(self._root, os.fsdecode(path))
        self._parents[path] = fd
        if len(self._parents) > _MAX_CACHED_PARENTS:
            os.close(self._parents.popitem(last=False)[1])
        return fd

    def _count_entries(self, number: int) -> None:
        """Directories that no entry names count too."""
        self._entries += number
        if self._entries > self._options.limits.entries:
            raise LimitExceeded(f"tar: more than {self._options.limits.entries} entries")

    def _count(self, size: int) -> None:
        self.bytes_written += size
        if self.bytes_written > self._options.limits.total_bytes:
            raise LimitExceeded(
                f"tar: unpacks to more than {self._options.limits.total_bytes} bytes"
            )


def clean_name(name: bytes, limits: Limits) -> bytes:
    """The path below the root; absolute names are taken as relative.

    Raises InvalidArgument for `..`, LimitExceeded for too long or deep a name.
    """
    if len(name) > limits.name_bytes:
        raise LimitExceeded(f"tar: a name of {len(name)} bytes")
    if b"\0" in name:
        raise InvalidArgument("tar: a name with a zero byte")
    plain = name.removeprefix(b"./").removesuffix(b"/")
    if not _UNUSUAL.search(plain) and plain.count(b"/") < limits.depth:
        return plain
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        shown = name[:200].decode(errors="replace")
        raise InvalidArgument(f"tar: the name {shown!r} leads out of the archive's root")
    if len(parts) > limits.depth:
        raise LimitExceeded(f"tar: a name {len(parts)} directories deep")
    return b"/".join(parts)


def _write_all(fd: int, data: memoryview) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])


def unpack(reader: TarReader, root: int, options: UnpackOptions) -> int:
    """Unpacks everything; returns the bytes written. Raises as `Unpacker.apply`."""
    unpacker = Unpacker(root, options)
    try:
        for entry in reader:
            unpacker.apply(entry, reader)
        unpacker.finish()
    finally:
        unpacker.close()
    return unpacker.bytes_written
