"""Snapshots: a container's own layer over the layers of its image, as an overlay mount.

active/<key>/upper   what the container changed
active/<key>/work    overlay's scratch
active/<key>/lower   DiffIDs of the layers below, topmost first
active/<key>/mounted DiffIDs of layers of images that are mounted in the container
trash/               removed ones, deleted in the background
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from estiba.kernel.blocking import start_clearing
from estiba.kernel.confined import exists_in_root, opened_root
from estiba.kernel.files import write_atomic
from estiba.kernel.inode_flags import spread_subdirectories
from estiba.kernel.mounts import is_mounted, mount_overlay, unmount
from estiba.kernel.trees import discard_tree, opened_directory, tree_size, walk
from estiba.model.digest import Digest
from estiba.model.errors import NotFound
from estiba.storage.layers import LayerStore
from estiba.storage.pack import pack_tree

MODIFIED, ADDED, DELETED = 0, 1, 2
DRIVER = "overlay2"


@dataclass(slots=True)
class SnapshotStore:
    """All methods block, and all but the reading ones may be done twice without harm."""

    root: Path
    layers: LayerStore

    def open(self) -> None:
        """Makes the directories and deletes what was removed before a crash."""
        for name in ("active", "trash", "empty", "views"):
            (self.root / name).mkdir(mode=0o711, parents=True, exist_ok=True)
        spread_subdirectories(self.root / "active")
        for leftover in (self.root / "views").iterdir():
            unmount(leftover)
            leftover.rmdir()
        for leftover in (self.root / "trash").iterdir():
            start_clearing(discard_tree, leftover)

    def list_keys(self) -> list[str]:
        return [entry.name for entry in (self.root / "active").iterdir()]

    def prepare(self, key: str, layers: list[Digest], mounted: Sequence[Digest] = ()) -> None:
        """A writable layer over `layers`, bottom first; `mounted` are kept as long as it.

        Raises NotFound without a layer.
        """
        path = self.root / "active" / key
        if (path / "lower").exists():
            return
        lower = topmost_first(layers)
        top = self.layers.diff_path(lower[0]) if lower else self.root / "empty"
        try:
            status = os.stat(top)
        except FileNotFoundError:
            raise NotFound(f"layer {lower[0]} of the image is missing: load it again") from None
        path.mkdir(mode=0o710, exist_ok=True)
        upper = path / "upper"
        upper.mkdir(exist_ok=True)
        os.chown(upper, status.st_uid, status.st_gid)
        upper.chmod(stat.S_IMODE(status.st_mode) if lower else 0o755)
        (path / "work").mkdir(mode=0o700, exist_ok=True)
        if mounted:
            content = json.dumps(list(mounted)).encode()
            write_atomic(path / "mounted", content, mode=0o644, durable=False)
        # Whole or not at all: whoever collects layers reads it meanwhile, or after a crash.
        write_atomic(path / "lower", json.dumps(lower).encode(), mode=0o644, durable=False)

    def mount(self, key: str, target: Path) -> None:
        """Mounts the snapshot at the existing directory `target`."""
        if is_mounted(target):
            return
        path = self.root / "active" / key
        mount_overlay(target, self._lower(key), upper=path / "upper", work=path / "work")

    def mount_layers(self, layers: list[Digest], target: Path) -> None:
        """Mounts an image's layers, bottom first, read-only at the existing `target`.

        Raises NotFound without a layer.
        """
        if is_mounted(target):
            return
        found = [self.layers.diff_path(layer) for layer in topmost_first(layers)]
        for path, layer in zip(found, topmost_first(layers), strict=True):
            if not path.is_dir():
                raise NotFound(f"layer {layer} of the image is missing: load it again")
        # An overlay without an upper directory takes two lower ones at least.
        empty = self.root / "empty"
        mount_overlay(target, [*found, empty] if found else [empty, self.root / "views"])

    def unmount(self, target: Path) -> None:
        unmount(target)

    def remove(self, key: str) -> None:
        """Removes it at once; the files go in the background."""
        gone = self.root / "trash" / f"{key[:64]}-{secrets.token_hex(4)}"
        try:
            os.rename(self.root / "active" / key, gone)
        except FileNotFoundError:
            return
        start_clearing(discard_tree, gone)

    def usage(self, key: str) -> int:
        """Bytes of the files that the container wrote."""
        return tree_size(self.root / "active" / key / "upper")

    def diff_tar(self, key: str, *, without: Collection[str] = ()) -> Iterator[bytes]:
        """The container's layer as a tar with OCI whiteouts (image-spec layer.md)."""
        fd = os.open(self.root / "active" / key / "upper", os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield from pack_tree(fd, overlay_upper=True, without=without)
        finally:
            os.close(fd)

    def changes(self, key: str) -> list[tuple[str, int]]:
        """Paths with MODIFIED, ADDED or DELETED, in the order of their names."""
        upper = self.root / "active" / key / "upper"
        layers = list(reversed(json.loads((upper.parent / "lower").read_text())))
        with (
            self.view(layers) as below,
            opened_root(below) as root,
            opened_directory(upper) as written,
        ):
            return sorted(_changes(written, root))

    @contextmanager
    def view(self, layers: list[Digest]) -> Iterator[Path]:
        """The layers without a container's, read-only, for as long as the context lasts."""
        found = [self.layers.diff_path(layer) for layer in topmost_first(layers)]
        if len(found) <= 1:
            yield found[0] if found else self.root / "empty"
            return
        target = self.root / "views" / secrets.token_hex(8)
        target.mkdir()
        try:
            mount_overlay(target, found)
            yield target
        finally:
            unmount(target)
            target.rmdir()

    @contextmanager
    def mounted_aside(self, key: str, *, writable: bool = False) -> Iterator[Path]:
        """The snapshot at a place of its own, for as long as the context lasts.

        Only one mount may write to an upper directory (overlayfs.rst, "Sharing and copying
        layers"): with `writable` the caller holds off the container's start.
        """
        target = self.root / "views" / secrets.token_hex(8)
        path = self.root / "active" / key
        upper, lower = path / "upper", self._lower(key)
        target.mkdir()
        try:
            if writable:
                mount_overlay(target, lower, upper=upper, work=path / "work")
            else:
                mount_overlay(target, [upper, *lower])
            yield target
        finally:
            unmount(target)
            target.rmdir()

    def used_layers(self) -> set[Digest]:
        """DiffIDs of the layers that some snapshot stands on, or has mounted."""
        used: set[Digest] = set()
        for key in self.list_keys():
            for name in ("lower", "mounted"):
                with contextlib.suppress(FileNotFoundError):
                    used.update(json.loads((self.root / "active" / key / name).read_text()))
        return used

    def _lower(self, key: str) -> list[Path]:
        try:
            text = (self.root / "active" / key / "lower").read_text()
        except FileNotFoundError:
            raise NotFound(f"no such snapshot: {key}") from None
        return [self.layers.diff_path(layer) for layer in json.loads(text)] or [self.root / "empty"]


def _changes(upper: int, below: int) -> Iterator[tuple[str, int]]:
    for found in walk(upper, "/"):
        status = found.status
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            yield found.path, DELETED
            continue
        yield found.path, MODIFIED if exists_in_root(below, found.path) else ADDED


def topmost_first(layers: list[Digest]) -> list[Digest]:
    """Overlay's order. Of a layer that an image has twice only the upper one shows, and overlay
    refuses a directory that is there twice.
    """
    return list(dict.fromkeys(reversed(layers)))
