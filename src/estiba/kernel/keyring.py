"""Keys of the kernel's keyrings (keyrings(7)), read by name."""

from __future__ import annotations

import ctypes
import errno
import platform
import threading

from estiba.kernel.libc import syscall

_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "s390x": 280, "ppc64le": 271}
_SEARCH = 10
_READ = 11
_LINK = 8
_THREAD, _SESSION, _USER, _USER_SESSION = -1, -3, -4, -5
_MISSING = (errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED)


def read_user_key(name: str, *, limit_bytes: int = 1 << 15) -> bytes:
    """The payload of the key of type "user" named `name`, in the session's or user's keyring.

    Raises OSError: ENOKEY when there is none, EKEYEXPIRED, EKEYREVOKED, EACCES.
    """
    outcome: list[bytes | OSError] = []

    def work() -> None:
        try:
            outcome.append(_read(name, limit_bytes))
        except OSError as error:
            outcome.append(error)

    # Only who possesses a key may read it. A service's session keyring does not link to the
    # user's: the thread's own does, and ends with the thread.
    thread = threading.Thread(target=work, name="keyring")
    thread.start()
    thread.join()
    (result,) = outcome
    if isinstance(result, OSError):
        raise result
    return result


def _read(name: str, limit_bytes: int) -> bytes:
    _keyctl(_LINK, _USER, _THREAD)
    failure = OSError(errno.ENOKEY, f"no key {name!r}")
    for ring in (_SESSION, _USER, _USER_SESSION):
        try:
            key = _keyctl(_SEARCH, ring, b"user", name.encode(), 0)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            failure = error
            continue
        buffer = ctypes.create_string_buffer(limit_bytes)
        size = _keyctl(_READ, key, buffer, limit_bytes)
        try:
            if size > limit_bytes:
                raise OSError(errno.E2BIG, f"key {name!r} holds more than {limit_bytes} bytes")
            return buffer.raw[:size]
        finally:
            ctypes.memset(buffer, 0, limit_bytes)
    raise failure


def _keyctl(operation: int, *arguments: object) -> int:
    number = _KEYCTL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"keyrings on {platform.machine()} are not known here")
    return syscall(number, operation, *arguments, what="keyctl")
