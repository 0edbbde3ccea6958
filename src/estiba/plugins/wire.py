"""One HTTP connection to a plugin, over a UNIX socket, TCP or TLS, with a deadline."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import ssl
import stat
from typing import cast

from estiba.distribution.wire import Wire
from estiba.model.errors import InvalidArgument
from estiba.plugins.places import Address, TlsFiles

_CONNECT_S = 5.0


class Connection(http.client.HTTPConnection):
    """Everything that follows `connect` is over within `timeout_s`, or TimeoutError."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        super().__init__(address.host or "plugin", address.port or 80)
        self._address = address
        self._timeout_s = timeout_s

    def connect(self) -> None:
        address = self._address
        if address.path:
            raw = _dial(address, min(self._timeout_s, _CONNECT_S))
        else:
            raw = socket.create_connection(
                (address.host, address.port), min(self._timeout_s, _CONNECT_S)
            )
        wire = Wire(raw, self._timeout_s)
        self.sock = cast(socket.socket, wire)
        if address.tls is not None:
            wire.wrap(_context(address.tls), address.host)

    @property
    def wire(self) -> Wire:
        return cast(Wire, self.sock)


def _dial(address: Address, timeout_s: float) -> socket.socket:
    """By descriptor: a path may be longer than the 107 bytes that a socket's address has."""
    follow = os.O_NOFOLLOW if address.is_confined else 0
    place = os.open(address.path, os.O_PATH | os.O_CLOEXEC | follow)
    try:
        if not stat.S_ISSOCK(os.fstat(place).st_mode):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "no socket")
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            raw.settimeout(timeout_s)
            raw.connect(f"/proc/self/fd/{place}")
        except BaseException:
            raw.close()
            raise
    finally:
        os.close(place)
    return raw


def _context(files: TlsFiles) -> ssl.SSLContext:
    """Raises InvalidArgument for files that are not there or do not fit."""
    context = ssl.create_default_context()
    try:
        if files.ca:
            context.load_verify_locations(files.ca)
        if files.certificate:
            context.load_cert_chain(files.certificate, files.key or None)
    except OSError as error:
        raise InvalidArgument(f"TLS files of the plugin: {error}") from error
    if not files.verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
