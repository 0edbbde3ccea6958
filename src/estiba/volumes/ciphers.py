"""Encryption of a volume's files: fscrypt of the kernel, or gocryptfs where there is none.

    _tree      the files; with fscrypt an encrypted directory
    _salt      with fscrypt: what makes the volume's key its own
    _cipher    with gocryptfs: the encrypted files
    _plain     with gocryptfs: where their plain form is mounted while in use

`base` is the directory that holds these. All calls are harmless twice, but for `open` with a
wrong key, which raises FailedPrecondition and has touched nothing.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from estiba.kernel import failpoint, fscrypt
from estiba.kernel.files import write_atomic
from estiba.kernel.mounts import is_mounted, unmount
from estiba.model.errors import DataLoss, FailedPrecondition
from estiba.volumes import programs
from estiba.volumes.keys import derive

_log = logging.getLogger(__name__)
TREE = "_tree"
CIPHER_TREE = "_cipher"
_SALT, PLAIN = "_salt", "_plain"
_CONFIG = "gocryptfs.conf"
_OF_INIT = (f"{_CONFIG}.tmp", "gocryptfs.diriv")
_SALT_BYTES = 32
_WRONG_PASSWORD = 12
_BUSY_LOOKS = 40
_BUSY_LOOK_S = 0.05
_WRONG = "the key is not the one that the volume was made with: give the right key, nothing changed"


class Cipher(Protocol):
    """One way to encrypt."""

    name: str

    def make(self, base: Path, key: bytes) -> None:
        """What it needs once."""

    def open(self, base: Path, key: bytes) -> Path:
        """The directory with the plain files."""

    def close(self, base: Path) -> None:
        """Takes the plain form away, and the key out of the kernel."""

    def tree(self, base: Path) -> Path:
        """What `open` returns."""


class Fscrypt:
    name = "fscrypt"

    def tree(self, base: Path) -> Path:
        return base / TREE

    def make(self, base: Path, key: bytes) -> None:
        tree = base / TREE
        tree.mkdir(mode=0o701, exist_ok=True)
        with _opened(tree) as place:
            if fscrypt.policy_of(place) is not None:
                return
            if not (base / _SALT).exists():
                write_atomic(base / _SALT, secrets.token_bytes(_SALT_BYTES))
            failpoint.hit("volumes.salted")
            fscrypt.set_policy(place, fscrypt.identifier_of(self._key(base, key)))

    def open(self, base: Path, key: bytes) -> Path:
        with _opened(base) as place, _opened(base / TREE) as tree:
            own = self._key(base, key)
            if fscrypt.identifier_of(own) != fscrypt.policy_of(tree):
                raise FailedPrecondition(_WRONG)
            fscrypt.add_key(place, own)
            failpoint.hit("volumes.key-added")
        return base / TREE

    def close(self, base: Path) -> None:
        """Who still has files open keeps the key: it is asked again for a moment."""
        try:
            with _opened(base / TREE) as tree:
                identifier = fscrypt.policy_of(tree)
        except FileNotFoundError:
            return
        if not identifier:
            return
        with _opened(base) as place:
            for _ in range(_BUSY_LOOKS):
                if not fscrypt.remove_key(place, identifier) & fscrypt.Removal.FILES_BUSY:
                    return
                time.sleep(_BUSY_LOOK_S)
        _log.warning(
            "%s: somebody still has files of this encrypted volume open, which stay readable to "
            "him; its key goes when they are closed and the volume is used once more",
            base,
        )

    @staticmethod
    def _key(base: Path, key: bytes) -> bytes:
        return derive(key, (base / _SALT).read_bytes(), "estiba volume fscrypt")


class Gocryptfs:
    """A process in user space serves the plain form. It is nobody's child, outlives the engine,
    and ends when the kernel drops the mount: the mount is all that there is to keep track of."""

    name = "gocryptfs"

    def tree(self, base: Path) -> Path:
        return base / PLAIN

    def make(self, base: Path, key: bytes) -> None:
        cipher = base / CIPHER_TREE
        if (cipher / _CONFIG).exists():
            return
        cipher.mkdir(mode=0o700, exist_ok=True)
        with programs.exclusive(cipher) as holding:
            if (cipher / _CONFIG).exists():
                return
            found = {entry.name for entry in cipher.iterdir()}
            if lost := found - set(_OF_INIT):
                raise DataLoss(
                    f"{cipher / _CONFIG} is gone, without which nobody reads the {len(lost)} "
                    "entries beside it: bring it back"
                )
            for name in found:  # of an init that was cut off
                (cipher / name).unlink()
            self._run("-init", "-scryptn", "10", str(cipher), key=key, holding=holding)

    def open(self, base: Path, key: bytes) -> Path:
        plain = base / PLAIN
        if is_mounted(plain):
            if answers(plain):
                return plain
            unmount(plain)
        plain.mkdir(mode=0o700, exist_ok=True)
        options = ["-allow_other", "-suid", "-dev", "-exec", "-acl"]
        self._run(*options, str(base / CIPHER_TREE), str(plain), key=key)
        return plain

    def close(self, base: Path) -> None:
        unmount(base / PLAIN)

    @staticmethod
    def _run(*arguments: str, key: bytes, holding: int | None = None) -> None:
        # The password is random, so gocryptfs need not make guessing slow.
        password = derive(key, b"", "estiba volume gocryptfs").hex().encode()
        program = programs.find("gocryptfs", "gocryptfs")
        code, said = programs.run(
            [program, "-q", *arguments], secret=password, holding=holding, timeout_s=60.0
        )
        if code == _WRONG_PASSWORD:
            raise FailedPrecondition(_WRONG)
        if code != 0:
            raise FailedPrecondition(f"gocryptfs: {said or f'exit code {code}'}")


CIPHERS: dict[str, Cipher] = {"fscrypt": Fscrypt(), "gocryptfs": Gocryptfs()}


def choose(base: Path, asked: str) -> Cipher:
    """The cipher that the volume at `base` has; for a new one the one `asked` for, or else the
    better one that there is here.

    Raises FailedPrecondition when there is none.
    """
    if (base / CIPHER_TREE).exists():
        return CIPHERS["gocryptfs"]
    with _opened(base) as place:
        can = fscrypt.is_supported(place)
    if asked == "fscrypt" and not can:
        raise FailedPrecondition(
            f"the file system of {base} does not offer fscrypt (ext4 does, made or tuned with "
            "-O encrypt): give size= for a file system of the volume's own, or "
            "encrypted=gocryptfs"
        )
    if asked:
        return CIPHERS[asked]
    if not can and not programs.is_installed("gocryptfs"):
        raise FailedPrecondition(
            "nothing here encrypts a volume without a size: give size=, or install gocryptfs "
            "(Debian: apt-get install gocryptfs)"
        )
    return CIPHERS["fscrypt" if can else "gocryptfs"]


def answers(path: Path) -> bool:
    """False for a mount whose process is gone (ENOTCONN); attributes would be a cache's."""
    try:
        os.statvfs(path)
    except OSError:
        return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = fscrypt.open_place(path)
    try:
        yield fd
    finally:
        os.close(fd)
