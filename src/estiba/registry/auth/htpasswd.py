"""Names and passwords: the file that `htpasswd -B` writes, bcrypt alone.

Read again when it changes. A verified password is remembered for a while under a keyed hash, for
bcrypt takes as long as ten thousand requests; it is never kept itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import re
import time
from collections import OrderedDict
from pathlib import Path

from estiba.kernel.blocking import run_blocking
from estiba.model.errors import InvalidArgument, Unavailable

_log = logging.getLogger(__name__)

_REMEMBERED = 1000
_REMEMBERED_S = 300.0
_AT_ONCE = 2
_WAITING = 64
_MAX_PASSWORD_BYTES = 72
"""bcrypt looks at no more, and `htpasswd -B` cuts there."""
_HASH = re.compile(rb"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
_NOBODY = b"$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
"""Verified in place of the hash of a name that does not exist, so that it takes as long."""


class Htpasswd:
    """`verify` is called in the event loop."""

    def __init__(self, path: Path) -> None:
        """Raises InvalidArgument when the file cannot be used."""
        self._path = path
        self._key = os.urandom(32)
        self._verified: OrderedDict[bytes, float] = OrderedDict()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._stamp = self._look()
        self._hashes = read_htpasswd(path)

    async def verify(self, user: str, password: str) -> bool:
        """Whether the file has this pair. Raises Unavailable when too many ask at once."""
        self._refresh()
        stored = self._hashes.get(user)
        secret = password.encode("utf-8", "surrogatepass")[:_MAX_PASSWORD_BYTES]
        mark = hmac.digest(self._key, (stored or b"") + b"\0" + secret, hashlib.sha256)
        until = self._verified.get(mark)
        if stored is not None and until is not None and until > time.monotonic():
            return True
        if self._waiting >= _WAITING:
            raise Unavailable("too many passwords to check at once: try again in a moment")
        self._waiting += 1
        try:
            async with self._slots:
                matched = await run_blocking(_check, secret, stored or self._cost_of_nobody())
        finally:
            self._waiting -= 1
        if stored is None or not matched:
            return False
        self._verified[mark] = time.monotonic() + _REMEMBERED_S
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return True

    def fingerprint(self, user: str) -> bytes | None:
        """Of the user's entry, to bind a refresh token to it; None when there is no such user."""
        self._refresh()
        stored = self._hashes.get(user)
        return None if stored is None else hashlib.sha256(stored).digest()[:12]

    def _cost_of_nobody(self) -> bytes:
        """A hash that takes as long to check as those of the file."""
        some = next(iter(self._hashes.values()), _NOBODY)
        return some[:7] + _NOBODY[7:]

    def _refresh(self) -> None:
        stamp = self._look()
        if stamp == self._stamp:
            return
        try:
            self._hashes = read_htpasswd(self._path)
            self._stamp = stamp
        except InvalidArgument as error:
            # Half written, perhaps: the old content stays until it can be read.
            _log.error("%s", error)

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def read_htpasswd(path: Path) -> dict[str, bytes]:
    """Hashes by name. Raises InvalidArgument naming the line that cannot be used."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror}") from error
    hashes: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        name, _, stored = line.partition(b":")
        if not name or not _HASH.fullmatch(stored):
            raise InvalidArgument(
                f"{path}, line {number}: expected NAME:HASH with a hash of bcrypt; add people "
                "with `htpasswd -B`"
            )
        hashes[name.decode("utf-8", "replace")] = stored
    return hashes


def _check(secret: bytes, stored: bytes) -> bool:
    import bcrypt

    if b"\0" in secret:
        return False
    return bcrypt.checkpw(secret, stored)
