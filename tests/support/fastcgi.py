"""One request to a FastCGI server, such as PHP-FPM."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

_HEAD = struct.Struct(">BBHHBx")
_BEGIN, _END, _PARAMS, _STDIN, _STDOUT = 1, 3, 4, 5, 6
_RESPONDER = struct.pack(">HB5x", 1, 0)


def fetch(address: tuple[str, int], variables: Mapping[str, str]) -> tuple[str, bytes]:
    """The head and the body of the answer."""
    pairs = b"".join(
        _length(name) + _length(value) + name.encode() + value.encode()
        for name, value in variables.items()
    )
    with socket.create_connection(address, timeout=10) as connection:
        records = ((_BEGIN, _RESPONDER), (_PARAMS, pairs), (_PARAMS, b""), (_STDIN, b""))
        connection.sendall(b"".join(_record(kind, data) for kind, data in records))
        with connection.makefile("rb") as stream:
            output = b""
            while True:
                _, kind, _, size, padding = _HEAD.unpack(stream.read(_HEAD.size))
                data = stream.read(size + padding)[:size]
                if kind == _END:
                    head, _, body = output.partition(b"\r\n\r\n")
                    return head.decode(), body
                if kind == _STDOUT:
                    output += data


def _record(kind: int, data: bytes) -> bytes:
    return _HEAD.pack(1, kind, 1, len(data), 0) + data


def _length(text: str) -> bytes:
    size = len(text.encode())
    return bytes([size]) if size < 128 else struct.pack(">I", size | 0x80000000)
