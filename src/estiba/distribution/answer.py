"""The answer to a request: its head, and a body that is read within limits and time."""

from __future__ import annotations

import email.utils
import http.client
import time
from collections.abc import Callable
from types import TracebackType

from estiba.distribution.cancel import CancelToken
from estiba.distribution.failures import Broken, broken
from estiba.distribution.urls import Url
from estiba.distribution.wire import Wire
from estiba.model.errors import LimitExceeded

_DRAINED_BYTES = 16 << 10


class Answer:
    """Read by one thread; `shut` may come from any."""

    def __init__(
        self,
        response: http.client.HTTPResponse,
        method: str,
        url: Url,
        cancel: CancelToken,
        release: Callable[[bool], None],
        wire: Wire,
    ) -> None:
        self.status = response.status
        self.method = method
        self.url = url
        self._response = response
        self._cancel = cancel
        self._release: Callable[[bool], None] | None = release
        self._wire = wire

    def header(self, name: str) -> str:
        """Empty when there is none. Whatever the registry wrote."""
        return str(self._response.headers.get(name, "")).strip()

    def header_values(self, name: str) -> list[str]:
        return [str(value).strip() for value in self._response.headers.get_all(name, [])]

    @property
    def length(self) -> int | None:
        """Content-Length, where it is a number."""
        text = self.header("Content-Length")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None

    @property
    def retry_after_s(self) -> float:
        """RFC 9110, 10.2.3; 0 when the answer does not say."""
        text = self.header("Retry-After")
        if text.isascii() and text.isdecimal():
            return float(text[:9])
        try:
            return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
        except (ValueError, OverflowError):
            return 0.0

    def arm(self, seconds: float) -> None:
        """What is read must have come in `seconds` from now."""
        self._wire.arm(seconds)

    def read_some(self, size: int) -> bytes:
        """What has come, up to `size` bytes; empty at the end. Raises Broken."""
        try:
            piece = self._response.read1(size)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.abandon()
            self._cancel.check()
            raise broken(self.method, self.url, error) from error
        if not piece and size and self._response.length:
            self.abandon()
            self._cancel.check()
            raise broken(self.method, self.url, http.client.IncompleteRead(b""))
        return piece

    def read(self, limit: int) -> bytes:
        """The whole body, and the connection is free again. Raises LimitExceeded, Broken."""
        pieces, size = [], 0
        while piece := self.read_some(min(limit + 1 - size, 256 << 10)):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                self.abandon()
                raise LimitExceeded(f"{self.url} answers with more than {limit} bytes")
        self.close()
        return b"".join(pieces)

    def close(self) -> None:
        """Keeps the connection where little is left to read. Twice is harmless."""
        if self._release is None:
            return
        left = self._response.length
        try:
            if left is not None and left <= _DRAINED_BYTES:
                while self.read_some(_DRAINED_BYTES):
                    pass
        except Broken:
            return
        self._finish()

    def abandon(self) -> None:
        """Closes the connection, unless nothing is left to read of it."""
        self._finish()

    def shut(self) -> None:
        """Ends a read of another thread; that one closes."""
        self._wire.shut()

    def _finish(self) -> None:
        release, self._release = self._release, None
        if release is None:
            return
        response = self._response
        whole = response.isclosed() or response.length == 0
        response.close()
        release(whole and not response.will_close)

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.abandon()
