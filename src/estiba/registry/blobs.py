"""Blobs: GET and HEAD with ranges and conditions (end-2), DELETE (end-10)."""

from __future__ import annotations

import contextlib

from estiba.http1 import FileBody, HttpResponse
from estiba.model.errors import DataLoss
from estiba.registry.answers import byte_range, matches
from estiba.registry.call import Call
from estiba.registry.service import Service

_INLINE_BYTES = 64 << 10
_FOREVER = "max-age=31536000"
_GUARD = "default-src 'none'; sandbox"


async def get_blob(service: Service, call: Call) -> HttpResponse:
    """Raises BlobUnknown, RangeInvalid."""
    repository, digest = call.route.repository, call.route.reference
    blobs = service.registry.blobs
    method = call.request.method
    info = await call.ask(blobs.stat, repository, digest)
    headers = {
        "Docker-Content-Digest": digest,
        "Etag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": _FOREVER,
    }
    if matches(call.request.headers.get("if-none-match"), digest):
        return HttpResponse(304, headers)
    elsewhere = await call.ask(blobs.location, repository, digest, method=method)
    if elsewhere is not None:
        service.pulled_blob(call, info.size)
        return HttpResponse(307, {"Location": elsewhere, "Docker-Content-Digest": digest})
    headers["Content-Type"] = "application/octet-stream"
    # A blob is whatever somebody pushed: a browser must not take it for a page of this server.
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Content-Security-Policy"] = _GUARD
    part = byte_range(call.request.headers, info.size, digest) if method == "GET" else None
    if method == "HEAD":
        return HttpResponse(200, {**headers, "Content-Length": str(info.size)})
    offset, size = part or (0, info.size)
    if part is not None:
        headers["Content-Range"] = f"bytes {offset}-{offset + size - 1}/{info.size}"
    service.pulled_blob(call, info.size)
    opened = await call.ask(blobs.open, repository, digest, offset)
    status = 206 if part else 200
    if not call.quick or size > _INLINE_BYTES:
        return HttpResponse(status, headers, FileBody(opened, offset, size))
    with contextlib.closing(opened):
        data = opened.read(size)
    if len(data) != size:
        raise DataLoss(f"the blob {digest} is shorter than it was: push it again")
    return HttpResponse(status, headers, data)


async def delete_blob(service: Service, call: Call) -> HttpResponse:
    """Takes the blob out of this repository; others keep it. Raises BlobUnknown."""
    repository, digest = call.route.repository, call.route.reference
    await service.work(service.registry.blobs.delete, repository, digest)
    service.deleted(call, digest)
    return HttpResponse(202)
