"""Hijacked streams: the user's terminal or pipes on one side, a program on the other."""

from __future__ import annotations

import _thread
import os
import select

from estiba.client.connection import CHUNK, Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from estiba.model.detach_keys import DetachScanner

_HEADER = 8
_MOST_PENDING = 1 << 20
_ROUNDS = 8


class Demultiplexer:
    """(stream, bytes) out of frames: type, three zero bytes, big-endian length."""

    def __init__(self) -> None:
        self._header = b""
        self._missing = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        while data:
            if not self._missing:
                wanted = _HEADER - len(self._header)
                self._header, data = self._header + data[:wanted], data[wanted:]
                if len(self._header) < _HEADER:
                    return
                self._missing = int.from_bytes(self._header[4:8], "big")
                if not self._missing:
                    self._header = b""
                continue
            piece, data = data[: self._missing], data[self._missing :]
            self._missing -= len(piece)
            yield self._header[0], piece
            if not self._missing:
                self._header = b""


def demultiplex(pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    demultiplexer = Demultiplexer()
    for piece in pieces:
        yield from demultiplexer.feed(piece)


def write_output(chunks: Iterable[tuple[int, bytes]]) -> None:
    """Stream 2 to stderr, all others to stdout, unbuffered."""
    for stream, data in chunks:
        write_all(2 if stream == 2 else 1, data)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            # Whoever shares the terminal has made it non-blocking.
            select.select([], [fd], [])


class Session:
    """Copies stdin to the program and its output to the user, until the output ends.

    One thread and `poll`: neither direction can hold up the other.
    """

    def __init__(
        self,
        connection: Connection,
        first: bytes,
        *,
        tty: bool,
        scanner: DetachScanner | None = None,
    ) -> None:
        self._connection = connection
        self._first = first
        self._scanner = scanner
        self._frames = None if tty else Demultiplexer()
        self._pending = b""
        self._input_open = False
        self._detached = False
        self._more = False

    def run(self, *, stdin: bool) -> bool:
        """False when the user has typed the detach keys."""
        self._input_open = stdin
        if not stdin:
            self._output_only()
            return True
        self._show(self._first)
        poller = select.poll()
        while not self._detached:
            self._register(poller)
            readable = self._more
            for fd, events in poller.poll(0 if self._more else None):
                if fd == 0:
                    if not self._read_input():
                        poller.unregister(0)
                    continue
                if events & select.POLLOUT:
                    self._send()
                readable = readable or bool(events & ~select.POLLOUT)
            if readable and not self._receive():
                return True
        return False

    def _output_only(self) -> None:
        data: bytes | None = self._first
        while True:
            self._show(data or b"")
            data = self._connection.receive()
            if not data:
                return

    def _register(self, poller: select.poll) -> None:
        out = select.POLLOUT if self._pending else 0
        poller.register(self._connection.fileno(), select.POLLIN | out)
        if self._input_open:
            wanted = select.POLLIN if len(self._pending) < _MOST_PENDING else 0
            poller.register(0, wanted)

    def _read_input(self) -> bool:
        """False at the end of the user's input: the program's ends too, its output goes on."""
        try:
            data = os.read(0, CHUNK)
        except OSError:
            data = b""
        if not data:
            self._input_open = False
            self._send()
            return False
        if self._scanner is not None:
            data, self._detached = self._scanner.feed(data)
        self._pending += data
        self._send()
        return True

    def _send(self) -> None:
        try:
            while self._pending:
                taken = self._connection.try_send(self._pending)
                if not taken:
                    return
                self._pending = self._pending[taken:]
        except OSError:
            # The program reads no more; what it still writes is wanted.
            self._pending = b""
        if not self._input_open:
            self._connection.end_input()

    def _receive(self) -> bool:
        """False at the end. Stops now and then, so that a flood of output holds up no input."""
        for _ in range(_ROUNDS):
            data = self._connection.try_receive()
            self._more = data is not None
            if data is None:
                return True
            if not data:
                return False
            self._show(data)
        return True

    def _show(self, data: bytes) -> None:
        if not data:
            return
        if self._frames is None:
            write_all(1, data)
        else:
            write_output(self._frames.feed(data))


class RawTerminal:
    """The user's terminal without echo and line editing, and as it was afterwards."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted and os.isatty(0)

    def __enter__(self) -> None:
        if self._wanted:
            import termios
            import tty

            self._before = termios.tcgetattr(0)
            # What was typed meanwhile is for the program: it is not thrown away.
            tty.setraw(0, termios.TCSANOW)

    def __exit__(self, *_: object) -> None:
        if self._wanted:
            import termios

            try:
                termios.tcsetattr(0, termios.TCSADRAIN, self._before)
            except termios.error:
                return  # the terminal is gone


def terminal_size() -> tuple[int, int]:
    """Height and width; (0, 0) without a terminal."""
    for fd in (1, 0):
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        return size.lines, size.columns
    return 0, 0


class Signals:
    """Handlers for as long as the block runs; they may raise, in the main thread."""

    def __init__(self, handlers: dict[int, Callable[[int], None]]) -> None:
        self._handlers = handlers

    def __enter__(self) -> None:
        import signal

        self._before = {
            number: signal.signal(number, lambda number, _frame: self._handlers[number](number))
            for number in self._handlers
        }

    def __exit__(self, *_: object) -> None:
        import signal

        for number, handler in self._before.items():
            signal.signal(number, handler)


class WatchedSignals:
    """Handlers that run in order in a thread of their own, for as long as the block runs.

    The interpreter's handlers run when the main thread is at its next instruction: one whose
    signal came just before a read would wait until there is something to read.
    """

    def __init__(self, handlers: dict[int, Callable[[int], None]]) -> None:
        self._handlers = handlers

    def __enter__(self) -> None:
        if not self._handlers:
            return
        import signal

        self._numbers, written = os.pipe()
        os.set_blocking(written, False)
        # Before the handlers: from the first one on nothing is lost.
        self._written = written
        self._wakeup = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        self._before = {
            number: signal.signal(number, lambda _number, _frame: None) for number in self._handlers
        }
        _thread.start_new_thread(self._watch, ())

    def _watch(self) -> None:
        while numbers := os.read(self._numbers, CHUNK):
            for number in numbers:
                if number in self._handlers:
                    self._handlers[number](number)
        os.close(self._numbers)

    def __exit__(self, *_: object) -> None:
        if not self._handlers:
            return
        import signal

        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._written)
