"""Hijacked connections: a duplex stream between a client and a program.

Plain (TTY) or in frames of eight bytes of header (OpenAPI, ContainerAttach: stream type, three
zero bytes, big-endian length), over the raw connection or in WebSocket messages.
"""

from __future__ import annotations

import contextlib
import struct
from typing import Protocol

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from estiba.http1 import Body, Connection, HttpRequest
from estiba.model.errors import InvalidArgument

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"
_FRAME = struct.Struct(">BxxxI")
_MULTIPLEXED_SINCE = (1, 42)
_NORMAL, _PROTOCOL_ERROR = 1000, 1002


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
    # Packed once a length and not once a line: the loop waits meanwhile.
    heads = {size: _FRAME.pack(stream, size + 1) for size in set(map(len, lines))}
    frames = [heads[len(line)] + line + b"\n" for line in lines]
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
    """Attach over WebSocket (RFC 6455): plain output in binary messages, as Docker sends it.

    `wait_gone` is what receives: pings are answered and a close is heard without any input.
    """

    def __init__(
        self, connection: Connection, protocol: WSConnection, source: Body, *, wants_input: bool
    ) -> None:
        self._connection = connection
        self._protocol = protocol
        self._source = source
        self._wants_input = wants_input
        self._input = Body(connection)

    @classmethod
    async def open(cls, request: HttpRequest, *, wants_input: bool) -> WebSocketStream:
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
        return cls(request.connection, protocol, source, wants_input=wants_input)

    async def read(self) -> bytes:
        return await self._input.read()

    async def wait_gone(self) -> None:
        try:
            while data := await self._source.read():
                self._protocol.receive_data(data)
                for event in self._protocol.events():
                    if await self._take(event):
                        return
        except ProtocolError:
            await self._say_goodbye(_PROTOCOL_ERROR)
            return
        finally:
            self._input.end()
        await self._connection.closed.wait()

    async def _take(self, event: Event) -> bool:
        """Whether the client closed."""
        if isinstance(event, BytesMessage | TextMessage):
            data = event.data.encode() if isinstance(event, TextMessage) else bytes(event.data)
            if self._wants_input:
                self._input.feed(data)
        elif isinstance(event, Ping | CloseConnection):
            await self._connection.write(self._protocol.send(event.response()))
        return isinstance(event, CloseConnection)

    async def write(self, stream: int, data: bytes) -> None:
        try:
            message = self._protocol.send(BytesMessage(data=data))
        except ProtocolError as error:
            raise ConnectionResetError("the client closed") from error
        await self._connection.write(message)

    async def close(self) -> None:
        await self._say_goodbye(_NORMAL)
        self._connection.close()

    async def _say_goodbye(self, code: int) -> None:
        with contextlib.suppress(ConnectionError, ProtocolError):
            await self._connection.write(self._protocol.send(CloseConnection(code=code)))
