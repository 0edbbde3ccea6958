"""fscrypt: encryption of directory trees by the file system (Documentation/filesystems/fscrypt).

Policies of version 2 only (Linux 5.4): the kernel names a key by a hash of it, so a wrong key is
told from the right one before anything is read or written. A key belongs to a file system, not
to a process; files are readable while it is there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import os
import struct
from enum import IntFlag

_SET_POLICY = 0x800C6613
_GET_POLICY_EX = 0xC0096616
_ADD_KEY = 0xC0506617
_REMOVE_KEY = 0xC0406618
_KEY_STATUS = 0xC080661A

_VERSION = 2
_AES_256_XTS = 1
_AES_256_CTS = 4
_PAD_32 = 0x03
_BY_IDENTIFIER = 2
_POLICY = struct.Struct("=BBBBB3x16s")
_SPEC = struct.Struct("=II32s")
_ADD = struct.Struct("=40sII32x")
_NO_POLICY = (errno.ENODATA,)
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EINVAL)

KEY_BYTES = 64


class Removal(IntFlag):
    """FSCRYPT_KEY_REMOVAL_STATUS_FLAG_*."""

    FILES_BUSY = 0x1
    OTHER_USERS = 0x2


def is_supported(directory: int) -> bool:
    """Whether the file system of the open `directory` encrypts, this one or its siblings."""
    try:
        policy_of(directory)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def policy_of(directory: int) -> bytes | None:
    """The identifier of the key that the directory is encrypted with; None if it is not.

    Raises OSError: EOPNOTSUPP or ENOTTY where the file system does not encrypt.
    """
    argument = bytearray(struct.pack("=Q24x", _POLICY.size))
    try:
        fcntl.ioctl(directory, _GET_POLICY_EX, argument)
    except OSError as error:
        if error.errno in _NO_POLICY:
            return None
        raise
    version, *_, identifier = _POLICY.unpack(argument[8:32])
    return bytes(identifier) if version == _VERSION else b""


def set_policy(directory: int, identifier: bytes) -> None:
    """Encrypts the empty `directory` from now on; the same policy again is no error.

    Root need not have given the key before. Raises OSError: ENOTEMPTY, EEXIST for another policy.
    """
    policy = _POLICY.pack(_VERSION, _AES_256_XTS, _AES_256_CTS, _PAD_32, 0, identifier)
    fcntl.ioctl(directory, _SET_POLICY, policy)


def identifier_of(key: bytes) -> bytes:
    """What the kernel calls a key: HKDF-SHA512 of it (fscrypt.rst, "Key hierarchy")."""
    seed = hmac.new(bytes(64), key, hashlib.sha512).digest()
    return hmac.new(seed, b"fscrypt\0\x01\x01", hashlib.sha512).digest()[:16]


def add_key(place: int, key: bytes) -> bytes:
    """Gives the file system that holds `place` a key; returns its identifier.

    Raises OSError.
    """
    head = _ADD.pack(_SPEC.pack(_BY_IDENTIFIER, 0, b""), len(key), 0)
    argument = bytearray(head + key)
    try:
        fcntl.ioctl(place, _ADD_KEY, argument)
        return bytes(argument[8:24])
    finally:
        argument[:] = bytes(len(argument))


def remove_key(place: int, identifier: bytes) -> Removal:
    """Takes a key away and shuts its files; a key that is not there is no error.

    FILES_BUSY: somebody has files open, which stay readable; ask again once they are closed.
    Raises OSError.
    """
    argument = bytearray(_SPEC.pack(_BY_IDENTIFIER, 0, identifier) + bytes(24))
    try:
        fcntl.ioctl(place, _REMOVE_KEY, argument)
    except OSError as error:
        if error.errno == errno.ENOKEY:
            return Removal(0)
        raise
    return Removal(struct.unpack_from("=I", argument, 40)[0])


def has_key(place: int, identifier: bytes) -> bool:
    """Whether the key, or what of it open files still hold, is in the kernel. Raises OSError."""
    argument = bytearray(_SPEC.pack(_BY_IDENTIFIER, 0, identifier) + bytes(88))
    fcntl.ioctl(place, _KEY_STATUS, argument)
    absent = 1
    return bool(struct.unpack_from("=I", argument, 64)[0] != absent)


def open_place(path: str | os.PathLike[str]) -> int:
    """A descriptor for the calls above; the caller closes it."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
