"""Blob uploads: begin, mount (end-4, end-11), chunks (end-5), finish (end-6), status (end-13).

An upload belongs to its repository and to whoever may push there. What came before a connection
broke stays, and the client goes on from where `Range` says.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from functools import partial

from estiba.http1 import HttpResponse
from estiba.http1.uploads import Upload
from estiba.kernel.blocking import run_apart, run_blocking
from estiba.model.digest import Digest
from estiba.model.errors import InvalidArgument
from estiba.registry.auth.identity import Action
from estiba.registry.call import Call
from estiba.registry.errors import HttpError, SizeInvalid, upload_range
from estiba.registry.routes import check_digest, is_name
from estiba.registry.service import Service
from estiba.registry.storage.errors import BlobUnknown, DigestInvalid, NameUnknown, RegistryError
from estiba.registry.storage.ports import BlobInfo, Uploads

_PIECE_BYTES = 1 << 20
_SMALL_BYTES = 128 << 10
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?")


class ChunkInvalid(HttpError, InvalidArgument):
    """A Content-Range that is malformed."""

    code = "BLOB_UPLOAD_INVALID"
    status = 416


async def begin_upload(service: Service, call: Call) -> HttpResponse:
    """Mounts, takes the whole blob at once, or opens an upload.

    Raises QuotaExceeded, DigestInvalid.
    """
    repository = call.route.repository
    mount = call.text("mount")
    if mount is not None:
        info = await _mount(service, call, mount)
        if info is not None:
            return _created(repository, info.digest)
    digest = call.text("digest")
    checked = None if digest is None else check_digest(digest)
    uploads = service.registry.uploads
    upload = await service.work(uploads.begin, repository)
    if checked is None:
        return _accepted(repository, upload, 0)
    try:
        await _receive(service, call, upload, None)
        info = await service.work(uploads.finish, repository, upload, checked)
    except BaseException:
        # Nobody else knows of it.
        await run_blocking(_forget, uploads, repository, upload)
        raise
    service.pushed_blob(call, info)
    return _created(repository, checked)


async def _mount(service: Service, call: Call, mount: str) -> BlobInfo | None:
    """None when the blob is nowhere that the client may read: it is uploaded then."""
    repository, source = call.route.repository, call.text("from")
    try:
        digest = check_digest(mount)
    except InvalidArgument:
        return None
    if source is None:
        candidates = await service.work(service.holders, digest)
    else:
        candidates = [source] if is_name(source) else []
    for candidate in candidates:
        if not service.gate.allows(call.identity, candidate, Action.PULL):
            continue
        try:
            info = await service.work(
                service.registry.blobs.mount, repository, digest, source=candidate
            )
        except (BlobUnknown, NameUnknown):
            continue
        if info is not None:
            service.mounted_blob(call, info, candidate)
            return info
    return None


async def upload_status(service: Service, call: Call) -> HttpResponse:
    """Raises UploadUnknown."""
    repository, upload = call.route.repository, call.route.reference
    offset = await service.work(service.registry.uploads.offset, repository, upload)
    return HttpResponse(204, _state(repository, upload, offset))


async def patch_upload(service: Service, call: Call) -> HttpResponse:
    """One chunk, or all of the blob as a stream.

    Raises UploadUnknown, UploadInvalid, OffsetInvalid, QuotaExceeded.
    """
    repository, upload = call.route.repository, call.route.reference
    offset = await _receive(service, call, upload, _chunk_start(call))
    return _accepted(repository, upload, offset)


async def finish_upload(service: Service, call: Call) -> HttpResponse:
    """The last chunk, if the body holds one, and the digest of all.

    Raises DigestInvalid, and as `patch_upload`.
    """
    repository, upload = call.route.repository, call.route.reference
    digest = call.text("digest")
    if digest is None:
        raise DigestInvalid("the parameter `digest` is missing: it completes the upload")
    checked = check_digest(digest)
    start = _chunk_start(call)
    uploads = service.registry.uploads
    if start is not None or call.request.headers.get("content-length", "-") != "0":
        await _receive(service, call, upload, start)
    info = await service.work(uploads.finish, repository, upload, checked)
    service.pushed_blob(call, info)
    return _created(repository, checked)


async def cancel_upload(service: Service, call: Call) -> HttpResponse:
    """Raises UploadUnknown."""
    uploads = service.registry.uploads
    await service.work(uploads.cancel, call.route.repository, call.route.reference)
    return HttpResponse(204)


async def _receive(service: Service, call: Call, upload: str, start: int | None) -> int:
    """Writes the request's body to the upload; returns where that ends."""
    uploads, repository = service.registry.uploads, call.route.repository
    body = call.request.body
    length = call.request.headers.get("content-length")
    if length is not None and int(length) <= _SMALL_BYTES:
        pieces = []
        while piece := await body.read():
            pieces.append(piece)
        offset, size = await run_blocking(_write, uploads, repository, upload, start, iter(pieces))
    else:
        source = Upload(body)
        try:
            stream = iter(partial(source.read, _PIECE_BYTES), b"")
            offset, size = await run_apart(_write, uploads, repository, upload, start, stream)
        finally:
            source.close()
    service.metrics.received_bytes += size
    return offset


def _write(
    uploads: Uploads, repository: str, upload: str, start: int | None, pieces: Iterator[bytes]
) -> tuple[int, int]:
    """Where the upload ends now, and how much came; kept if `pieces` fails. Blocks."""
    size = 0
    with uploads.append(repository, upload, offset=start) as writer:
        for piece in pieces:
            writer.write(piece)
            size += len(piece)
    return writer.offset, size


def _forget(uploads: Uploads, repository: str, upload: str) -> None:
    with contextlib.suppress(RegistryError, OSError):
        uploads.cancel(repository, upload)


def _chunk_start(call: Call) -> int | None:
    """Where the body belongs, as Content-Range says. Raises ChunkInvalid, SizeInvalid."""
    headers = call.request.headers
    text = headers.get("content-range")
    if text is None:
        return None
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is None or int(found[2]) < int(found[1]):
        raise ChunkInvalid(f"malformed Content-Range {text[:64]!r}: expected START-END")
    length, size = headers.get("content-length"), int(found[2]) - int(found[1]) + 1
    if length is not None and int(length) != size:
        raise SizeInvalid(f"Content-Range is of {size} bytes, but Content-Length says {length}")
    return int(found[1])


def _state(repository: str, upload: str, offset: int) -> dict[str, str]:
    return {
        "Location": f"/v2/{repository}/blobs/uploads/{upload}",
        "Range": upload_range(offset),
        "Docker-Upload-Uuid": upload,
    }


def _accepted(repository: str, upload: str, offset: int) -> HttpResponse:
    return HttpResponse(202, _state(repository, upload, offset))


def _created(repository: str, digest: Digest) -> HttpResponse:
    return HttpResponse(
        201,
        {"Location": f"/v2/{repository}/blobs/{digest}", "Docker-Content-Digest": digest},
    )
