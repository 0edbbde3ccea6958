"""What `manifest` asks of registries."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from estiba.cli.manifests import ordered_platform
from estiba.cli.manifeststore import Entry
from estiba.cli.refs import reference
from estiba.client import credentials
from estiba.client.errors import ClientError
from estiba.client.jsonlite import dumps, loads
from estiba.distribution.blobs import BlobStream
from estiba.distribution.content import FetchedManifest
from estiba.distribution.credentials import credentials_from
from estiba.distribution.proxies import Proxies
from estiba.distribution.repository import Repository
from estiba.distribution.settings import RegistrySettings
from estiba.model.digest import Digest, parse_digest
from estiba.model.errors import EstibaError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from estiba.model.reference import Reference

_MOST_MEMBERS = 1000


@contextmanager
def _opened(place: Reference, *, insecure: bool, push: bool = False) -> Iterator[Repository]:
    """Raises ClientError for all that goes wrong with the registry."""
    settings = RegistrySettings(
        insecure=(place.domain,) if insecure else (),
        proxies=Proxies.from_environment(os.environ),
    )
    try:
        known = credentials_from(credentials.usable(place.domain))
        with Repository(place, settings, known, push=push) as repository:
            yield repository
    except EstibaError as error:
        raise ClientError(str(error)) from error


def fetch(wanted: Reference, *, insecure: bool) -> Entry:
    """One manifest. Raises ClientError, for a list too."""
    found = fetch_any(wanted, insecure=insecure)
    if isinstance(found, Entry):
        return found
    raise ClientError(f"{wanted} is a manifest list")


def fetch_any(wanted: Reference, *, insecure: bool) -> Entry | list[Entry]:
    """A manifest, or all those of a list. Raises ClientError."""
    with _opened(wanted, insecure=insecure) as repository:
        fetched = _fetched(repository, wanted)
        if not fetched.content.is_index:
            return _entry(repository, wanted, fetched)
        members = _object(fetched.body).get("manifests")
        if not isinstance(members, list) or len(members) > _MOST_MEMBERS:
            raise ClientError(f"{wanted} is no list of at most {_MOST_MEMBERS} manifests")
        return [_member(repository, wanted, descriptor) for descriptor in members]


def _fetched(repository: Repository, place: Reference) -> FetchedManifest:
    """Raises ClientError when there is none of that name."""
    try:
        return repository.manifest(str(place.digest or place.tag))
    except NotFound:
        raise ClientError(f"no such manifest: {place}") from None


def _member(repository: Repository, wanted: Reference, descriptor: Any) -> Entry:
    """With the platform that the list has for it."""
    try:
        digest = parse_digest(str(descriptor["digest"]))
        platform = dict(descriptor.get("platform") or {})
    except (EstibaError, KeyError, TypeError, ValueError):
        raise ClientError(f"{wanted}: the list has a descriptor without a digest") from None
    place = replace(wanted, digest=digest)
    entry = _entry(repository, place, _fetched(repository, place))
    changed = entry.descriptor | {"platform": ordered_platform(platform)}
    return replace(entry, descriptor=changed)


def _entry(repository: Repository, place: Reference, fetched: FetchedManifest) -> Entry:
    """With the platform that its config has."""
    if fetched.content.is_index:
        raise ClientError(f"{place}: a list within a list")
    config = _object(fetched.body).get("config")
    digest, size = _described(config, place)
    platform = ordered_platform(_object(repository.read_blob(digest, size)))
    descriptor = {
        "mediaType": fetched.content.media_type,
        "digest": str(fetched.content.digest),
        "size": fetched.content.size,
        "platform": platform,
    }
    return Entry(str(place), descriptor, fetched.body)


def _object(data: bytes) -> dict[str, Any]:
    """Raises ClientError for what is no JSON object."""
    try:
        content = loads(data)
        # What is too deep to be written is refused, too.
        dumps(content)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ClientError("the registry's answer is not a JSON object")
    return content


def _described(descriptor: Any, place: Reference) -> tuple[Digest, int]:
    """Raises ClientError."""
    try:
        return parse_digest(str(descriptor["digest"])), int(descriptor["size"])
    except (EstibaError, KeyError, TypeError, ValueError):
        raise ClientError(f"{place}: the manifest has a damaged descriptor") from None


def push(
    target: Reference, entries: list[Entry], kind: str, body: bytes, *, insecure: bool
) -> Digest:
    """The list's digest. Manifests of other repositories come along. Raises ClientError."""
    with _opened(target, insecure=insecure, push=True) as repository:
        for entry in entries:
            origin = reference(entry.reference)
            if origin.path != target.path:
                _take_over(repository, target, entry, origin, insecure=insecure)
        return repository.put_manifest(target.tag or "latest", body, kind).digest


def _take_over(
    repository: Repository, target: Reference, entry: Entry, origin: Reference, *, insecure: bool
) -> None:
    manifest = _object(entry.raw)
    layers = manifest.get("layers")
    for descriptor in [manifest.get("config"), *(layers if isinstance(layers, list) else [])]:
        digest, size = _described(descriptor, origin)
        if not repository.mount_blob(digest, origin.path):
            with _opened(origin, insecure=insecure) as source:
                _copy(source, repository, digest, size)
    digest = parse_digest(entry.descriptor["digest"])
    stored = repository.put_manifest(str(digest), entry.raw, entry.descriptor["mediaType"])
    place = replace(target, tag=None, digest=digest)
    print(f"Pushed ref {place} with digest: {stored.digest}")
    sys.stdout.flush()


def _copy(source: Repository, target: Repository, digest: Digest, size: int) -> None:
    def opened() -> BlobStream:
        return streams.enter_context(source.blob(digest, size))

    with ExitStack() as streams:
        target.upload_blob(opened(), size=size, digest=digest, reopen=opened)
