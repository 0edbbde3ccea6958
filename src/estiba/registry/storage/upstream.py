"""The registry that a cache is of, asked through `distribution`; its errors as the storage's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from estiba.distribution.cancel import CancelToken
from estiba.distribution.content import FetchedManifest
from estiba.distribution.repository import Repository
from estiba.model.digest import Digest
from estiba.model.errors import DataLoss, Forbidden, NotFound, Unauthorized, Unavailable
from estiba.model.reference import DEFAULT_DOMAIN, Reference
from estiba.registry.storage.errors import (
    BlobUnknown,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
)
from estiba.registry.storage.ports import StoredManifest
from estiba.registry.storage.settings import Upstream

_QUICK = {"attempts": 2, "connect_timeout_s": 5.0, "read_timeout_s": 15.0}


class UpstreamClient:
    """Each call is a job of its own. All raise Unavailable when the registry does not answer."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.cancel = CancelToken()
        # A client waits for the answer meanwhile, or for a stale one.
        self._quick = replace(upstream.settings, **_QUICK)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def repository(self, name: str, *, quick: bool = True) -> Iterator[Repository]:
        path = f"{self.upstream.prefix}/{name}" if self.upstream.prefix else name
        if self.upstream.domain == DEFAULT_DOMAIN and "/" not in path:
            path = f"library/{path}"
        settings = self._quick if quick else self.upstream.settings
        with Repository(
            Reference(self.upstream.domain, path),
            settings,
            self.upstream.credentials,
            cancel=self.cancel,
        ) as repository:
            yield repository

    def blob_size(self, name: str, digest: Digest) -> int:
        """Raises BlobUnknown."""
        with _unknown(BlobUnknown, f"blob {digest}"), self.repository(name) as repository:
            size = repository.blob_size(digest)
        if size is None:
            raise BlobUnknown(f"blob {digest} is not known to {self.upstream.domain}")
        return size

    def digest(self, name: str, tag: str) -> Digest:
        """What the tag stands for now. Raises ManifestUnknown."""
        with _unknown(ManifestUnknown, f"tag {tag}"), self.repository(name) as repository:
            return repository.resolve(tag).digest

    def manifest(self, name: str, digest: Digest) -> StoredManifest:
        """Raises ManifestUnknown."""
        with _unknown(ManifestUnknown, f"manifest {digest}"), self.repository(name) as repository:
            found: FetchedManifest = repository.manifest(digest)
        return StoredManifest(digest, found.content.media_type, found.body)

    def tags(self, name: str) -> list[str]:
        """Raises NameUnknown."""
        with _unknown(NameUnknown, f"repository {name}"), self.repository(name) as repository:
            return repository.tags()

    def referrers(self, name: str, subject: Digest) -> list[dict[str, object]]:
        """Raises NameUnknown."""
        with _unknown(NameUnknown, f"repository {name}"), self.repository(name) as repository:
            found = repository.referrers(subject)
        return [
            {
                "mediaType": each.content.media_type,
                "digest": each.content.digest,
                "size": each.content.size,
                **({"artifactType": each.artifact_type} if each.artifact_type else {}),
                **({"annotations": each.annotations} if each.annotations else {}),
            }
            for each in sorted(found, key=lambda each: each.content.digest)
        ]


@contextlib.contextmanager
def _unknown(kind: type[RegistryError], what: str) -> Iterator[None]:
    """What the other registry does not have, or does not give to us, is unknown here.

    Its 401 and 403 are about our credentials there, and say nothing about the client's here.
    """
    try:
        yield
    except NotFound as error:
        raise kind(f"{what} is not known: {error}") from error
    except (Unauthorized, Forbidden) as error:
        raise kind(f"{what} is not given to this cache: {error}") from error
    except DataLoss as error:
        raise Unavailable(f"the other registry sends what it should not: {error}") from error
