"""Packing a tree that changes meanwhile, as that of a running container does."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from estiba.storage.pack import pack_tree

_TIMES = 3000


@contextlib.contextmanager
def changing(change: Callable[[], None]) -> Iterator[None]:
    """Does it again and again."""
    over = Event()

    def run() -> None:
        while not over.is_set():
            change()

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def pack_often(folder: Path) -> set[str]:
    """The names in all archives, each of which can be read to its end."""
    names: set[str] = set()
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(_TIMES):
            with tarfile.open(fileobj=io.BytesIO(b"".join(pack_tree(fd)))) as archive:
                names.update(archive.getnames())
    finally:
        os.close(fd)
    return names


def test_attributes_that_come_and_go(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    def change() -> None:
        os.setxattr(file, "user.one", b"1")
        os.removexattr(file, "user.one")

    try:
        change()
    except OSError:
        pytest.skip("no extended attributes here")
    with changing(change):
        assert pack_often(tmp_path) == {"file"}


def test_a_link_that_becomes_a_file_and_a_socket(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("here")
    (tmp_path / "two").write_bytes(b"2")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "three"))

        def change() -> None:
            for first, second in (("one", "two"), ("two", "three"), ("one", "three")):
                os.rename(tmp_path / first, tmp_path / "four")
                os.rename(tmp_path / second, tmp_path / first)
                os.rename(tmp_path / "four", tmp_path / second)

        with changing(change):
            assert pack_often(tmp_path) >= {"one", "two"}
