"""Copies an image's directory into a new volume, with owners, modes, times and attributes.

The copy is made aside and moved in when it is whole:

    _staging   a copy under way; a crash leaves it to be thrown away
    _ready     a whole copy that is being moved into _data, entry by entry; always finished
    _data      what containers see; entries appear in it whole

No rename leads from one mount to another: where `_data` is a mount of its own, the first two lie
hidden in it meanwhile.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from estiba.kernel import failpoint
from estiba.kernel.trees import discard_tree, remove_tree
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
    return _fill(volume / DATA, volume / _STAGING, volume / _READY, source)


def populate_mounted(data: Path, source: int) -> bool:
    """The same for a volume whose `data` is a mount; a read-only one stays as it is."""
    try:
        staging, ready = data / f"{_HIDDEN}{_STAGING}", data / f"{_HIDDEN}{_READY}"
        return _fill(data, staging, ready, source)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return False


def _fill(data: Path, staging: Path, ready: Path, source: int) -> bool:
    if ready.exists():
        _move_in(ready, data)
        return True
    if any(entry != staging for entry in data.iterdir()):
        return False
    remove_tree(staging)
    staging.mkdir(mode=0o700)
    target = os.open(staging, _DIRECTORY)
    try:
        copy_tree(source, target)
    except OSError:
        # On a disk that is full, what was copied gives back its room.
        discard_tree(staging)
        raise
    finally:
        os.close(target)
    failpoint.hit("volumes.copied")
    staging.rename(ready)
    _move_in(ready, data)
    return True


def _move_in(ready: Path, data: Path) -> None:
    for entry in ready.iterdir():
        entry.rename(data / entry.name)
        failpoint.hit("volumes.moved-one")
    source, target = os.open(ready, _DIRECTORY), os.open(data, _DIRECTORY)
    try:
        copy_attributes(source, target, os.fstat(source))
    finally:
        os.close(source)
        os.close(target)
    ready.rmdir()
