"""What happened to repositories, told to web hooks in the envelope of Docker's registry.

A request never waits for a hook: events stand in a bounded queue, one for each hook, and what
does not fit is counted and lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import socket
import ssl
import uuid
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from estiba import __version__
from estiba.http1 import HttpRequest
from estiba.kernel.blocking import run_apart
from estiba.model.errors import InvalidArgument

_log = logging.getLogger(__name__)

ENVELOPE = "application/vnd.docker.distribution.events.v1+json"
MAX_QUEUED = 1000
_BATCH = 20
_TIMEOUT_S = 5.0
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_ATTEMPTS = 8
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Target:
    """What it happened to; `tag` is "" where none was named."""

    repository: str
    digest: str
    size: int = 0
    media_type: str = "application/octet-stream"
    tag: str = ""
    path: str = ""
    source: str = ""


@dataclass(slots=True)
class Hook:
    """One address; `headers` come from a file and are secret."""

    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise InvalidArgument(
                f"invalid web hook {self.url[:100]!r}: expected http(s)://HOST[:PORT]/PATH"
            )

    def post(self, body: bytes) -> int:
        """The status of the answer. Redirects are not followed. Raises OSError. Blocks."""
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                host, port, timeout=_TIMEOUT_S, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        own = {"Content-Type": ENVELOPE, "User-Agent": f"estiba-registry/{__version__}"}
        with contextlib.closing(connection):
            try:
                connection.request("POST", path, body, {**self.headers, **own})
                return connection.getresponse().status
            except http.client.HTTPException as error:
                raise OSError(f"no proper answer: {error}") from error


class Events:
    """Takes events from handlers and brings them to the hooks, in order."""

    def __init__(self, hooks: list[Hook]) -> None:
        self._queues = [_Queue(hook) for hook in hooks]
        self._instance = str(uuid.uuid4())
        self._host = socket.gethostname()

    @property
    def counts(self) -> dict[str, int]:
        """How many events were delivered, dropped, and wait."""
        return {
            "delivered": sum(queue.delivered for queue in self._queues),
            "dropped": sum(queue.dropped for queue in self._queues),
            "queued": sum(len(queue.waiting) for queue in self._queues),
        }

    def start(self) -> None:
        for queue in self._queues:
            queue.start()

    async def close(self, patience_s: float) -> None:
        """Waits for what is queued, but not for long."""
        await asyncio.gather(*(queue.close(patience_s) for queue in self._queues))

    def publish(
        self, action: str, target: Target, request: HttpRequest, *, user: str, address: str
    ) -> None:
        """`action` is push, pull, mount or delete."""
        if not self._queues:
            return
        event = {
            "id": str(uuid.uuid4()),
            "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "action": action,
            "target": _target_of(target),
            "request": {
                "id": str(uuid.uuid4()),
                "addr": address,
                "host": request.headers.get("host", "")[:256],
                "method": request.method,
                "useragent": request.headers.get("user-agent", "")[:256],
            },
            "actor": {"name": user} if user else {},
            "source": {"addr": self._host, "instanceID": self._instance},
        }
        for queue in self._queues:
            queue.put(event)


def _target_of(target: Target) -> dict[str, Any]:
    content: dict[str, Any] = {
        "mediaType": target.media_type,
        "size": target.size,
        "length": target.size,
        "digest": target.digest,
        "repository": target.repository,
        "url": target.path,
    }
    if target.tag:
        content["tag"] = target.tag
    if target.source:
        content["fromRepository"] = target.source
    return content


class _Queue:
    """Events on their way to one hook."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook
        self.waiting: deque[dict[str, Any]] = deque()
        self.delivered = 0
        self.dropped = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="web hook")

    def put(self, event: dict[str, Any]) -> None:
        if len(self.waiting) >= MAX_QUEUED:
            self.dropped += 1
            return
        self.waiting.append(event)
        self._changed.set()

    async def close(self, patience_s: float) -> None:
        self._is_closing = True
        self._changed.set()
        if self._task is None:
            return
        _, late = await asyncio.wait([self._task], timeout=patience_s)
        if late:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            _log.warning("%d events were not delivered to a web hook", len(self.waiting))

    async def _run(self) -> None:
        while True:
            while not self.waiting:
                if self._is_closing:
                    return
                self._changed.clear()
                await self._changed.wait()
            batch = [self.waiting.popleft() for _ in range(min(_BATCH, len(self.waiting)))]
            if await self._deliver(_encode({"events": batch})):
                self.delivered += len(batch)
            else:
                self.dropped += len(batch)

    async def _deliver(self, body: bytes) -> bool:
        wait_s = _FIRST_WAIT_S
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                status = await run_apart(self._hook.post, body)
                if 200 <= status < 300:
                    return True
                reason = f"answered {status}"
            except OSError as error:
                reason = str(error)
            _log.warning("a web hook failed (attempt %d of %d): %s", attempt, _ATTEMPTS, reason)
            if attempt < _ATTEMPTS:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
        return False


def read_headers(path: str) -> dict[str, str]:
    """`Name: value` lines of a file. Raises InvalidArgument, which shows none of them."""
    headers: dict[str, str] = {}
    try:
        with open(path, encoding="latin-1") as file:
            lines = file.read(16 << 10).splitlines()
    except OSError as error:
        raise InvalidArgument(f"cannot read the headers {path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon or not name or not name.replace("-", "").isalnum():
            raise InvalidArgument(f"{path}, line {number}: expected NAME: VALUE")
        headers[name] = value.strip()
    return headers
