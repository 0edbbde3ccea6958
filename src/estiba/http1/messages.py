"""What a handler takes and what it gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from estiba.http1.body import Body
from estiba.http1.files import FileBody

if TYPE_CHECKING:
    from estiba.http1.connection import Connection


@dataclass(slots=True)
class HttpRequest:
    """One request; header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: Body
    connection: Connection
    keep_alive: bool = True
    version: str = "1.1"


@dataclass(slots=True)
class HttpResponse:
    """`body` is bytes, a part of a file, or an iterator that is streamed in chunks.

    `filler` means nothing between two pieces, and is sent to find out whether a client is gone.
    `on_end` is called once the answer was sent, or could not be, with whether it was.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | FileBody | AsyncIterator[bytes] = b""
    filler: bytes = b""
    hijacked: bool = False
    on_end: Callable[[bool], None] | None = None


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]
