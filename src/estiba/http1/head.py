"""Heads of requests: found in what comes in, parsed by httptools, kept within limits."""

from __future__ import annotations

import contextlib
import re

import httptools

MAX_HEAD_BYTES = 256 << 10
_VERSIONS = ("1.0", "1.1")
_END = re.compile(rb"\n\r?\n")
_END_BYTES = 2


class ProtocolError(Exception):
    """What cannot be answered but by this status and the end of the connection."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class HeadReader:
    """Reads one head; header names are lower case, values of one name joined by commas."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._tail = b""
        self._size = 0
        self._target = b""
        self.headers: dict[str, str] = {}
        self.is_complete = False

    @property
    def has_begun(self) -> bool:
        return self._size > 0

    def feed(self, data: bytes) -> bytes:
        """Takes what belongs to the head and returns the rest.

        Raises ProtocolError for what is no HTTP/1 or too long.
        """
        if not self._size:
            # RFC 9112, section 2.2: empty lines before a request are passed over.
            data = data.lstrip(b"\r\n")
        found = _END.search(self._tail + data)
        end = found.end() - len(self._tail) if found else len(data)
        own, rest = data[:end], data[end:]
        self._size += len(own)
        if self._size > MAX_HEAD_BYTES:
            raise ProtocolError(431, f"the request's head exceeds {MAX_HEAD_BYTES} bytes")
        self._tail = (self._tail + own)[-_END_BYTES:]
        # An upgrade ends HTTP only once the request was answered.
        with contextlib.suppress(httptools.HttpParserUpgrade):
            try:
                self._parser.feed_data(own)
            except (httptools.HttpParserError, httptools.HttpParserCallbackError) as error:
                raise ProtocolError(400, f"malformed HTTP request: {error}") from error
        if found:
            self._check()
        return rest

    def _check(self) -> None:
        if not self.is_complete or self.version == "0.9":
            raise ProtocolError(400, "malformed HTTP request")
        if self.version not in _VERSIONS:
            raise ProtocolError(505, f"HTTP/{self.version} is not spoken here, but HTTP/1.1")

    # -- what was read ---------------------------------------------------------------------

    @property
    def method(self) -> str:
        return self._parser.get_method().decode("ascii")

    @property
    def target(self) -> str:
        return self._target.decode("latin-1")

    @property
    def version(self) -> str:
        return self._parser.get_http_version()

    @property
    def keeps_alive(self) -> bool:
        """What the client wants, by version and Connection header."""
        options = self.headers.get("connection", "").lower()
        if self.version == "1.0":
            return "keep-alive" in options
        return "close" not in options

    # -- called by the parser --------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        if key == "host" and key in self.headers:
            raise ValueError("more than one Host header")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        self.is_complete = True
