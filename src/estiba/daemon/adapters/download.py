"""An archive from a URL, read by the thread that unpacks it. Nothing is kept of it here."""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
import urllib.request
from typing import IO

from estiba.model.errors import InvalidArgument, Unavailable

_TIMEOUT_S = 60.0
_SCHEMES = ("http://", "https://")


class Download:
    """`storage.tar.Source` of what a web server sends."""

    def __init__(self, url: str) -> None:
        """Raises InvalidArgument for what is no address of the web."""
        self.url = url if "://" in url else f"http://{url}"
        if not self.url.startswith(_SCHEMES):
            raise InvalidArgument(f"cannot import from {url!r}: use http://, https:// or -")
        self._body: IO[bytes] | None = None

    def open(self) -> None:
        """Blocks. Raises Unavailable when nothing answers, or the server has no such file."""
        request = urllib.request.Request(self.url, headers={"User-Agent": "estiba"})
        try:
            self._body = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            raise Unavailable(
                f"failed to GET {self.url} with status {error.code} {error.reason}"
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise Unavailable(f"failed to GET {self.url}: {reason}") from error

    def read(self, size: int, /) -> bytes:
        """Raises Unavailable when the connection breaks."""
        if self._body is None:
            self.open()
        assert self._body is not None
        try:
            return self._body.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"failed to read {self.url}: {error}") from error

    def close(self) -> None:
        if self._body is not None:
            with contextlib.suppress(OSError):
                self._body.close()
