"""Manifests: GET and HEAD (end-3), PUT (end-7), DELETE of manifests and tags (end-9), referrers
(end-12). The storage checks what is pushed.
"""

from __future__ import annotations

import json
from typing import Any

from estiba.http1 import HttpResponse
from estiba.registry.answers import json_answer, matches, next_link
from estiba.registry.call import Call
from estiba.registry.service import Service
from estiba.registry.storage.errors import ManifestInvalid, ManifestTooLarge
from estiba.registry.storage.ports import MAX_MANIFEST_BYTES, StoredManifest

INDEX = "application/vnd.oci.image.index.v1+json"
_REFERRERS_A_PAGE = 500


async def get_manifest(service: Service, call: Call) -> HttpResponse:
    """Raises ManifestUnknown, NameUnknown.

    A client that does not accept the media type gets it all the same: newer kinds were added
    since some learned to ask, and none turns down what it can read.
    """
    manifest = await call.ask(
        service.registry.manifests.get, call.route.repository, call.route.reference
    )
    headers = {"Docker-Content-Digest": manifest.digest, "Etag": f'"{manifest.digest}"'}
    if matches(call.request.headers.get("if-none-match"), manifest.digest):
        return HttpResponse(304, headers)
    headers["Content-Type"] = manifest.media_type
    headers["X-Content-Type-Options"] = "nosniff"
    service.pulled_manifest(call, manifest)
    return HttpResponse(200, headers, manifest.body)


async def put_manifest(service: Service, call: Call) -> HttpResponse:
    """Raises ManifestInvalid, ManifestTooLarge, ManifestBlobUnknown, DigestInvalid."""
    repository, reference = call.route.repository, call.route.reference
    body = await _read(call)
    media_type = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    media_type = media_type or _declared(body)
    is_digest = ":" in reference
    made = await service.work(
        service.registry.manifests.put,
        repository,
        body,
        media_type,
        tag=None if is_digest else reference,
        digest=reference if is_digest else None,
    )
    service.pushed_manifest(call, StoredManifest(made.digest, media_type, body))
    headers = {
        "Location": f"/v2/{repository}/manifests/{made.digest}",
        "Docker-Content-Digest": made.digest,
    }
    if made.subject is not None:
        headers["OCI-Subject"] = made.subject
    return HttpResponse(201, headers)


async def _read(call: Call) -> bytes:
    pieces, size = [], int(call.request.headers.get("content-length", "0"))
    if size <= MAX_MANIFEST_BYTES:
        size = 0
        while size <= MAX_MANIFEST_BYTES and (piece := await call.request.body.read()):
            size += len(piece)
            pieces.append(piece)
    if size > MAX_MANIFEST_BYTES:
        raise ManifestTooLarge(f"the manifest is larger than {MAX_MANIFEST_BYTES} bytes")
    return b"".join(pieces)


def _declared(body: bytes) -> str:
    """The media type that a manifest without a Content-Type claims to be."""
    try:
        declared: Any = json.loads(body)["mediaType"]
    except (ValueError, KeyError, TypeError, RecursionError):
        declared = None
    if not isinstance(declared, str):
        raise ManifestInvalid("the Content-Type is missing: it says what kind of manifest this is")
    return declared


async def delete_manifest(service: Service, call: Call) -> HttpResponse:
    """A tag alone, or a manifest with all its tags. Raises ManifestUnknown."""
    repository, reference = call.route.repository, call.route.reference
    digest = await service.work(service.registry.manifests.delete, repository, reference)
    service.deleted(call, digest)
    return HttpResponse(202)


async def list_referrers(service: Service, call: Call) -> HttpResponse:
    """An index of the manifests whose subject is the digest; empty when there are none."""
    repository, subject = call.route.repository, call.route.reference
    found = await service.work(service.registry.manifests.referrers, repository, subject)
    headers = {}
    wanted = call.text("artifactType")
    if wanted:
        found = [entry for entry in found if entry.get("artifactType") == wanted]
        headers["OCI-Filters-Applied"] = "artifactType"
    last = call.text("last")
    if last:
        found = [entry for entry in found if entry["digest"] > last]
    page = found[:_REFERRERS_A_PAGE]
    if len(found) > len(page):
        more = {"artifactType": wanted} if wanted else {}
        path = f"/v2/{repository}/referrers/{subject}"
        headers["Link"] = next_link(path, {**more, "last": page[-1]["digest"]})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": page}
    answer = json_answer(index, kind=INDEX)
    answer.headers.update(headers)
    return answer
