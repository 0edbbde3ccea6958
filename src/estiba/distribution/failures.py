"""Connections that break, in words."""

from __future__ import annotations

import http.client
import json
import socket
import ssl

from estiba.distribution.urls import Url
from estiba.model.errors import Unavailable

_INTERRUPTED = (
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    http.client.IncompleteRead,
    ssl.SSLEOFError,
)
_NO_TLS = "it seems to speak plain HTTP; --insecure-registry={host} allows that"
_NO_CERTIFICATE = (
    "it wants a client certificate; put NAME.cert and NAME.key into /etc/estiba/certs.d/{host}/"
)
_TLS_REASONS = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "SSLV3_ALERT_BAD_CERTIFICATE": _NO_CERTIFICATE,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _NO_CERTIFICATE,
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who issued the client certificate",
}


class Broken(Unavailable):
    """A connection that could not be made, ended or took too long.

    `again` says that a new one may help at once.
    """

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.again = again


def broken(method: str, url: Url, error: Exception) -> Broken:
    """The exception for what a socket or `http.client` raised."""
    what = f"{method.capitalize()} {json.dumps(str(url))}"
    return Broken(f"{what}: {_reason(url, error)}", again=isinstance(error, _INTERRUPTED))


def _reason(url: Url, error: Exception) -> str:
    host = url.origin.authority
    if isinstance(error, TimeoutError):
        return f"{host} did not answer in time"
    if isinstance(error, socket.gaierror):
        return f"the name {host} cannot be looked up: {error.strerror}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {host} cannot be verified: {error.verify_message}; put its "
            f"authority into /etc/estiba/certs.d/{host}/ca.crt"
        )
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        return f"no TLS with {host}: {_TLS_REASONS.get(reason, reason).format(host=host)}"
    if isinstance(error, ConnectionRefusedError):
        return f"{host}: connection refused"
    if isinstance(error, _INTERRUPTED):
        return f"{host} ended the connection"
    if isinstance(error, OSError):
        return f"{host}: {error.strerror or error}"
    return f"{host} does not speak HTTP as it should ({type(error).__name__})"
