"""TLS with a half-close.

`ssl.SSLSocket` cannot end its own direction and go on reading: its shutdown drops the session.
Over memory buffers the session's close_notify can be sent while the peer's data still comes.
"""

from __future__ import annotations

import os
import select
import socket
import ssl

from estiba.client.connection import CHUNK, Connection
from estiba.client.errors import ClientError
from estiba.client.host import Host, Tls


class TlsConnection(Connection):
    def __init__(self, sock: socket.socket, host: Host) -> None:
        super().__init__(sock)
        assert host.tls is not None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            context = _context(host.tls)
            self._session = context.wrap_bio(
                self._incoming, self._outgoing, server_hostname=host.address
            )
            self._handshake()
        except (OSError, ssl.SSLError) as error:
            sock.close()
            raise ClientError(f"cannot speak TLS with {host.url}: {error}") from error

    def _handshake(self) -> None:
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._feed(self._socket.recv(CHUNK))
            else:
                self._flush()
                return

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._socket.sendall(data)

    def _feed(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _decoded(self) -> bytes | None:
        """None when a whole record has not come yet."""
        try:
            return self._session.read(CHUNK)
        except ssl.SSLWantReadError:
            self._flush()
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def receive(self) -> bytes:
        while (data := self._decoded()) is None:
            self._feed(super().receive())
        return data

    def try_receive(self) -> bytes | None:
        data = self._decoded()
        while data is None:
            raw = super().try_receive()
            if raw is None:
                return None
            self._feed(raw)
            data = self._decoded()
        return data

    def send_all(self, data: bytes) -> None:
        self._session.write(data)
        self._flush()

    def try_send(self, data: bytes) -> int:
        """Takes a piece only when the socket can take it, so that it never blocks for long."""
        if not select.select([], [self._socket], [], 0)[1]:
            return 0
        piece = data[: 1 << 14]
        self.send_all(piece)
        return len(piece)

    def end_input(self) -> None:
        try:
            self._session.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLError):
            # close_notify is in the buffer; the peer's answer comes after its last data.
            pass
        try:
            self._flush()
        except OSError:
            return


def _context(tls: Tls) -> ssl.SSLContext:
    """Without a CA of one's own the system's are trusted. Raises ClientError for a missing file."""
    if tls.ca and tls.verify and not os.path.exists(tls.ca):
        raise ClientError(
            f"open {tls.ca}: no such file or directory: the daemon cannot be verified without it; "
            "name its CA with --tlscacert"
        )
    context = ssl.create_default_context(cafile=tls.ca if os.path.exists(tls.ca) else None)
    if not tls.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if tls.certificate and os.path.exists(tls.certificate):
        context.load_cert_chain(tls.certificate, tls.key)
    return context
