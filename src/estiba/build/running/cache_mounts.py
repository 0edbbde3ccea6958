"""Directories of `RUN --mount=type=cache`, which outlive the steps and belong to no layer.

    mounts/<sha256 of the id>/about.json     id, created, last used
    mounts/<sha256 of the id>/<n>/_data      the directory itself; n > 0 while `private` is crowded
    trash/                                   removed ones

Knows nothing of how they are mounted. Belongs to the event loop; what touches files runs apart.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from estiba.build.effects import settled
from estiba.build.ports import CacheMount, Waiting
from estiba.build.running.queues import Gate
from estiba.kernel.blocking import run_blocking, start_clearing
from estiba.kernel.confined import open_in_root, opened_root
from estiba.kernel.files import write_atomic
from estiba.kernel.trees import discard_tree, remove_tree, tree_size
from estiba.model.decoding import from_json
from estiba.model.errors import Conflict, InvalidArgument, NotFound
from estiba.volumes.populate import populate

SHARED, PRIVATE, LOCKED = "shared", "private", "locked"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_MAX_ID_BYTES = 4096


class _About(msgspec.Struct, frozen=True):
    id: str
    created_ns: int
    last_used_ns: int


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """One cache as `builder prune` sees it."""

    id: str
    path: Path
    in_use: bool
    created_ns: int
    last_used_ns: int


Listing = list[CacheInfo]


@dataclass(slots=True)
class _Uses:
    """Of one cache: who is at its directories, by number."""

    gates: dict[int, Gate] = field(default_factory=dict)
    making: asyncio.Lock = field(default_factory=asyncio.Lock)
    claims: int = 0


class CacheMounts:
    """Made once an engine; `open` first."""

    def __init__(self, root: Path) -> None:
        self._root = root / "mounts"
        self._trash = root / "trash"
        self._uses: dict[str, _Uses] = {}

    def open(self) -> None:
        """Makes the directories, and has what a crash left half removed thrown away. Blocks."""
        for path in (self._root, self._trash):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in self._trash.iterdir():
            start_clearing(discard_tree, leftover)

    @asynccontextmanager
    async def held(
        self, mounts: Sequence[CacheMount], waiting: Waiting = nullcontext
    ) -> AsyncIterator[dict[str, Path]]:
        """The directories by id, made and, for new ones, filled; waits while others hold them.

        Raises InvalidArgument for an id, a mode of sharing or a seed that is none.
        """
        strictest: dict[str, CacheMount] = {}
        for mount in mounts:
            _check(mount)
            known = strictest.get(mount.id)
            if known is None or _ORDER.index(mount.sharing) > _ORDER.index(known.sharing):
                strictest[mount.id] = mount
        async with AsyncExitStack() as stack:
            held = {}
            # Always in the same order, so that two steps never wait for each other.
            for cache_id in sorted(strictest):
                mount = strictest[cache_id]
                held[cache_id] = await stack.enter_async_context(self._held_one(mount, waiting))
            yield held

    @asynccontextmanager
    async def _held_one(self, mount: CacheMount, waiting: Waiting) -> AsyncIterator[Path]:
        key = _key(mount.id)
        uses = self._uses.setdefault(key, _Uses())
        uses.claims += 1
        try:
            number = 0 if mount.sharing != PRIVATE else _first_idle(uses)
            gate = uses.gates.setdefault(number, Gate())
            async with gate.entered(alone=mount.sharing != SHARED, waiting=waiting):
                async with uses.making:
                    path = await settled(self._ensure, mount, number)
                try:
                    yield path
                finally:
                    await settled(self._touch, mount.id)
        finally:
            uses.claims -= 1
            if not uses.claims:
                del self._uses[key]

    def _ensure(self, mount: CacheMount, number: int) -> Path:
        base = self._root / _key(mount.id)
        base.mkdir(mode=0o700, exist_ok=True)
        self._touch(mount.id)
        slot, new = base / str(number), base / "new"
        if not slot.exists():
            remove_tree(new)  # a crash cut the copying of its seed off
            data = new / "_data"
            data.mkdir(mode=0o700, parents=True)
            os.chown(data, mount.uid, mount.gid)
            data.chmod(mount.mode)
            if mount.seed is not None:
                _fill(new, *mount.seed)
            new.rename(slot)
        return slot / "_data"

    def _touch(self, cache_id: str) -> None:
        path = self._root / _key(cache_id) / "about.json"
        now = time.time_ns()
        known = _read(path)
        about = _About(cache_id, known.created_ns if known else now, now)
        write_atomic(path, msgspec.json.encode(about), durable=False)

    # -- for prune -------------------------------------------------------------------------

    async def list(self) -> Listing:
        """All caches, by id."""
        found = await run_blocking(self._list)
        return [
            CacheInfo(about.id, path, path.name in self._uses, about.created_ns, about.last_used_ns)
            for path, about in found
        ]

    def _list(self) -> Sequence[tuple[Path, _About]]:
        found = [(path, _read(path / "about.json")) for path in self._root.iterdir()]
        return sorted(
            ((path, about) for path, about in found if about is not None),
            key=lambda entry: entry[1].id,
        )

    async def size_bytes(self, cache_id: str) -> int:
        """Counts; 0 when it is gone."""
        return await run_blocking(tree_size, self._root / _key(cache_id))

    async def remove(self, cache_id: str) -> None:
        """Raises Conflict while a step uses it, NotFound when there is none."""
        key = _key(cache_id)
        if key in self._uses:
            raise Conflict(f"cache mount {cache_id!r} is in use by a build: try again after it")
        aside = self._trash / f"{key}-{secrets.token_hex(4)}"
        try:
            # At once, on the loop: no step can come in between.
            os.rename(self._root / key, aside)
        except FileNotFoundError:
            raise NotFound(f"no such cache mount: {cache_id}") from None
        await run_blocking(remove_tree, aside)


_ORDER = (SHARED, PRIVATE, LOCKED)


def _check(mount: CacheMount) -> None:
    if mount.sharing not in _ORDER:
        raise InvalidArgument(
            f"invalid sharing {mount.sharing[:32]!r} of a cache mount: use {', '.join(_ORDER)}"
        )
    encoded = mount.id.encode(errors="replace")
    if not encoded or len(encoded) > _MAX_ID_BYTES or encoded.decode() != mount.id:
        raise InvalidArgument(f"invalid id of a cache mount: {mount.id[:64]!r}")


def _key(cache_id: str) -> str:
    return hashlib.sha256(cache_id.encode(errors="replace")).hexdigest()


def _first_idle(uses: _Uses) -> int:
    number = 0
    while number in uses.gates and not uses.gates[number].is_idle:
        number += 1
    return number


def _read(path: Path) -> _About | None:
    try:
        return from_json(path.read_bytes(), _About)
    except (OSError, msgspec.DecodeError):
        return None


def _fill(slot: Path, root: Path, source: str) -> None:
    with opened_root(root) as tree:
        try:
            fd = open_in_root(tree, source, _DIRECTORY)
        except OSError as error:
            raise InvalidArgument(
                f"cannot fill a cache mount from {source!r}: {error.strerror}: give a directory"
            ) from error
        try:
            populate(slot, fd)
        except RecursionError as error:
            raise InvalidArgument(
                f"cannot fill a cache mount from {source!r}: its directories are too deep"
            ) from error
        finally:
            os.close(fd)
