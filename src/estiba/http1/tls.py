"""TLS whose halves close apart: the client may end its input while output goes on.

asyncio's own TLS transport ends both directions when the peer closes one, which would cut the
output of `docker run -i` over TCP. RFC 8446, section 6.1, allows the half-close.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from estiba.model.errors import InvalidArgument

_READ_BYTES = 1 << 18
HANDSHAKE_TIMEOUT_S = 30.0
_PLAIN_REFUSAL = (
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
)


class TlsTransport(asyncio.Transport):
    """What the protocol inside sees: plain bytes."""

    def __init__(self, outer: TlsProtocol, below: asyncio.Transport) -> None:
        super().__init__()
        self._outer = outer
        self._below = below

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._outer.encrypt(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        for data in list_of_data:
            self.write(data)

    def can_write_eof(self) -> bool:
        return False

    def lend_sealing(self) -> Callable[[bytes], bytes]:
        """Encrypts what a thread sends by itself, until it is given back; reading is paused."""
        return self._outer.lend()

    def give_back_sealing(self) -> None:
        self._outer.give_back()
        self.resume_reading()

    def close(self) -> None:
        self._outer.shut_down()

    def abort(self) -> None:
        self._below.abort()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Whom the socket's bytes go to: they are not plain yet."""
        return self._outer

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._below.get_extra_info(name, default)


class TlsProtocol(asyncio.Protocol):
    """Stands between a TCP transport and the protocol `inner`."""

    def __init__(self, context: ssl.SSLContext, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._below: asyncio.Transport | None = None
        self._is_up = False
        self._input_ended = False
        self._is_lent = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._below = transport
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HANDSHAKE_TIMEOUT_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._is_up:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        try:
            if not self._is_up and not self._handshake():
                return
            self._read()
        except ssl.SSLError as error:
            self._flush()
            if self._below is not None:
                if error.reason == "HTTP_REQUEST":
                    self._below.write(_PLAIN_REFUSAL)
                self._below.close()

    def eof_received(self) -> bool:
        """The TCP side closed without TLS's own notice: input is over all the same."""
        self._end_input()
        return self._is_up

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def encrypt(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Sends plain bytes of the inner protocol."""
        view = memoryview(data)
        with contextlib.suppress(ssl.SSLError):
            while view:
                view = view[self._tls.write(view) :]
        self._flush()

    def lend(self) -> Callable[[bytes], bytes]:
        """What encrypts for a thread; until it is given back nobody else may."""
        self._is_lent = True
        return self._seal

    def give_back(self) -> None:
        self._is_lent = False

    def _seal(self, data: bytes) -> bytes:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        return self._outgoing.read()

    def shut_down(self) -> None:
        """Tells the client that no more comes, and closes."""
        if self._below is None or self._below.is_closing():
            return
        if not self._is_lent:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
        self._below.close()

    def _handshake(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        self._flush()
        self._stop_timer()
        self._is_up = True
        assert self._below is not None
        self._inner.connection_made(TlsTransport(self, self._below))
        return True

    def _read(self) -> None:
        try:
            while data := self._tls.read(_READ_BYTES):
                self._inner.data_received(data)
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLZeroReturnError:
            pass
        self._flush()
        self._end_input()

    def _end_input(self) -> None:
        if self._is_up and not self._input_ended:
            self._input_ended = True
            if not self._inner.eof_received():
                self.shut_down()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self._below is not None:
            self._below.write(data)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def tls_context(certificate: Path, key: Path, ca: Path | None) -> ssl.SSLContext:
    """For TCP; with `ca` clients must show a certificate that it signed.

    Raises InvalidArgument naming the file that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
        if ca is not None:
            context.load_verify_locations(ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(
            f"cannot use the TLS files {certificate}, {key}, {ca or '-'}: {error}"
        ) from error
    return context
