"""Snapshots: copies of a volume's data beside it, in the same file system and cipher.

    <inside>/_snapshots/<tag>/_data     the copy, which shares blocks where the file system can
    <inside>/_snapshots/<tag>/_made     when it was made, and the bytes in its files
    <inside>/_snapshots/.part-*         a copy under way; thrown away by the next one to come

A snapshot counts towards the volume's size and goes with the volume. One of a volume that is in
use is what a power cut would have left: each file is copied at a moment of its own.
"""

from __future__ import annotations

import contextlib
import errno
import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from estiba.kernel import failpoint
from estiba.kernel.files import exchange, write_atomic
from estiba.kernel.trees import opened_directory, remove_tree
from estiba.model.decoding import from_json
from estiba.model.errors import AlreadyExists, InvalidArgument, NotFound
from estiba.volumes.backing import DATA, SNAPSHOTS
from estiba.volumes.copying import copy_tree
from estiba.volumes.disk import sync
from estiba.volumes.locks import NamedLocks
from estiba.volumes.volumes import Volumes
from estiba.volumes.whole import alone, check_kept, held, kept

_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_MADE, _PART = "_made", ".part-"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    tag: str
    created_ns: int
    size: int
    """Bytes in its files when it was made."""


class Snapshots:
    """All of all volumes; two changes of one volume's snapshots come one after the other."""

    def __init__(self, volumes: Volumes, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._volumes = volumes
        self._now_ns = now_ns
        self._locks = NamedLocks()

    def create(self, name: str, tag: str = "") -> Snapshot:
        """Copies the volume's data; without a tag the moment is the tag.

        Raises NotFound, InvalidArgument, AlreadyExists, Conflict, OSError (a full disk).
        """
        created_ns = self._now_ns()
        tag = tag or _moment(created_ns)
        _check_tag(tag)
        check_kept(self._volumes, name)
        with self._locks.held(name), held(self._volumes, name):
            folder = self._folder(name)
            folder.mkdir(mode=0o700, exist_ok=True)
            if (folder / tag).exists():
                raise AlreadyExists(f"volume {name} has a snapshot {tag} already: remove it first")
            _sweep(folder)
            part = folder / f"{_PART}{secrets.token_hex(4)}"
            try:
                part.mkdir(mode=0o700)
                size = _copy(folder.parent / DATA, part / DATA)
                snapshot = Snapshot(tag=tag, created_ns=created_ns, size=size)
                write_atomic(part / _MADE, msgspec.json.encode(snapshot), durable=False)
                sync(part, self._volumes.local.directory(name))
                failpoint.hit("volumes.snapshot-copied")
                part.rename(folder / tag)
            except BaseException:
                with contextlib.suppress(OSError):
                    remove_tree(part)
                raise
        self._volumes.catalog.announce(name, "snapshot", {"tag": tag})
        return snapshot

    def list(self, name: str) -> list[Snapshot]:
        """From the oldest on. Raises NotFound, Conflict."""
        check_kept(self._volumes, name)
        with held(self._volumes, name):
            found = [_read(entry) for entry in _entries(self._folder(name))]
        return sorted(found, key=lambda one: (one.created_ns, one.tag))

    def rollback(self, name: str, tag: str) -> None:
        """Makes the volume's data what it was; what it is now goes. The snapshot stays.

        Raises NotFound, Conflict while anybody uses the volume, OSError.
        """
        check_kept(self._volumes, name)
        with self._locks.held(name):
            self._volumes.check_idle(name)
            part = f"{_PART}{secrets.token_hex(4)}"
            try:
                with held(self._volumes, name):
                    folder = self._folder(name)
                    source = self._found(name, tag) / DATA
                    _sweep(folder)
                    (folder / part).mkdir(mode=0o700)
                    _copy(source, folder / part / DATA)
                    sync(folder, self._volumes.local.directory(name))
                failpoint.hit("volumes.rollback-copied")
                with alone(self._volumes, name):
                    folder = self._folder(name)
                    exchange(folder / part / DATA, folder.parent / DATA)
                failpoint.hit("volumes.rolled-back")
            finally:
                with held(self._volumes, name), contextlib.suppress(OSError):
                    remove_tree(self._folder(name) / part)
        self._volumes.catalog.announce(name, "rollback", {"tag": tag})

    def remove(self, name: str, tag: str) -> None:
        """Raises NotFound, Conflict."""
        check_kept(self._volumes, name)
        with self._locks.held(name), held(self._volumes, name):
            aside = self._folder(name) / f"{_PART}{secrets.token_hex(4)}"
            self._found(name, tag).rename(aside)
            failpoint.hit("volumes.snapshot-aside")
            remove_tree(aside)
        self._volumes.catalog.announce(name, "snapshot-remove", {"tag": tag})

    def _folder(self, name: str) -> Path:
        return kept(self._volumes, name) / SNAPSHOTS

    def _found(self, name: str, tag: str) -> Path:
        path = self._folder(name) / tag
        if not _TAG.fullmatch(tag) or not (path / DATA).is_dir():
            raise NotFound(f"volume {name} has no snapshot {tag[:128]!r}")
        return path


def _moment(moment_ns: int) -> str:
    return f"{datetime.fromtimestamp(moment_ns / 1e9, UTC):%Y%m%dT%H%M%S.%f}"[:-3] + "Z"


def _check_tag(tag: str) -> None:
    if not _TAG.fullmatch(tag):
        raise InvalidArgument(
            f"invalid tag {tag[:64]!r}: letters, digits, _, . and -, 128 at most, and no . or - "
            "at the start"
        )


def _copy(source: Path, target: Path) -> int:
    """The bytes in the files."""
    total = 0

    def told(size: int) -> None:
        nonlocal total
        total += size

    target.mkdir(mode=0o700)
    with opened_directory(source) as origin, opened_directory(target) as copy:
        copy_tree(origin, copy, told)
    return total


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if _TAG.fullmatch(entry.name)]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return []
        raise


def _read(entry: Path) -> Snapshot:
    try:
        found = from_json((entry / _MADE).read_bytes(), Snapshot)
    except (OSError, msgspec.DecodeError):
        return Snapshot(tag=entry.name, created_ns=entry.stat().st_mtime_ns, size=0)
    return msgspec.structs.replace(found, tag=entry.name)


def _sweep(folder: Path) -> None:
    """What work that was cut off has left."""
    for entry in folder.glob(f"{_PART}*"):
        remove_tree(entry)
