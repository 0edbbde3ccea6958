"""Manifests of repositories: `Manifests` over a driver.

Written in the order blob, media type, revision link, referrer, tag: a crash between two of
them leaves a manifest that is whole and lacks its tag at worst.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from estiba.kernel import failpoint
from estiba.model.digest import Digest, digest_of, parse_digest
from estiba.model.errors import DataLoss, InvalidArgument
from estiba.registry.storage import keys
from estiba.registry.storage.blobs import StoredBlobs
from estiba.registry.storage.contents import MAX_LINK_BYTES
from estiba.registry.storage.documents import DOCKER_V1, Document, media_type_of, parse_manifest
from estiba.registry.storage.errors import (
    BlobUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameUnknown,
)
from estiba.registry.storage.ports import Page, PutManifest, StoredManifest
from estiba.registry.storage.referrers import Referrers

_CACHE_BYTES = 16 << 20
_PARALLEL = 8


@dataclass(slots=True)
class _Cache:
    """Bodies that were read lately; they never change. Whoever asks checks the link first."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _held: OrderedDict[tuple[str, Digest], StoredManifest] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def get(self, repository: str, digest: Digest) -> StoredManifest | None:
        with self._lock:
            found = self._held.get((repository, digest))
            if found is not None:
                self._held.move_to_end((repository, digest))
            return found

    def put(self, repository: str, manifest: StoredManifest) -> None:
        with self._lock:
            self._drop((repository, manifest.digest))
            self._held[repository, manifest.digest] = manifest
            self._bytes += len(manifest.body)
            while self._bytes > _CACHE_BYTES:
                self._drop(next(iter(self._held)))

    def drop(self, repository: str, digest: Digest) -> None:
        with self._lock:
            self._drop((repository, digest))

    def _drop(self, key: tuple[str, Digest]) -> None:
        if (gone := self._held.pop(key, None)) is not None:
            self._bytes -= len(gone.body)


@dataclass(slots=True)
class StoredManifests:
    """`Manifests`."""

    blobs: StoredBlobs
    referrers_index: Referrers
    _cache: _Cache = field(default_factory=_Cache)

    def get(self, repository: str, reference: str) -> StoredManifest:
        """Raises ManifestUnknown, DataLoss."""
        digest = self.resolve(repository, reference)
        driver = self.blobs.contents.driver
        try:
            driver.stat(keys.revision_link(repository, digest))
        except FileNotFoundError:
            raise _unknown(repository, reference) from None
        return self._cache.get(repository, digest) or self._load(repository, digest)

    def resolve(self, repository: str, reference: str) -> Digest:
        """The digest behind a tag. Raises ManifestUnknown."""
        if ":" in reference:
            return reference
        driver = self.blobs.contents.driver
        try:
            link = driver.read(keys.tag_link(repository, reference), limit=MAX_LINK_BYTES)
            return parse_digest(link.decode("ascii", "replace"))
        except (FileNotFoundError, InvalidArgument):
            raise _unknown(repository, reference) from None

    def _load(self, repository: str, digest: Digest) -> StoredManifest:
        contents = self.blobs.contents
        try:
            body = contents.read(digest)
        except BlobUnknown:
            raise _unknown(repository, digest) from None
        media_type, says_so = media_type_of(body)
        # What docker-registry keeps of a signed manifest of version 1 has another digest.
        if media_type != DOCKER_V1 and _digest(body, like=digest) != digest:
            raise DataLoss(f"manifest {digest} of {repository} is damaged: push it again")
        if not says_so:
            with contextlib.suppress(FileNotFoundError):
                media_type = contents.driver.read(keys.media_type(repository, digest)).decode()
        manifest = StoredManifest(digest, media_type, body)
        self._cache.put(repository, manifest)
        return manifest

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
        QuotaExceeded."""
        document = parse_manifest(body, media_type)
        if document.media_type.startswith("application/vnd.docker.distribution.manifest.v1+"):
            raise ManifestInvalid("manifests of schema version 1 are not accepted: push again")
        actual = _digest(body, like=digest or "sha256:")
        if digest is not None and actual != digest:
            raise DigestInvalid(f"the manifest is {actual}, not {digest}", digest=digest)
        self._check_references(repository, document)
        self._store(repository, actual, body, document)
        if not self.blobs.contents.driver.local:
            # Another instance's collection may have passed between the check and the link.
            self._check_references(repository, document)
        if tag is not None:
            self._tag(repository, tag, actual)
        return PutManifest(actual, document.subject)

    def keep(self, repository: str, manifest: StoredManifest, *, tag: str | None) -> None:
        """Stores what another registry vouches for; what it refers to may come later.

        Raises ManifestInvalid, ManifestTooLarge, QuotaExceeded.
        """
        document = replace(parse_manifest(manifest.body), media_type=manifest.media_type)
        self._store(repository, manifest.digest, manifest.body, document)
        if tag is not None:
            self._tag(repository, tag, manifest.digest)

    def _check_references(self, repository: str, document: Document) -> None:
        """Raises ManifestBlobUnknown for what the repository does not hold, ManifestInvalid for
        another size than it has."""

        def blob(digest: Digest) -> None:
            check_size(digest, self.blobs.stat(repository, digest).size)

        def child(digest: Digest) -> None:
            key = keys.revision_link(repository, digest)
            if not self.blobs.contents.renew(key, digest):
                raise BlobUnknown(f"manifest {digest} is not known to {repository}", digest=digest)
            check_size(digest, self.blobs.contents.size(digest))

        def check_size(digest: Digest, size: int) -> None:
            if size != document.sizes[digest]:
                raise ManifestInvalid(
                    f"the manifest says that {digest} has {document.sizes[digest]} bytes, "
                    f"it has {size}",
                    digest=digest,
                )

        try:
            self._each(blob, document.blobs)
            self._each(child, document.children)
        except BlobUnknown as error:
            raise ManifestBlobUnknown(
                f"the manifest refers to what is not there: {error}", **error.detail
            ) from error

    def _each(self, work: Callable[[Digest], None], digests: Iterable[Digest]) -> None:
        if self.blobs.contents.driver.local:
            for digest in digests:
                work(digest)
            return
        with ThreadPoolExecutor(_PARALLEL) as pool:
            for _ in pool.map(work, digests):
                pass

    def _store(self, repository: str, digest: Digest, body: bytes, document: Document) -> None:
        contents = self.blobs.contents
        with contents.locked(digest):
            contents.usage.check_link(repository, digest, len(body))
            contents.add_bytes(digest, body)
            self._note_media_type(repository, digest, body, document.media_type)
            contents.usage.linked(repository, digest, len(body))
            contents.link(keys.revision_link(repository, digest), digest)
            self._cache.drop(repository, digest)
        self.referrers_index.add(repository, digest, len(body), document)
        failpoint.hit("registry.revision")

    def _note_media_type(
        self, repository: str, digest: Digest, body: bytes, media_type: str
    ) -> None:
        """Beside the link, where the body does not tell."""
        found, says_so = media_type_of(body)
        key = keys.media_type(repository, digest)
        if found != media_type:
            self.blobs.contents.driver.write(key, media_type.encode())
        elif not says_so:
            self.blobs.contents.driver.delete(key)

    def _tag(self, repository: str, tag: str, digest: Digest) -> None:
        driver = self.blobs.contents.driver
        # The current one first: a tag without it must not be seen.
        driver.write(keys.tag_link(repository, tag), digest.encode())
        failpoint.hit("registry.tagged")
        driver.write(keys.tag_index_link(repository, tag, digest), digest.encode())

    def delete(self, repository: str, reference: str) -> Digest:
        """A digest takes the manifest and all its tags away, a tag only itself."""
        digest = self.resolve(repository, reference)
        driver = self.blobs.contents.driver
        if reference != digest:
            driver.delete_tree(keys.tag(repository, reference))
            return digest
        try:
            driver.stat(keys.revision_link(repository, digest))
        except FileNotFoundError:
            raise _unknown(repository, digest) from None
        for tag in self.tag_names(repository):
            with contextlib.suppress(ManifestUnknown):
                if self.resolve(repository, tag) == digest:
                    driver.delete_tree(keys.tag(repository, tag))
        self.forget(repository, digest)
        return digest

    def forget(self, repository: str, digest: Digest) -> None:
        """The repository no longer holds this manifest, which has no tag."""
        contents = self.blobs.contents
        with contextlib.suppress(BlobUnknown, ManifestInvalid):
            self.referrers_index.remove(repository, digest, parse_manifest(contents.read(digest)))
        with contents.locked(digest):
            contents.driver.delete_tree(keys.revision(repository, digest))
            contents.usage.unlinked(repository, digest)
            self._cache.drop(repository, digest)

    def tag_names(self, repository: str) -> list[str]:
        driver = self.blobs.contents.driver
        return sorted(e.name for e in driver.list(keys.tags(repository)) if e.stat is None)

    def tags(self, repository: str, *, limit: int | None = None, last: str = "") -> Page:
        """Raises NameUnknown."""
        names = self.tag_names(repository)
        if not names and not self._exists(repository):
            raise NameUnknown(f"repository {repository} is not known to the registry")
        names = [name for name in names if name > last]
        if limit is None or len(names) <= limit:
            return Page(names)
        return Page(names[:limit], more=True)

    def _exists(self, repository: str) -> bool:
        driver = self.blobs.contents.driver
        return any(e.name.startswith("_") for e in driver.list(keys.repository(repository)))

    def referrers(self, repository: str, subject: Digest) -> list[dict[str, Any]]:
        return self.referrers_index.of(repository, subject)


def _digest(body: bytes, *, like: str) -> Digest:
    """The digest of `body` in the algorithm of `like`."""
    if like.startswith("sha512:"):
        return "sha512:" + hashlib.sha512(body).hexdigest()
    return digest_of(body)


def _unknown(repository: str, reference: str) -> ManifestUnknown:
    return ManifestUnknown(
        f"manifest {reference} is not known to the repository {repository}", reference=reference
    )
