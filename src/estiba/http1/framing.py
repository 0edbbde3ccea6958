"""Where a request's body ends (RFC 9112, section 6): by length, or in chunks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from estiba.http1.head import ProtocolError

MAX_LINE_BYTES = 4096
MAX_TRAILER_BYTES = 64 << 10
_BETWEEN = re.compile(rb"\r\n([1-9a-fA-F][0-9a-fA-F]{0,7})\r\n")
_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
_LENGTH = re.compile(r"[0-9]{1,18}")


Piece = bytes | memoryview
"""Part of a body; a view of what was received is copied once, when it is joined."""


class Framing(Protocol):
    """Separates a body from what follows it."""

    @property
    def is_complete(self) -> bool: ...

    def decode(self, data: bytes) -> tuple[list[Piece], bytes]:
        """Pieces of the body in `data`, and what comes after its end.

        Raises ProtocolError.
        """


class ByLength:
    """A body of so many bytes."""

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def is_complete(self) -> bool:
        return self._left == 0

    def decode(self, data: bytes) -> tuple[list[Piece], bytes]:
        own, rest = data[: self._left], data[self._left :]
        self._left -= len(own)
        return [own], rest


class InChunks:
    """Chunks with their sizes; extensions and trailers are passed over."""

    def __init__(self) -> None:
        self._left = 0
        self._line = b""
        self._after_chunk = False
        self._in_trailers = False
        self._trailer_bytes = 0
        self.is_complete = False

    def decode(self, data: bytes) -> tuple[list[Piece], bytes]:
        pieces: list[Piece] = []
        view = memoryview(data)
        position = 0
        while position < len(data) and not self.is_complete:
            if self._left:
                piece = view[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                self._after_chunk = not self._left
                # Archives come in thousands of chunks: what stands between two, in one step.
                found = None if self._left else _BETWEEN.match(data, position)
                if found is not None:
                    self._left = int(found[1], 16)
                    self._after_chunk = False
                    position = found.end()
                continue
            end = data.find(b"\n", position)
            line = self._line + data[position : end if end >= 0 else len(data)]
            if len(line) > MAX_LINE_BYTES:
                raise _malformed()
            if end < 0:
                self._line = line
                return pieces, b""
            self._line = b""
            position = end + 1
            self._take_line(line.removesuffix(b"\r"))
        return pieces, data[position:]

    def _take_line(self, line: bytes) -> None:
        if self._in_trailers:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > MAX_TRAILER_BYTES:
                raise _malformed()
            self.is_complete = not line
        elif self._after_chunk:
            if line:
                raise _malformed()
            self._after_chunk = False
        else:
            size = line.partition(b";")[0].strip(b" \t")
            if not _SIZE.fullmatch(size):
                raise _malformed()
            self._left = int(size, 16)
            self._in_trailers = not self._left


def framing_of(headers: Mapping[str, str]) -> Framing:
    """Raises ProtocolError for a length or a coding that is not understood."""
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked":
            raise ProtocolError(501, f"unsupported transfer encoding: {coding[:64]!r}")
        return InChunks()
    length = headers.get("content-length", "0")
    if not _LENGTH.fullmatch(length):
        raise ProtocolError(400, f"malformed Content-Length: {length[:32]!r}")
    return ByLength(int(length))


def _malformed() -> ProtocolError:
    return ProtocolError(400, "the request's body is not well-formed HTTP")
