"""Copies an image's directory into a new volume, with owners, modes, times and attributes.

The copy is made aside and moved in when it is whole:

    _staging   a copy under way; a crash leaves it to be thrown away
    _ready     a whole copy that is being moved into _data, entry by entry; always finished
    _data      what containers see; entries appear in it whole

No rename leads from one mount to another: where `_data` is a mount of its own, the first two lie
hidden in it meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from estiba.kernel import failpoint
from estiba.kernel.trees import opened_directory, remove_tree
from estiba.volumes.backing import DATA
from estiba.volumes.copying import copy_attributes, copy_tree

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STAGING, _READY = "_staging", "_ready"
_HIDDEN = ".estiba-populate"


def populate(volume: Path, source: int) -> bool:
    """Fills the empty volume at `volume` from the open directory `source`.

    Returns whether it did: a volume that holds something stays as it is. Sockets are left out.
    Raises OSError.
    """
    with opened_directory(volume) as around, opened_directory(volume / DATA) as data:
        return _fill(data, around, source)


def populate_mounted(data: int, source: int) -> bool:
    """The same for a volume whose open directory is a mount; a read-only one stays as it is.

    Its other users see what goes on there, and may do to it what they like: by descriptors,
    without following a symlink, nothing of that leads out of the volume.
    """
    try:
        return _fill(data, data, source, prefix=_HIDDEN)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return False


def _fill(data: int, around: int, source: int, *, prefix: str = "") -> bool:
    """`around` is the open directory of the copy while it is not whole."""
    staging, ready = prefix + _STAGING, prefix + _READY
    if ready in os.listdir(around):
        _move_in(around, ready, data)
        return True
    if set(os.listdir(data)) - {staging}:
        return False
    remove_tree(staging, dir_fd=around)
    os.mkdir(staging, 0o700, dir_fd=around)
    target = os.open(staging, _DIRECTORY, dir_fd=around)
    try:
        copy_tree(source, target)
    except OSError:
        # On a disk that is full, what was copied gives back its room.
        with contextlib.suppress(OSError):
            remove_tree(staging, dir_fd=around)
        raise
    finally:
        os.close(target)
    failpoint.hit("volumes.copied")
    os.rename(staging, ready, src_dir_fd=around, dst_dir_fd=around)
    _move_in(around, ready, data)
    return True


def _move_in(around: int, name: str, data: int) -> None:
    ready = os.open(name, _DIRECTORY, dir_fd=around)
    try:
        for entry in os.listdir(ready):
            os.rename(entry, entry, src_dir_fd=ready, dst_dir_fd=data)
            failpoint.hit("volumes.moved-one")
        copy_attributes(ready, data, os.fstat(ready))
    finally:
        os.close(ready)
    os.rmdir(name, dir_fd=around)
