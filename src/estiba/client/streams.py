"""Hijacked streams: the user's terminal or pipes on one side, a program on the other."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from estiba.client.errors import ClientError

if TYPE_CHECKING:
    from estiba.model.detach_keys import DetachScanner

_HEADER = 8
_CHUNK = 1 << 18


def demultiplex(pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """(stream, bytes) out of frames: type, three zero bytes, big-endian length."""
    buffer = b""
    missing = stream = 0
    for piece in pieces:
        buffer = buffer + piece if buffer else piece
        while buffer:
            if not missing:
                if len(buffer) < _HEADER:
                    break
                stream, missing = buffer[0], int.from_bytes(buffer[4:8], "big")
                buffer = buffer[_HEADER:]
                continue
            data, buffer = buffer[:missing], buffer[missing:]
            missing -= len(data)
            yield stream, data


def write_output(chunks: Iterator[tuple[int, bytes]]) -> None:
    """Streams 1 and 2 to stdout and stderr, unbuffered."""
    for stream, data in chunks:
        write_all(2 if stream == 2 else 1, data)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def received(connection: socket.socket, first: bytes) -> Iterator[bytes]:
    """What comes in on a hijacked connection."""
    if first:
        yield first
    while True:
        try:
            data = connection.recv(_CHUNK)
        except ConnectionResetError:
            return
        if not data:
            return
        yield data


class Session:
    """Copies stdin to the program and its output to the user, until the output ends."""

    def __init__(
        self, connection: socket.socket, first: bytes, *, tty: bool, detach_keys: str = ""
    ) -> None:
        self._connection = connection
        self._first = first
        self._tty = tty
        self._scanner = _scanner(detach_keys) if tty else None
        self.is_detached = False
        """The user has typed the keys: the program runs on."""

    def run(self, *, stdin: bool) -> None:
        if stdin:
            threading.Thread(target=self._input, name="stdin", daemon=True).start()
        pieces = received(self._connection, self._first)
        if self._tty:
            for piece in pieces:
                write_all(1, piece)
        else:
            write_output(demultiplex(pieces))

    def _input(self) -> None:
        """At the end of the user's input the program's ends too, while its output goes on."""
        try:
            while data := os.read(0, _CHUNK):
                # The daemon acts on the keys; here they only tell leaving from ending.
                if self._scanner is not None and self._scanner.feed(data)[1]:
                    self.is_detached = True
                self._connection.sendall(data)
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            return


def _scanner(text: str) -> DetachScanner:
    from estiba.model.detach_keys import DEFAULT, DetachScanner, parse_keys
    from estiba.model.errors import InvalidArgument

    try:
        return DetachScanner(parse_keys(text or DEFAULT))
    except InvalidArgument as error:
        raise ClientError(str(error)) from error


@contextmanager
def raw_terminal(wanted: bool) -> Iterator[None]:
    """The user's terminal without echo and line editing, and as it was afterwards."""
    if not wanted or not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def terminal_size() -> tuple[int, int]:
    """Height and width; (0, 0) without a terminal."""
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return 0, 0
    return size.lines, size.columns
