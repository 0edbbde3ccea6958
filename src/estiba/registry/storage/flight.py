"""One download that several clients read while it goes on.

Bytes stand in a file that grows; each reader has a descriptor of its own, so it may go on
reading when the download has ended and the file was moved. The last bytes are given out only
once the digest was checked: nobody gets a wrong blob whole.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from estiba.model.errors import EstibaError, Unavailable


class Landed(Exception):
    """The flight is over: what it brought is in the storage, or failed to come."""


class Flight:
    """`size` in bytes, as the other registry says."""

    def __init__(self, size: int, fd: int) -> None:
        """`fd` is of the file, readable; the flight owns it."""
        self.size = size
        self._fd: int | None = fd
        self._ready = 0
        self._held_back = 0
        self._error: Exception | None = None
        self._changed = threading.Condition()

    def advance(self, count: int) -> None:
        """`count` more bytes stand in the file; the piece before may be read now."""
        with self._changed:
            self._ready += self._held_back
            self._held_back = count
            self._changed.notify_all()

    def land(self, error: Exception | None = None) -> None:
        """All is there and checked; or it failed."""
        with self._changed:
            if error is None:
                self._ready += self._held_back
            self._held_back, self._error = 0, error
            fd, self._fd = self._fd, None
            if fd is not None:
                os.close(fd)
            self._changed.notify_all()

    def board(self, offset: int) -> FlightReader:
        """Raises Landed."""
        with self._changed:
            if self._fd is None:
                raise Landed
            return FlightReader(self, os.dup(self._fd), offset)

    def wait(self, position: int) -> int:
        """Where the bytes end that may be read, once that is beyond `position`.

        Raises what the download failed with.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready > position or self._fd is None)
            if self._ready > position or self._error is None:
                return self._ready
            if isinstance(self._error, EstibaError):
                raise Unavailable(f"the download broke off: {self._error}") from self._error
            raise OSError(f"the download broke off: {self._error}") from self._error


@dataclass(slots=True)
class FlightReader:
    """`Opened`, without a descriptor to send: the file is not whole."""

    flight: Flight
    source: int | None
    position: int
    fd: int | None = None

    @property
    def size(self) -> int:
        return self.flight.size

    def read(self, limit: int, /) -> bytes:
        """Waits for bytes. Raises Unavailable, OSError when they do not come."""
        if self.source is None or self.position >= self.flight.size:
            return b""
        end = self.flight.wait(self.position)
        data = os.pread(self.source, min(limit, end - self.position), self.position)
        self.position += len(data)
        return data

    def close(self) -> None:
        fd, self.source = self.source, None
        if fd is not None:
            os.close(fd)
