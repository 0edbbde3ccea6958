"""The tree of a step that is over: others stand on it while it moves into the layer store.

It is moved at any time, and deleted only when nobody stands on it: a mount keeps its
directories whatever they are called, but finds what is in them by name.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from estiba.kernel.blocking import start_clearing
from estiba.kernel.trees import discard_tree
from estiba.model.digest import Digest
from estiba.model.errors import Cancelled, NotFound

PLACE: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
Opener = Callable[[], int]
"""Opens a directory where it stands now."""


@dataclass(slots=True)
class _Tree:
    path: Path
    users: int = 0
    is_doomed: bool = False


class Frozen:
    """All may be called from any thread."""

    def __init__(self, key: str, path: Path) -> None:
        self.key = key
        self.committing = threading.Lock()
        self._lock = threading.Lock()
        self._tree = _Tree(path)
        self._diff_id: Digest | None = None

    @property
    def diff_id(self) -> Digest | None:
        """None until it is a layer of the store."""
        return self._diff_id

    @contextmanager
    def pinned(self) -> Iterator[Opener]:
        """Holds off the tree's deletion. Raises NotFound when it was discarded."""
        with self._lock:
            tree = self._tree
            if tree.is_doomed:
                raise NotFound(f"the step {self.key} was discarded")
            tree.users += 1
        try:
            yield partial(self._open, tree)
        finally:
            with self._lock:
                tree.users -= 1
                is_over = tree.is_doomed and not tree.users
            if is_over:
                start_clearing(discard_tree, tree.path)

    def _open(self, tree: _Tree) -> int:
        try:
            with self._lock:  # in the middle of a move there is no path
                return os.open(tree.path, PLACE)
        except FileNotFoundError:
            raise NotFound(f"layer {self._diff_id} is gone: build again") from None

    def check(self) -> None:
        """Raises Cancelled when it was discarded."""
        if self._tree.is_doomed:
            raise Cancelled(f"the step {self.key} was discarded")

    def settle(
        self, diff_id: Digest, layer: Path, trash: Path, move: Callable[[Path], bool]
    ) -> None:
        """It is the layer at `layer` from now on: `move` moved it there, or it tells by False
        that the layer is there already. Raises what `move` does; all is as before then.
        """
        with self._lock:
            self.check()
            if move(self._tree.path):
                self._tree.path = layer
            else:
                # Mounts that stand on it find their files by name still.
                self._doom(trash)
                self._tree = _Tree(layer)
            self._diff_id = diff_id

    def discard(self, trash: Path) -> None:
        """Nothing when it is a layer already."""
        with self._lock:
            if self._diff_id is None and not self._tree.is_doomed:
                self._doom(trash)

    def _doom(self, trash: Path) -> None:
        os.rename(self._tree.path, trash)
        self._tree.path, self._tree.is_doomed = trash, True
        if not self._tree.users:
            start_clearing(discard_tree, trash)


@contextmanager
def opened(openers: Sequence[Opener]) -> Iterator[list[int]]:
    """Each directory once: overlay refuses one that is there twice, and only the upper shows."""
    with ExitStack() as stack:
        found: dict[int, int] = {}
        for opener in openers:
            fd = opener()
            stack.callback(os.close, fd)
            found.setdefault(os.fstat(fd).st_ino, fd)
        yield list(found.values())


@contextmanager
def readable(places: Sequence[int]) -> Iterator[list[int]]:
    with ExitStack() as stack:
        fds = [
            os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place)
            for place in places
        ]
        for fd in fds:
            stack.callback(os.close, fd)
        yield fds
