"""What the HTTP side may ask of the storage, and what the storage asks of a driver.

Everything here blocks and is called from worker threads, several at once. With a driver that
is `local` the calls of `Blobs.stat`, `Blobs.open` and `Manifests.get` take microseconds.

Names, tags and digests were checked by `model`; keys are checked again by the driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from estiba.model.digest import Digest

MAX_MANIFEST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Stat:
    """Size in bytes and time of the last change in seconds since 1970."""

    size: int
    mtime: float


@dataclass(frozen=True, slots=True)
class Entry:
    """One child of a prefix: an object with its `stat`, or a further prefix without."""

    name: str
    stat: Stat | None


class Opened(Protocol):
    """An object open for reading; `read` returns b"" at the end.

    `fd`, when not None, is a descriptor of a file that holds the whole object: whoever sends it
    out of a mapping keeps its own position; `fd` is valid until `close`.
    """

    @property
    def size(self) -> int: ...
    @property
    def fd(self) -> int | None: ...
    def read(self, limit: int, /) -> bytes: ...
    def close(self) -> None: ...


class Appender(Protocol):
    """The one writer of an upload. What `close` has returned for is there after a crash.

    `abandon` closes it without a care for what came.
    """

    @property
    def size(self) -> int: ...
    @property
    def fd(self) -> int | None: ...
    def write(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


class Objects(Protocol):
    """Keys and bytes: `a/b/c` as in S3; a prefix exists as long as something is below it.

    A missing key raises FileNotFoundError, an invalid key ValueError, all else OSError.
    `list` gives one level below the prefix, `walk` all keys with their whole names; neither in
    any order. What is not `durable` may be lost with the power, not with the process.
    """

    @property
    def local(self) -> bool: ...
    def read(self, key: str, *, limit: int = MAX_MANIFEST_BYTES) -> bytes: ...
    def open(self, key: str, offset: int = 0) -> Opened: ...
    def write(self, key: str, data: bytes, *, durable: bool = True) -> None: ...
    def stat(self, key: str) -> Stat: ...
    def list(self, prefix: str) -> Iterator[Entry]: ...
    def walk(self, prefix: str) -> Iterator[tuple[str, Stat]]: ...
    def delete(self, key: str) -> None: ...
    def delete_tree(self, prefix: str) -> None: ...
    def move(self, source: str, destination: str) -> None: ...


class Driver(Objects, Protocol):
    """Objects, and uploads that grow: `append` goes on where the last appender ended.

    `upload_size` of an upload that nobody wrote to is 0. `seal` turns the upload into an object
    of the same key; it may be called again. `location` is an address from which a client may
    fetch the object itself, if the driver is set up for that.
    """

    def append(self, key: str) -> Appender: ...
    def upload_size(self, key: str) -> int: ...
    def seal(self, key: str) -> None: ...
    def location(self, key: str, *, method: str) -> str | None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class BlobInfo:
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it was pushed; by digest it never changes."""

    digest: Digest
    media_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class PutManifest:
    """`subject` is set when the manifest has one: answer with OCI-Subject."""

    digest: Digest
    subject: Digest | None


@dataclass(frozen=True, slots=True)
class Page:
    """Sorted names; `more` when there are further ones after the last."""

    names: list[str] = field(default_factory=list)
    more: bool = False


class Blobs(Protocol):
    """Blobs as members of repositories. All raise BlobUnknown for what is not in there."""

    def stat(self, repository: str, digest: Digest) -> BlobInfo: ...
    def open(self, repository: str, digest: Digest, offset: int = 0) -> Opened: ...

    def location(self, repository: str, digest: Digest, *, method: str = "GET") -> str | None:
        """Where to redirect the client to; None: serve it from `open`."""

    def mount(self, repository: str, digest: Digest, *, source: str) -> BlobInfo | None:
        """The blob of `source` becomes one of `repository` too; None: it is not in `source`.

        Raises QuotaExceeded.
        """

    def delete(self, repository: str, digest: Digest) -> None: ...


class UploadWriter(Protocol):
    """One request's write to an upload; a context manager. Keeps what came if it breaks off."""

    @property
    def offset(self) -> int: ...

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Raises QuotaExceeded; the upload is gone then."""

    def __enter__(self) -> UploadWriter: ...
    def __exit__(self, *_: object) -> None: ...


class Uploads(Protocol):
    """Uploads under way. All but `begin` raise UploadUnknown; survive a restart."""

    def begin(self, repository: str) -> str:
        """The new upload's id. Raises QuotaExceeded when the repository is full already."""

    def offset(self, repository: str, upload: str) -> int: ...

    def append(self, repository: str, upload: str, *, offset: int | None = None) -> UploadWriter:
        """Raises OffsetInvalid unless `offset` is where the upload ends (None: wherever), and
        UploadInvalid when another request is writing to it."""

    def finish(self, repository: str, upload: str, digest: Digest) -> BlobInfo:
        """Raises DigestInvalid, and the upload is gone then."""

    def cancel(self, repository: str, upload: str) -> None: ...


class Manifests(Protocol):
    """Manifests of repositories by tag or digest; `reference` is either."""

    def get(self, repository: str, reference: str) -> StoredManifest:
        """Raises ManifestUnknown, DataLoss."""

    def put(
        self,
        repository: str,
        body: bytes,
        media_type: str,
        *,
        tag: str | None = None,
        digest: Digest | None = None,
    ) -> PutManifest:
        """Raises ManifestInvalid, ManifestTooLarge, ManifestBlobUnknown, DigestInvalid,
        QuotaExceeded. Without `digest` it gets its sha256."""

    def delete(self, repository: str, reference: str) -> Digest:
        """A digest takes the manifest and all its tags away, a tag only itself.

        Returns the manifest's digest. Raises ManifestUnknown.
        """

    def tags(self, repository: str, *, limit: int | None = None, last: str = "") -> Page:
        """Raises NameUnknown."""

    def referrers(self, repository: str, subject: Digest) -> list[dict[str, Any]]:
        """Descriptors with `artifactType` and `annotations`, sorted by digest; [] if none."""


class Catalog(Protocol):
    """All repositories."""

    def repositories(self, *, limit: int, last: str = "") -> Page:
        """Sorted by path component; at most `limit`."""

    def size(self, repository: str) -> int:
        """Bytes of the distinct blobs that the repository holds."""


@dataclass(frozen=True, slots=True)
class Registry:
    """What a server serves: a store of its own, or a cache of another registry.

    `local`: `Blobs.stat`, `Blobs.open` and `Manifests.get` take microseconds, so the event loop
    itself may call them.
    """

    blobs: Blobs
    uploads: Uploads
    manifests: Manifests
    catalog: Catalog
    read_only: bool = False
    local: bool = False
