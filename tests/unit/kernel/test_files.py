"""Files that are changed in place."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from estiba.kernel.files import edit_in_place


def test_the_file_stays_the_same_one(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"one\ntwo\n")
    before = path.stat()
    with path.open("rb") as reader:
        edit_in_place(path, lambda old: old + b"three\n", limit=100)
        assert reader.read() == b"one\ntwo\nthree\n"
        edit_in_place(path, lambda _old: b"x", limit=100)
        assert path.read_bytes() == b"x"
    assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)


def test_what_is_no_plain_file_of_that_size(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "link").symlink_to(victim)
    os.mkfifo(tmp_path / "fifo")
    for name, limit, number in (
        ("link", 100, errno.ELOOP),
        ("fifo", 100, errno.EINVAL),
        ("victim", 7, errno.EFBIG),
        ("gone", 100, errno.ENOENT),
    ):
        with pytest.raises(OSError) as told:
            edit_in_place(tmp_path / name, lambda _old: b"", limit=limit)
        assert told.value.errno == number, name
    assert victim.read_bytes() == b"precious"
