"""A TCP relay in front of a server, which cuts connections as a bad network does."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

_NO_LINGER = struct.pack("ii", 1, 0)


class Relay:
    """`cuts` are numbers of bytes, from client to server (`upward`) or back: the next connections
    each end when so many have passed. Later ones live."""

    def __init__(self, port: int, *, upward: bool) -> None:
        self.cuts: list[int] = []
        self.connections = 0
        self._target = port
        self._upward = upward
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(("127.0.0.1", self._target))
            for source, sink, upward in ((client, server, True), (server, client, False)):
                thread = threading.Thread(
                    target=self._pump, args=(source, sink, upward), daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, upward: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if upward == self._upward and self.cuts and passed + len(data) > self.cuts[0]:
                    sink.sendall(data[: self.cuts.pop(0) - passed])
                    break
                sink.sendall(data)
                passed += len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                # A reset, also for who is still sending.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                end.shutdown(socket.SHUT_RDWR)
                end.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


@contextlib.contextmanager
def relay(port: int, *, upward: bool = False) -> Iterator[Relay]:
    made = Relay(port, upward=upward)
    try:
        yield made
    finally:
        made.close()
