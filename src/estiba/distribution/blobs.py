"""A blob as a stream: length and digest checked, reconnecting where it broke.

Owns the conversation about ranges (RFC 9110, 14); which sites are asked is the opener's affair.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from estiba.distribution.answer import Answer
from estiba.distribution.cancel import CancelToken
from estiba.distribution.failures import Broken
from estiba.distribution.session import Session
from estiba.model.digest import Digest, hex_of
from estiba.model.errors import Cancelled, DataLoss, Unavailable

_SKIPPED_AT_ONCE = 256 << 10
_PROGRESS_BYTES = 64 << 10
"""A connection that brought this much was worth it, and is not held against the registry."""

_TRICKLE_BYTES = 16 << 10
"""Who sends less within the read time-out is taken for hanging."""

_GATHER_S = 0.05
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


class Hasher(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Patience:
    read_timeout_s: float
    attempts: int
    backoff_s: float


@dataclass(slots=True)
class Opened:
    """An answer whose body begins `skip` bytes before what was asked for."""

    answer: Answer
    skip: int
    session: Session


def open_range(
    session: Session, path: str, scopes: tuple[str, ...], *, what: str, offset: int, size: int
) -> Opened:
    """Asks for a blob of `size` bytes from `offset` on.

    Raises DataLoss when its size is another, Unavailable for a range that was not asked for.
    """
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    url = session.url(path)
    answer = session.call("GET", url, what=what, scopes=scopes, headers=headers, allow=(416,))
    try:
        if answer.header("Content-Encoding").lower() not in ("", "identity"):
            raise Unavailable(f"{what}: the registry sends it in another encoding than it holds")
        if answer.status == 206:
            _check_range(answer.header("Content-Range"), what, offset, size)
            return Opened(answer, 0, session)
        if answer.status == 416 or answer.length not in (None, size):
            has = "less" if answer.status == 416 else f"{answer.length} bytes"
            raise DataLoss(f"{what}: {size} bytes were announced, the registry has {has}")
        return Opened(answer, offset, session)
    except BaseException:
        answer.abandon()
        raise


def _check_range(text: str, what: str, offset: int, size: int) -> None:
    match = _CONTENT_RANGE.fullmatch(text)
    if match is not None and match[3] not in ("*", str(size)):
        raise DataLoss(f"{what}: {size} bytes were announced, the registry has {match[3]}")
    if match is None or int(match[1]) != offset or not offset <= int(match[2]) < size:
        raise Unavailable(
            f"{what}: the registry lies about ranges: {offset}-{size - 1} was asked for and "
            f"{text[:64]!r} came"
        )


class BlobStream:
    """Read by one thread; `close` may come from another, and ends a blocked `read`."""

    def __init__(
        self,
        reopen: Callable[[int], Opened],
        give_up: Callable[[Session], None],
        first: Opened | None,
        *,
        digest: Digest,
        size: int,
        offset: int,
        hasher: Hasher | None,
        patience: Patience,
        cancel: CancelToken,
        what: str,
    ) -> None:
        """`reopen` asks again, from an offset. `give_up` hears of a mirror that failed."""
        self._reopen = reopen
        self._give_up = give_up
        self._opened: Opened | None = first
        self._mirrors: list[Session] = []
        self._digest = digest
        self._size = size
        self._position = offset
        self._hasher = hasher
        if hasher is None and offset == 0:
            self._hasher = hashlib.new(digest.partition(":")[0])
        self._patience = patience
        self._left_s = patience.read_timeout_s
        self._since = 0
        self._failures = 0
        self._late: Broken | None = None
        self._mark = offset
        self._cancel = cancel
        self._what = what
        self._lock = threading.Lock()
        self._closed = False
        self._done = False

    @property
    def position(self) -> int:
        """Where in the blob the next byte is from."""
        return self._position

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; empty at the end, where length and digest have been checked.

        Nothing read may be trusted before. Raises DataLoss when they differ, Unavailable when
        the registry went away for good, Cancelled.
        """
        with self._lock:
            try:
                return self._read(size)
            except BaseException:
                self._abandon()
                raise

    def blame(self) -> bool:
        """What came is not the blob: mirrors that it came from are not asked again.

        False when the registry alone gave it, which a second attempt would not change.
        """
        for session in self._mirrors:
            self._give_up(session)
        return bool(self._mirrors)

    def close(self) -> None:
        """Twice is harmless."""
        self._closed = True
        opened = self._opened
        if opened is not None:
            opened.answer.shut()
        if self._lock.acquire(blocking=False):
            self._abandon()
            self._lock.release()

    def __enter__(self) -> BlobStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    # -- reading -----------------------------------------------------------------------------

    def _read(self, size: int) -> bytes:
        while not self._done:
            self._check_open()
            try:
                if self._position == self._size:
                    self._finish()
                    break
                piece = self._receive(min(size, self._size - self._position))
            except Broken as error:
                self._recover(error)
                continue
            if piece or not size:
                self._position += len(piece)
                if self._hasher is not None:
                    self._hasher.update(piece)
                return piece
        return b""

    def _receive(self, size: int) -> bytes:
        late, self._late = self._late, None
        if late is not None:
            raise late
        opened = self._opened
        if opened is None:
            opened = self._opened = self._reopen(self._position)
            self._left_s, self._since = self._patience.read_timeout_s, 0
            self._check_open()
        if opened.session.site.is_mirror and opened.session not in self._mirrors:
            self._mirrors.append(opened.session)
        while opened.skip:
            opened.skip -= len(self._timed(opened, min(opened.skip, _SKIPPED_AT_ONCE)))
        return self._gather(opened, size)

    def _gather(self, opened: Opened, size: int) -> bytes:
        """TLS brings 16 KiB at a time; callers do better with more, if it is there at once."""
        begun = time.monotonic()
        piece = self._timed(opened, size)
        pieces, got = [piece], len(piece)
        while got < size and time.monotonic() - begun < _GATHER_S:
            try:
                piece = self._timed(opened, size - got)
            except Broken as error:
                self._late = error
                break
            pieces.append(piece)
            got += len(piece)
        return b"".join(pieces) if len(pieces) > 1 else piece

    def _timed(self, opened: Opened, size: int) -> bytes:
        """Counts the time spent here only, since the reader may be slow as well."""
        begun = time.monotonic()
        opened.answer.arm(max(self._left_s, 0.001))
        piece = opened.answer.read_some(size)
        if not piece and size:
            raise Broken(f"{self._what}: the registry sends too few bytes", again=True)
        self._left_s -= time.monotonic() - begun
        self._since += len(piece)
        if self._since >= _TRICKLE_BYTES:
            self._left_s, self._since = self._patience.read_timeout_s, 0
        return piece

    def _recover(self, error: Broken) -> None:
        """Waits before the next attempt, or raises `error`."""
        self._check_open()
        failed = self._opened
        self._abandon()
        if failed is not None and failed.session.site.is_mirror:
            self._give_up(failed.session)
            return
        if self._position - self._mark >= _PROGRESS_BYTES:
            self._failures = 0
        self._mark = self._position
        self._failures += 1
        if self._failures >= self._patience.attempts:
            raise error
        self._cancel.wait(self._patience.backoff_s * 2 ** (self._failures - 1))

    def _finish(self) -> None:
        opened = self._opened
        if opened is not None and opened.answer.length is None and opened.answer.read_some(1):
            self.blame()
            raise DataLoss(f"{self._what}: the registry sends more than {self._size} bytes")
        if self._hasher is not None and self._hasher.hexdigest() != hex_of(self._digest):
            self.blame()
            raise DataLoss(
                f"{self._what}: the registry sent other bytes, whose digest is "
                f"{self._hasher.hexdigest()}"
            )
        self._done = True
        self._abandon()

    def _check_open(self) -> None:
        self._cancel.check()
        if self._closed:
            raise Cancelled(f"{self._what}: the transfer was cancelled")

    def _abandon(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.answer.abandon()
