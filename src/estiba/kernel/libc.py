"""The C library by ctypes: one loader, one way to turn errno into OSError."""

from __future__ import annotations

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    """Returns `result`, or raises OSError with the errno of the call that failed.

    `what` names the call and its object, for example ``mount overlay on /x``.
    """
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def syscall(number: int, *args: object, what: str = "") -> int:
    """Raw system call; integers and ctypes objects as arguments.

    Raises OSError with the errno.
    """
    converted = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result: int = libc.syscall(ctypes.c_long(number), *converted)
    return check(result, what or f"syscall {number}")


libc.syscall.restype = ctypes.c_long
