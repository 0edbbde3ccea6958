"""Archives that ADD unpacks: recognised by content, unpacked inside the tree."""

from __future__ import annotations

import os

from estiba.distribution.cancel import CancelToken
from estiba.model.errors import EstibaError, InvalidArgument
from estiba.storage.compress import Decompressed
from estiba.storage.tar import TarReader
from estiba.storage.unpack import Limits, UnpackOptions, unpack

_CHUNK = 1 << 18


class FileSource:
    """`storage.tar.Source` of an open file, which stays its owner's."""

    def __init__(self, fd: int, cancel: CancelToken | None = None) -> None:
        self._fd = fd
        self._cancel = cancel

    def read(self, size: int = _CHUNK, /) -> bytes:
        if self._cancel is not None:
            self._cancel.check()
        return os.read(self._fd, size)


def is_archive(fd: int) -> bool:
    """Whether the file, decompressed, begins with a tar's header. Its position changes."""
    os.lseek(fd, 0, os.SEEK_SET)
    try:
        return next(iter(TarReader(Decompressed(FileSource(fd)))), None) is not None
    except (EstibaError, OSError):
        return False


def unpack_archive(
    fd: int,
    to: int,
    *,
    owner: tuple[int, int] | None,
    limits: Limits,
    cancel: CancelToken,
    shown: str,
) -> None:
    """Into the open directory `to`, which is the archive's root: no link of it leads higher, as
    in Docker. Without `owner` those of the archive.

    Raises InvalidArgument for a damaged or hostile archive, LimitExceeded, Cancelled, OSError.
    """
    os.lseek(fd, 0, os.SEEK_SET)
    options = UnpackOptions(owner=owner, limits=limits)
    try:
        unpack(TarReader(Decompressed(FileSource(fd, cancel))), to, options)
    except InvalidArgument as error:
        raise InvalidArgument(f"cannot unpack {shown}: {error}") from error
