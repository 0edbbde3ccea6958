"""Layers and snapshots on the kernel: what goes in comes out, bit for bit."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.trees import describe

from estiba.images.importing import IteratorSource
from estiba.kernel.mounts import is_mounted
from estiba.model.errors import DataLoss, NotFound
from estiba.storage.layers import LayerStore
from estiba.storage.snapshots import ADDED, DELETED, MODIFIED, SnapshotStore

pytestmark = pytest.mark.kernel


@pytest.fixture
def snapshots(tmp_path: Path, layers: LayerStore) -> Iterator[SnapshotStore]:
    store = SnapshotStore(tmp_path / "snapshots", layers)
    store.open()
    yield store
    for target in tmp_path.glob("mnt*"):
        store.unmount(target)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Everything that a file system can hold."""
    root = tmp_path / "tree"
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "dir").chmod(0o1777)
    (root / "file").write_bytes(b"content" * 1000)
    (root / "setuid").write_bytes(b"x")
    os.chown(root / "setuid", 1000, 2000)
    (root / "setuid").chmod(0o4755)
    os.link(root / "file", root / "dir" / "hardlink")
    (root / "symlink").symlink_to("dir/sub")
    (root / "dangling").symlink_to("/nowhere/at/all")
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.setxattr(root / "file", "user.note", b"kept")
    with (root / "sparse").open("wb") as file:
        file.seek(10 << 20)
        file.write(b"end")
    (root / ("long" * 60)).write_bytes(b"long name")
    os.utime(root / "file", ns=(0, 1_234_567_890_123_456_789))
    return root


def gnu_tar(tree: Path, *options: str) -> bytes:
    return subprocess.run(
        [
            "tar",
            "c",
            *(["--xattrs"] if "--format=gnu" not in options else []),
            *options,
            "-C",
            tree,
            ".",
        ],
        capture_output=True,
        check=True,
    ).stdout


@pytest.mark.parametrize(
    "options",
    [["--format=pax"], ["--format=gnu"], ["--format=pax", "-S"], ["--format=gnu", "-S"]],
    ids=["pax", "gnu", "pax-sparse", "gnu-sparse"],
)
def test_a_layer_holds_the_tree_and_gives_back_its_tar(
    layers: LayerStore, tree: Path, options: list[str]
) -> None:
    if "--format=gnu" in options:
        os.removexattr(tree / "file", "user.note")
    data = gnu_tar(tree, *options)
    info = layers.ingest(io.BytesIO(data))
    assert info.diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert describe(layers.diff_path(info.diff_id)) == describe(tree)
    assert b"".join(layers.tar(info.diff_id)) == data
    sparse = (layers.diff_path(info.diff_id) / "sparse").stat()
    if "-S" in options:
        assert sparse.st_blocks * 512 < sparse.st_size // 10


def test_a_changed_layer_is_noticed(layers: LayerStore, tree: Path) -> None:
    info = layers.ingest(io.BytesIO(gnu_tar(tree)))
    (layers.diff_path(info.diff_id) / "file").write_bytes(b"CONTENT" * 1000)
    with pytest.raises(DataLoss):
        list(layers.tar(info.diff_id))


def test_a_wrong_digest_is_refused(layers: LayerStore, tree: Path) -> None:
    with pytest.raises(DataLoss, match="mismatch"):
        layers.ingest(io.BytesIO(gnu_tar(tree)), expected="sha256:" + "0" * 64)
    assert list(layers.diff_ids()) == []


def test_a_snapshot_is_written_and_its_difference_is_a_layer(
    layers: LayerStore, snapshots: SnapshotStore, tree: Path, tmp_path: Path
) -> None:
    base = layers.ingest(io.BytesIO(gnu_tar(tree)))
    target = tmp_path / "mnt"
    target.mkdir()
    snapshots.prepare("one", [base.diff_id])
    snapshots.prepare("one", [base.diff_id])
    snapshots.mount("one", target)
    snapshots.mount("one", target)
    (target / "file").unlink()
    (target / "new").write_text("new")
    (target / "dir" / "sub").rmdir()
    (target / "setuid").chmod(0o700)
    assert snapshots.changes("one") == [
        ("/dir", MODIFIED),
        ("/dir/sub", DELETED),
        ("/file", DELETED),
        ("/new", ADDED),
        ("/setuid", MODIFIED),
    ]
    layer = layers.ingest(IteratorSource(snapshots.diff_tar("one")))
    expected = describe(target)
    snapshots.unmount(target)
    snapshots.unmount(target)
    assert not is_mounted(target)
    snapshots.prepare("two", [base.diff_id, layer.diff_id])
    snapshots.mount("two", target)
    assert describe(target) == expected


def test_a_replaced_directory_hides_what_was_below(
    layers: LayerStore, snapshots: SnapshotStore, tree: Path, tmp_path: Path
) -> None:
    (tree / "dir" / "old").write_text("old")
    base = layers.ingest(io.BytesIO(gnu_tar(tree)))
    target = tmp_path / "mnt"
    target.mkdir()
    snapshots.prepare("one", [base.diff_id])
    snapshots.mount("one", target)
    subprocess.run(["rm", "-r", target / "dir"], check=True)
    (target / "dir").mkdir()
    (target / "dir" / "fresh").write_text("fresh")
    layer = layers.ingest(IteratorSource(snapshots.diff_tar("one")))
    snapshots.unmount(target)
    snapshots.prepare("two", [base.diff_id, layer.diff_id])
    snapshots.mount("two", target)
    assert [entry.name for entry in (target / "dir").iterdir()] == ["fresh"]


def test_many_layers_mount(layers: LayerStore, snapshots: SnapshotStore, tmp_path: Path) -> None:
    stack = []
    for number in range(125):
        folder = tmp_path / f"l{number}"
        folder.mkdir()
        (folder / f"file{number}").write_text(str(number))
        stack.append(layers.ingest(io.BytesIO(gnu_tar(folder))).diff_id)
    target = tmp_path / "mnt"
    target.mkdir()
    snapshots.prepare("deep", stack)
    snapshots.mount("deep", target)
    assert len(list(target.iterdir())) == 125


def test_a_layer_that_an_image_has_twice(
    layers: LayerStore, snapshots: SnapshotStore, tmp_path: Path
) -> None:
    stack = []
    for content in ("below", "between"):
        folder = tmp_path / content
        folder.mkdir()
        (folder / "file").write_text(content)
        stack.append(layers.ingest(io.BytesIO(gnu_tar(folder))).diff_id)
    target = tmp_path / "mnt"
    target.mkdir()
    snapshots.prepare("twice", [stack[0], stack[1], stack[0]])
    snapshots.mount("twice", target)
    assert (target / "file").read_text() == "below"


def test_a_missing_layer_is_a_clear_error(snapshots: SnapshotStore) -> None:
    with pytest.raises(NotFound, match="missing"):
        snapshots.prepare("x", ["sha256:" + "1" * 64])


def test_a_snapshot_without_layers(snapshots: SnapshotStore, tmp_path: Path) -> None:
    target = tmp_path / "mnt"
    target.mkdir()
    snapshots.prepare("scratch", [])
    snapshots.mount("scratch", target)
    (target / "file").write_text("x")
    assert snapshots.usage("scratch") == 1
    snapshots.unmount(target)
    snapshots.remove("scratch")
    snapshots.remove("scratch")
    assert snapshots.list_keys() == []
