"""A repository of a registry: manifests, blobs, tags, referrers (distribution-spec 1.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

from estiba.distribution.blobs import BlobStream
from estiba.distribution.cancel import CancelToken
from estiba.distribution.content import MANIFEST_TYPES, Content, FetchedManifest, Referrer
from estiba.distribution.credentials import ANONYMOUS, Credentials
from estiba.distribution.settings import RegistrySettings
from estiba.model.digest import Digest
from estiba.model.errors import NotImplemented
from estiba.model.reference import Reference


class Hasher(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Source(Protocol):
    """What is uploaded. One that also has `seek(offset)` can be resumed anywhere."""

    def read(self, size: int, /) -> bytes: ...


class Repository:
    """Lives as long as a job; its methods block and may be called from several threads.

    Pulls ask the mirrors first, in turn, then the registry itself. With `push` the registry alone
    is asked, for the right to write too. Every method raises Unauthorized or Forbidden for
    refused credentials, Unavailable for a registry that does not answer in time or as it should,
    and Cancelled once `cancel` is.
    """

    def __init__(
        self,
        reference: Reference,
        settings: RegistrySettings,
        credentials: Credentials = ANONYMOUS,
        *,
        push: bool = False,
        cancel: CancelToken | None = None,
    ) -> None:
        """Raises InvalidArgument for a name that breaks the grammar of references."""
        self.reference = reference
        self.cancel = cancel or CancelToken()
        self._settings = settings
        self._credentials = credentials
        self._push = push

    def close(self) -> None:
        """Closes idle connections."""

    def __enter__(self) -> Repository:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    # -- manifests ---------------------------------------------------------------------------

    def resolve(self, target: str) -> Content:
        """What a tag or digest stands for now, without fetching it where the registry allows.

        Raises NotFound.
        """
        raise NotImplemented("registries cannot be asked yet")

    def manifest(self, target: str, *, accept: Sequence[str] = MANIFEST_TYPES) -> FetchedManifest:
        """A manifest or index by tag or digest.

        Raises NotFound, LimitExceeded beyond 4 MiB, DataLoss for a wrong digest,
        InvalidArgument for Docker's schema 1 and what is no manifest.
        """
        raise NotImplemented("registries cannot be asked yet")

    def put_manifest(self, target: str, body: bytes, media_type: str) -> Content:
        """Stores `body` under a tag or its digest. Raises InvalidArgument when refused."""
        raise NotImplemented("registries cannot be asked yet")

    def delete_manifest(self, digest: Digest) -> None:
        """Raises NotFound; NotImplemented where the registry deletes nothing."""
        raise NotImplemented("registries cannot be asked yet")

    # -- blobs -------------------------------------------------------------------------------

    def blob(
        self, digest: Digest, size: int, *, offset: int = 0, hasher: Hasher | None = None
    ) -> BlobStream:
        """The bytes from `offset` on. `hasher` has taken those before it.

        Without `hasher` and with an offset the caller checks the digest. Raises NotFound.
        """
        raise NotImplemented("registries cannot be asked yet")

    def read_blob(self, digest: Digest, size: int) -> bytes:
        """A small blob whole, checked. Raises NotFound, DataLoss, LimitExceeded beyond 16 MiB."""
        raise NotImplemented("registries cannot be asked yet")

    def has_blob(self, digest: Digest) -> bool:
        raise NotImplemented("registries cannot be asked yet")

    def mount_blob(self, digest: Digest, origin: str) -> bool:
        """Takes over a blob of the repository `origin` (a path) of the same registry.

        False when the registry wants it uploaded.
        """
        raise NotImplemented("registries cannot be asked yet")

    def upload_blob(
        self,
        source: Source,
        *,
        size: int | None = None,
        digest: Digest | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Content:
        """Uploads `source`; in one request when `size` and `digest` are known beforehand.

        `progress` hears how many bytes of it the registry has been sent. Raises DataLoss when
        `source` is not what `size` and `digest` say.
        """
        raise NotImplemented("registries cannot be asked yet")

    # -- lists -------------------------------------------------------------------------------

    def tags(self) -> list[str]:
        """Raises NotFound, LimitExceeded beyond 100,000 of them."""
        raise NotImplemented("registries cannot be asked yet")

    def referrers(self, digest: Digest, artifact_type: str = "") -> list[Referrer]:
        """What names `digest` as its subject; none is an empty list."""
        raise NotImplemented("registries cannot be asked yet")
