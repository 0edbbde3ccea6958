"""Builds asked for on the wire of `estiba build`, as a client that keeps no rule might."""

from __future__ import annotations

import base64
import io
import json
import socket
import tarfile
from collections.abc import Mapping
from typing import Any

from tests.support.daemon import PrivateDaemon

BUNDLE = "application/vnd.estiba.build.v1+tar"


def bundle(request: Any, *members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A build request as a tar; `request` is JSON, or bytes as they are."""
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in ((tarfile.TarInfo("request.json"), body), *members):
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def text(name: str, content: str | bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    return info, content.encode() if isinstance(content, str) else content


def in_context(files: Mapping[str, str | bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [text(f"contexts/context/{name}", content) for name, content in files.items()]


def secrets(**values: bytes) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in values.items()}


def build(
    daemon: PrivateDaemon, dockerfile: str, files: Mapping[str, str | bytes] | None = None,
    **request: Any,
) -> tuple[int, list[dict[str, Any]]]:  # fmt: skip
    """Status and lines of a build to its end."""
    members = [text("dockerfile", dockerfile), *in_context(files or {})]
    return send(daemon, bundle(request, *members))


def send(daemon: PrivateDaemon, body: bytes) -> tuple[int, list[dict[str, Any]]]:
    status, answer = daemon.request("POST", "/build", body, {"Content-Type": BUNDLE})
    if isinstance(answer, bytes):
        return status, [json.loads(line) for line in answer.splitlines()]
    return status, [answer]


def built(daemon: PrivateDaemon, dockerfile: str, *words: Any, **request: Any) -> dict[str, Any]:
    """The result of a build that has to succeed."""
    status, lines = build(daemon, dockerfile, *words, **request)
    assert status == 200 and "result" in lines[-1], lines[-3:]
    return dict(lines[-1]["result"])


def error_of(answer: tuple[int, list[dict[str, Any]]]) -> str:
    """What a build that has to fail says, as a status or as its last line."""
    status, lines = answer
    last = lines[-1]
    assert status != 200 or "error" in last, last
    return str(last.get("message") or last.get("error"))


def begun(daemon: PrivateDaemon, body: bytes, *, whole: bool = True) -> socket.socket:
    """A connection on which a build was asked for; nothing of the answer is read.

    Not `whole`: more of the body is announced than ever comes.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(daemon.socket))
    length = len(body) if whole else len(body) + (1 << 20)
    head = f"POST /build HTTP/1.1\r\nHost: x\r\nContent-Type: {BUNDLE}\r\nContent-Length: {length}"
    connection.sendall(f"{head}\r\n\r\n".encode() + body)
    return connection
