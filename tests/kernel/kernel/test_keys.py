"""Keyrings and fscrypt."""

from __future__ import annotations

import errno
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.disks import ext4

from estiba.kernel import fscrypt
from estiba.kernel.keyring import read_user_key

pytestmark = pytest.mark.kernel


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """The root of a file system that encrypts."""
    with ext4(tmp_path, 16 << 20, "-O", "encrypt", "-b", "4096") as root:
        yield root


def test_files_are_readable_while_the_key_is_there(place: Path) -> None:
    key = secrets.token_bytes(fscrypt.KEY_BYTES)
    identifier = fscrypt.identifier_of(key)
    tree = place / "tree"
    tree.mkdir()
    root, fd = fscrypt.open_place(place), fscrypt.open_place(tree)
    assert fscrypt.is_supported(root)
    assert fscrypt.policy_of(fd) is None
    fscrypt.set_policy(fd, identifier)
    fscrypt.set_policy(fd, identifier)
    with pytest.raises(FileExistsError):
        fscrypt.set_policy(fd, bytes(16))
    assert fscrypt.policy_of(fd) == identifier
    assert not fscrypt.has_key(root, identifier)
    assert fscrypt.add_key(root, key) == identifier, "the kernel names it as we do"
    assert fscrypt.has_key(root, identifier)
    (tree / "a name").write_text("plain")
    assert fscrypt.remove_key(root, identifier) == fscrypt.Removal.FILES_BUSY
    os.close(fd)
    assert fscrypt.remove_key(root, identifier) == 0
    assert fscrypt.remove_key(root, identifier) == 0
    assert not fscrypt.has_key(root, identifier)
    (locked,) = tree.iterdir()
    assert locked.name != "a name"
    with pytest.raises(OSError, match="Required key") as raised:
        locked.read_text()
    assert raised.value.errno == errno.ENOKEY
    fscrypt.add_key(root, key)
    assert (tree / "a name").read_text() == "plain"
    fscrypt.remove_key(root, identifier)
    os.close(root)


def test_most_file_systems_do_not_encrypt(tmp_path: Path) -> None:
    fd = fscrypt.open_place("/dev/shm")
    assert not fscrypt.is_supported(fd)
    os.close(fd)


def test_a_key_of_the_keyring() -> None:
    name = f"estiba-test-{secrets.token_hex(4)}"
    with pytest.raises(OSError, match="Required key") as raised:
        read_user_key(name)
    assert raised.value.errno == errno.ENOKEY
    number = subprocess.run(
        ["keyctl", "padd", "user", name, "@u"], input=b"secret\0bytes", capture_output=True,
        check=True,
    ).stdout.strip()  # fmt: skip
    try:
        assert read_user_key(name) == b"secret\0bytes"
        with pytest.raises(OSError, match="more than 4 bytes"):
            read_user_key(name, limit_bytes=4)
    finally:
        subprocess.run(["keyctl", "unlink", number, "@u"], check=True)
