"""Keys of encrypted volumes: where they come from. No key is kept in a record or in a message.

A key is material, not a passphrase: nothing stretches it, so it must be long and random. What a
cipher works with is derived from it and from a salt of the volume's own (HKDF, RFC 5869), so that
two volumes with one key share nothing in the kernel.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from estiba.kernel.keyring import read_user_key
from estiba.model.errors import FailedPrecondition, InvalidArgument

_KEYRING = "keyring:"
_LINK = "_key"
_MIN_BYTES = 32
_MAX_BYTES = 1 << 15
_ADVICE = "make one with `head -c 64 /dev/urandom`"


class KeySource(Protocol):
    """Where one volume's key is. No method puts the key into a message."""

    def make(self, directory: Path) -> None:
        """Sees to it that there is a key for the volume at `directory`; harmless twice."""

    def read(self, directory: Path) -> bytes:
        """Raises FailedPrecondition saying what is wrong with the key."""

    def place(self, directory: Path) -> str:
        """Where it is, for people."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The file of an administrator."""

    path: Path

    def make(self, directory: Path) -> None:
        self.read(directory)

    def read(self, directory: Path) -> bytes:
        return _read_file(self.path)

    def place(self, directory: Path) -> str:
        return f"file {self.path}"


@dataclass(frozen=True, slots=True)
class KeyringKey:
    """A key of type "user" in root's keyring: `keyctl padd user NAME @u < key`."""

    name: str

    def make(self, directory: Path) -> None:
        self.read(directory)

    def read(self, directory: Path) -> bytes:
        try:
            key = read_user_key(self.name)
        except OSError as error:
            raise FailedPrecondition(
                f"the key {self.name!r} is not in the kernel's keyring of root: {error.strerror}: "
                f"add it with `keyctl padd user {self.name} @u < FILE`"
            ) from error
        return _checked(key, f"the key {self.name!r} of the keyring")

    def place(self, directory: Path) -> str:
        return f"{_KEYRING}{self.name}"


@dataclass(frozen=True, slots=True)
class GeneratedKey:
    """A key file of the engine's own below `root`; the volume's directory has a link to it.

    The file's name is random, so that a volume that is renamed or made anew keeps or gets its own.
    """

    root: Path

    def make(self, directory: Path) -> None:
        link = directory / _LINK
        if link.is_symlink():
            return
        self.root.mkdir(mode=0o700, exist_ok=True)
        path = self.root / f"{directory.name.lstrip('.')}-{secrets.token_hex(4)}.key"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb", buffering=0) as file:
                file.write(secrets.token_bytes(64))
                os.fsync(fd)
            link.symlink_to(path)
        except BaseException:
            path.unlink()
            raise

    def read(self, directory: Path) -> bytes:
        return _read_file(self._path(directory))

    def place(self, directory: Path) -> str:
        return f"file {self._path(directory)}"

    def _path(self, directory: Path) -> Path:
        try:
            return Path(os.readlink(directory / _LINK))
        except OSError as error:
            raise FailedPrecondition(
                f"the volume has lost the link to its key ({directory / _LINK}): make it anew, "
                f"or name the key with key-file="
            ) from error


def discard_key(directory: Path) -> None:
    """Deletes the generated key of a volume that is being deleted, if it has one."""
    with contextlib.suppress(OSError):
        os.unlink(os.readlink(directory / _LINK))


def parse_key(file: str, key: str, generated: Path) -> KeySource:
    """From the options `key-file` and `key`; without both the engine makes a key. Raises
    InvalidArgument."""
    if file and key:
        raise InvalidArgument("give either key-file or key, not both")
    if file:
        if not file.startswith("/"):
            raise InvalidArgument(f"key-file={file}: must be an absolute path")
        return KeyFile(Path(file))
    if key:
        name = key.removeprefix(_KEYRING)
        if name == key or not name:
            raise InvalidArgument(
                "option key: expected keyring:NAME: the key itself would be readable in "
                "the volume's options"
            )
        return KeyringKey(name)
    return GeneratedKey(generated)


def derive(key: bytes, salt: bytes, purpose: str) -> bytes:
    """64 bytes by HKDF with SHA-512; one round gives just that many."""
    seed = hmac.new(salt, key, hashlib.sha512).digest()
    return hmac.new(seed, purpose.encode() + b"\x01", hashlib.sha512).digest()


def _read_file(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FailedPrecondition(f"cannot read the key file {path}: {error.strerror}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise FailedPrecondition(f"the key file {path} is no file")
        if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o077:
            raise FailedPrecondition(
                f"others than root may read the key file {path}: "
                f"chown root {path} and chmod 600 {path}"
            )
        key = os.read(fd, _MAX_BYTES + 1)
    finally:
        os.close(fd)
    return _checked(key, f"the key file {path}")


def _checked(key: bytes, what: str) -> bytes:
    if len(key) < _MIN_BYTES:
        raise FailedPrecondition(
            f"{what} holds {len(key)} bytes, fewer than {_MIN_BYTES}: {_ADVICE}"
        )
    if len(key) > _MAX_BYTES:
        raise FailedPrecondition(f"{what} holds more than {_MAX_BYTES} bytes: {_ADVICE}")
    return key
