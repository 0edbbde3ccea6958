"""A volume's own file system: ext4 in a sparse file, whose size is the volume's limit.

_disk.ext4     the file; takes room as data comes and gives it back when data goes
_disk          where it is mounted while the volume is in use
"""

from __future__ import annotations

import errno
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from estiba.kernel import failpoint
from estiba.kernel.files import sync_file_system
from estiba.kernel.inode_flags import write_in_place
from estiba.kernel.loop import attached, is_attached
from estiba.kernel.mounts import is_mounted, mount, unmount
from estiba.model.errors import DataLoss, FailedPrecondition, InvalidArgument
from estiba.volumes import programs

_FILE, POINT = "_disk.ext4", "_disk"
_PACKAGE = "e2fsprogs"
MIN_BYTES = 8 << 20
MAX_BYTES = 16 << 40
"""What ext4 takes with blocks of 4 KiB."""

_BLOCK_BYTES = 4096
_PATIENCE_S = 24 * 3600.0
"""A check that is cut off would begin anew at each use."""

_ROOM_BYTES = 1 << 20
_FREE_S, _FREE_LOOK_S = 5.0, 0.05

_SUPERBLOCK = struct.Struct("<4xI48xHH36xI236xI")
"""s_blocks_count at 4 and 336, s_magic at 56, s_state at 58, s_feature_incompat at 96
(Documentation/filesystems/ext4/super.rst)."""

_MAGIC = 0xEF53
_NO_FILE_SYSTEM = (errno.EINVAL, errno.EBADMSG, errno.EUCLEAN)
_VALID, _ERRORS, _NEEDS_RECOVERY = 0x1, 0x2, 0x4


def check_size(size: int) -> None:
    """Raises InvalidArgument."""
    if not MIN_BYTES <= size <= MAX_BYTES:
        raise InvalidArgument(
            f"option size: {size} bytes: a volume takes from {MIN_BYTES >> 20} MiB to "
            f"{MAX_BYTES >> 40} TiB"
        )


@dataclass(frozen=True, slots=True)
class Disk:
    """`encrypts` makes it a file system of which directories can be encrypted."""

    size: int
    encrypts: bool

    def make(self, directory: Path) -> None:
        """The file, whole or not at all; harmless twice. Raises FailedPrecondition, OSError."""
        path = directory / _FILE
        if path.exists():
            return
        program = programs.find("mkfs.ext4", _PACKAGE)
        part = directory / f"{_FILE}.part"
        # A mkfs that a killed engine has left goes on with the file that it has open.
        part.unlink(missing_ok=True)
        with part.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            write_in_place(file.fileno())
            file.truncate(self.size // _BLOCK_BYTES * _BLOCK_BYTES)
        failpoint.hit("volumes.disk-sized")
        options = ["-q", "-F", "-b", str(_BLOCK_BYTES), "-m", "0"]
        options += ["-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"]
        if self.encrypts:
            options += ["-O", "encrypt"]
        code, said = programs.run([program, *options, str(part)])
        if code != 0:
            part.unlink()
            raise FailedPrecondition(f"mkfs.ext4 {part}: {said or f'exit code {code}'}")
        failpoint.hit("volumes.disk-formatted")
        part.rename(path)

    def mount(self, directory: Path) -> Path:
        """Where it is mounted, grown if it is smaller than it may be; harmless twice.

        Raises DataLoss, FailedPrecondition, OSError.
        """
        point = directory / POINT
        if is_mounted(point):
            return point
        path = directory / _FILE
        with programs.exclusive(path) as holding:
            is_small = _superblock(path).blocks < self.size // _BLOCK_BYTES
            if is_small:
                _wait_until_free(path)
            if not is_attached(path):
                _mend(path, holding)
                if is_small:
                    _grow(path, self.size, holding)
            point.mkdir(mode=0o700, exist_ok=True)
            with attached(path, block_bytes=_BLOCK_BYTES) as device:
                failpoint.hit("volumes.disk-attached")
                try:
                    mount(str(device), point, "ext4", 0, "discard")
                except OSError as error:
                    if error.errno not in _NO_FILE_SYSTEM:
                        raise
                    raise _damaged(path, f"mount: {error.strerror}") from error
        failpoint.hit("volumes.disk-mounted")
        return point

    def unmount(self, directory: Path) -> None:
        """The loop device goes with the last mount. Harmless twice."""
        unmount(directory / POINT)


def sync(path: Path, directory: Path) -> None:
    """Flushes the file system at `path`, which may be that of the volume at `directory`.

    Raises OSError; ENOSPC when there is no room for it on the host: the file system in the file
    tells of a failing device then.
    """
    try:
        sync_file_system(path)
    except OSError as error:
        room = os.statvfs(directory)
        if error.errno == errno.EIO and room.f_bavail * room.f_frsize < _ROOM_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def point_of(directory: Path) -> Path:
    return directory / POINT


def size_now(directory: Path) -> int:
    """Bytes of the file: less than the limit for one that has not grown yet."""
    try:
        return (directory / _FILE).stat().st_size
    except FileNotFoundError:
        return 0


def taken(directory: Path) -> int:
    """Bytes that the file takes on the host."""
    try:
        return (directory / _FILE).stat().st_blocks * 512
    except FileNotFoundError:
        return 0


@dataclass(frozen=True, slots=True)
class _Superblock:
    blocks: int
    is_in_order: bool


def _superblock(path: Path) -> _Superblock:
    """Raises DataLoss for a file that is cut off or overwritten."""
    with path.open("rb") as file:
        file.seek(1024)
        data = file.read(_SUPERBLOCK.size)
    if len(data) < _SUPERBLOCK.size:
        raise _damaged(path, "its file is cut off")
    low, magic, state, features, high = _SUPERBLOCK.unpack(data)
    if magic != _MAGIC:
        raise _damaged(path, "its file does not begin as ext4 does")
    in_order = state & _VALID and not state & _ERRORS and not features & _NEEDS_RECOVERY
    return _Superblock(int(high) << 32 | int(low), bool(in_order))


def _wait_until_free(path: Path) -> None:
    """A process that has just begun in a mount namespace of its own has copies of all mounts."""
    end = time.monotonic() + _FREE_S
    while is_attached(path) and time.monotonic() < end:
        time.sleep(_FREE_LOOK_S)


def _mend(path: Path, holding: int) -> None:
    """After an unclean end; a file system that was left in order is not looked at any further."""
    if not _superblock(path).is_in_order:
        _check(path, holding)


def _grow(path: Path, size: int, holding: int) -> None:
    """To `size` bytes, while nobody uses it: Linux grows a file system that is mounted for
    CAP_SYS_RESOURCE alone. Cut off, it goes on with the next use.

    What nobody has looked through may not be resized.
    """
    os.truncate(path, size // _BLOCK_BYTES * _BLOCK_BYTES)
    failpoint.hit("volumes.disk-longer")
    _check(path, holding, "-f")
    program = programs.find("resize2fs", _PACKAGE)
    code, said = programs.run([program, str(path)], holding=holding, timeout_s=_PATIENCE_S)
    if code != 0:
        raise FailedPrecondition(f"resize2fs {path}: {said or f'exit code {code}'}")


def _check(path: Path, holding: int, *options: str) -> None:
    """Raises DataLoss for what needs a person."""
    program = programs.find("e2fsck", _PACKAGE)
    argv = [program, "-p", *options, str(path)]
    code, said = programs.run(argv, holding=holding, timeout_s=_PATIENCE_S)
    if code & ~0x3:
        raise _damaged(path, said or f"e2fsck: exit code {code}")


def _damaged(path: Path, how: str) -> DataLoss:
    return DataLoss(
        f"the volume's file system is damaged ({how}): save a copy of {path}, then mend it with "
        f"`e2fsck {path}`"
    )
