"""The bytes of one file into another, by the kernel: shared where it can, holes kept."""

from __future__ import annotations

import errno
import os

from estiba.distribution.cancel import CancelToken

_SMALL_BYTES = 64 << 10
_STEP_BYTES = 64 << 20
_UNSHARED = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


def copy_content(source: int, target: int, size: int, cancel: CancelToken) -> None:
    """At most `size` bytes, as many as the file has. Raises OSError, Cancelled."""
    if size <= _SMALL_BYTES:
        if size:
            os.sendfile(target, source, None, size)
        return
    if os.fstat(source).st_blocks * 512 < size:
        _copy_sparse(source, target, size, cancel)
    else:
        _copy_range(source, target, 0, size, cancel)


def _copy_sparse(source: int, target: int, size: int, cancel: CancelToken) -> None:
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        if start >= size:
            break
        _copy_range(source, target, start, end - start, cancel)
        position = end
    os.ftruncate(target, min(size, os.fstat(source).st_size))


def _copy_range(source: int, target: int, start: int, size: int, cancel: CancelToken) -> None:
    os.lseek(source, start, os.SEEK_SET)
    os.lseek(target, start, os.SEEK_SET)
    is_shared = True
    while size > 0:
        cancel.check()
        step = min(size, _STEP_BYTES)
        if is_shared:
            try:
                done = os.copy_file_range(source, target, step)
            except OSError as error:
                if error.errno not in _UNSHARED:
                    raise
                is_shared = False
                continue
        else:
            done = os.sendfile(target, source, None, step)
        if not done:
            return
        size -= done
