"""Loop devices (loop(4)): a file as a block device, which goes with its last user.

A device is configured in one step with autoclear (LOOP_CONFIGURE, Linux 5.8), so whoever is
killed in between leaves none: the kernel detaches it when its last opener and mount are gone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONTROL = "/dev/loop-control"
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LOOP_GET_STATUS64 = 0x4C05
_LO_FLAGS_AUTOCLEAR = 4
_LO_FLAGS_DIRECT_IO = 16
_INFO = struct.Struct("=QQQQQIIII64s64s32sQQ")
"""struct loop_info64 of <linux/loop.h>."""

_CONFIG_HEAD = struct.Struct("=II")
_RESERVED = bytes(64)
_MAJOR = 7
_ATTEMPTS = 64


@contextmanager
def attached(image: Path, *, block_bytes: int = 0) -> Iterator[Path]:
    """The device over `image`: the one that has it already, or a new one.

    Two devices over one file would be two file systems that write to the same blocks, so a file
    that is attached anywhere is never attached again. Leave the block once the device is mounted.
    Raises OSError.
    """
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        fd, path = _existing(os.fstat(backing)) or _configured(backing, image, block_bytes)
    finally:
        os.close(backing)
    try:
        yield path
    finally:
        os.close(fd)


def is_attached(image: Path) -> bool:
    """Whether some loop device has the file."""
    try:
        status = image.stat()
    except FileNotFoundError:
        return False
    found = _existing(status)
    if found is None:
        return False
    os.close(found[0])
    return True


def _existing(status: os.stat_result) -> tuple[int, Path] | None:
    """Opened first and asked then: as long as it is open it keeps its file."""
    for entry in sorted(Path("/sys/block").glob("loop*")):
        if not (entry / "loop").exists():
            continue
        with contextlib.suppress(OSError):
            # For reading: udev looks at a device anew when a writer closes it.
            fd = os.open(_node(entry.name), os.O_RDONLY | os.O_CLOEXEC)
            with contextlib.suppress(OSError):
                info = _INFO.unpack(fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_INFO.size)))
                if (info[0], info[1]) == (status.st_dev, status.st_ino):
                    return fd, _node(entry.name)
            os.close(fd)
    return None


def _configured(backing: int, image: Path, block_bytes: int) -> tuple[int, Path]:
    name = os.fsencode(image)[-63:]
    # Direct: what the file system on the device caches, the one below it need not keep again.
    # Where that cannot be, the kernel leaves it out.
    flags = _LO_FLAGS_AUTOCLEAR | _LO_FLAGS_DIRECT_IO
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0)
    config = _CONFIG_HEAD.pack(backing, block_bytes) + info + _RESERVED
    for _ in range(_ATTEMPTS):
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        finally:
            os.close(control)
        path = _node(f"loop{number}")
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _LOOP_CONFIGURE, config)
        except OSError as error:
            os.close(fd)
            if error.errno == errno.EBUSY:  # another was quicker
                continue
            raise OSError(
                error.errno, f"attach {image} to {path}: {os.strerror(error.errno or 0)}"
            ) from error
        return fd, path
    raise OSError(errno.EBUSY, f"attach {image}: no loop device is free")


def _node(name: str) -> Path:
    """The device's file; a host without devtmpfs may lack it."""
    path = Path("/dev") / name
    if not path.exists():
        minor = int((Path("/sys/block") / name / "dev").read_text().partition(":")[2])
        with contextlib.suppress(FileExistsError):
            os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(_MAJOR, minor))
    return path
