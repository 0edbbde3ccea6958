"""Hijacked connections: a duplex stream between a client and a program.

Plain (TTY) or in frames of eight bytes of header (OpenAPI, ContainerAttach: stream type, three
zero bytes, big-endian length), over the raw connection or in WebSocket messages.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Protocol

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from estiba.api.http1 import Body, Connection, HttpRequest
from estiba.model.errors import InvalidArgument

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"
_FRAME = struct.Struct(">BxxxI")
_MULTIPLEXED_SINCE = (1, 42)


class ClientStream(Protocol):
    """What a backend writes output to and reads input from."""

    async def read(self) -> bytes:
        """Input; `b""` when the client has closed its side or is gone."""

    async def write(self, stream: int, data: bytes) -> None:
        """Output of stream 1 or 2. Raises ConnectionResetError when the client is gone."""

    async def wait_gone(self) -> None:
        """Returns when the connection is lost."""

    async def close(self) -> None: ...


def frame(stream: int, data: bytes) -> bytes:
    """One multiplexed frame."""
    return _FRAME.pack(stream, len(data)) + data


def frames_by_line(stream: int, data: bytes) -> bytes:
    """A frame for each line: who follows a log takes what a frame holds for a line."""
    lines = data.split(b"\n")
    rest = lines.pop()
    frames = [frame(stream, line + b"\n") for line in lines]
    return b"".join([*frames, frame(stream, rest)] if rest else frames)


class RawStream:
    """A connection taken over from HTTP."""

    def __init__(self, connection: Connection, source: Body, *, tty: bool) -> None:
        self._connection = connection
        self._tty = tty
        self._input = source
        self._has_written = False

    @classmethod
    async def open(cls, request: HttpRequest, *, tty: bool, version: tuple[int, int]) -> RawStream:
        """Answers 101 to an upgrade, else 200 (as before API 1.22), and takes over."""
        kind = RAW_STREAM if tty or version < _MULTIPLEXED_SINCE else MULTIPLEXED_STREAM
        if request.headers.get("upgrade", "").lower() == "tcp":
            head = (
                f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\n"
                "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            )
        else:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n"
        source = await request.connection.hijack(head.encode())
        return cls(request.connection, source, tty=tty)

    async def read(self) -> bytes:
        return await self._input.read()

    async def write(self, stream: int, data: bytes) -> None:
        """Sends output, at first only once the head has been read.

        What comes together with the head is lost on a client that reads the head through a
        buffer and the rest without it, as docker-py does.
        """
        if not self._has_written:
            await self._connection.wait_read()
            self._has_written = True
        await self._connection.write(data if self._tty else frame(stream, data))

    async def wait_gone(self) -> None:
        await self._connection.closed.wait()

    async def close(self) -> None:
        self._connection.close()


class WebSocketStream:
    """Attach over WebSocket (RFC 6455): plain output in binary messages, as Docker sends it."""

    def __init__(self, connection: Connection, protocol: WSConnection, source: Body) -> None:
        self._connection = connection
        self._protocol = protocol
        self._input = source

    @classmethod
    async def open(cls, request: HttpRequest) -> WebSocketStream:
        """Raises InvalidArgument when the request is no WebSocket handshake."""
        protocol = WSConnection(ConnectionType.SERVER)
        lines = [f"{request.method} {request.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        try:
            protocol.receive_data(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        except ProtocolError as error:
            raise InvalidArgument(f"not a WebSocket handshake: {error}") from error
        opening = next(iter(protocol.events()), None)
        if not isinstance(opening, Request):
            raise InvalidArgument("not a WebSocket handshake: see RFC 6455, section 4.1")
        source = await request.connection.hijack(protocol.send(AcceptConnection()))
        return cls(request.connection, protocol, source)

    async def read(self) -> bytes:
        while data := await self._input.read():
            try:
                self._protocol.receive_data(data)
                message = await self._messages()
            except ProtocolError:
                return b""
            if message is None:
                return b""
            if message:
                return message
        return b""

    async def _messages(self) -> bytes | None:
        """The input in what has arrived; None when the client closed."""
        pieces = []
        for event in self._protocol.events():
            if isinstance(event, BytesMessage):
                pieces.append(bytes(event.data))
            elif isinstance(event, TextMessage):
                pieces.append(event.data.encode())
            elif isinstance(event, Ping):
                await self._connection.write(self._protocol.send(event.response()))
            elif isinstance(event, CloseConnection | RejectConnection):
                return None
        return b"".join(pieces)

    async def write(self, stream: int, data: bytes) -> None:
        await self._connection.write(self._protocol.send(BytesMessage(data=data)))

    async def wait_gone(self) -> None:
        await self._connection.closed.wait()

    async def close(self) -> None:
        try:
            await self._connection.write(self._protocol.send(CloseConnection(code=1000)))
        except (ConnectionResetError, ProtocolError):
            pass
        self._connection.close()


async def until_gone(stream: ClientStream, work: asyncio.Task[None]) -> None:
    """Awaits `work`, but cancels it when the client's connection is lost."""
    gone = asyncio.ensure_future(stream.wait_gone())
    try:
        await asyncio.wait([gone, work], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    finally:
        gone.cancel()
    error = None if work.cancelled() else work.exception()
    if error is not None and not isinstance(error, ConnectionError):
        raise error
