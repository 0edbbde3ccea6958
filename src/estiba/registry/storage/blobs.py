"""Blobs as members of repositories: `Blobs` over a driver."""

from __future__ import annotations

from dataclasses import dataclass

from estiba.model.digest import Digest, parse_digest
from estiba.model.errors import InvalidArgument
from estiba.registry.storage import keys
from estiba.registry.storage.contents import MAX_LINK_BYTES, Contents
from estiba.registry.storage.errors import BlobUnknown
from estiba.registry.storage.ports import BlobInfo, Opened


@dataclass(slots=True)
class StoredBlobs:
    """`Blobs`; a repository holds what it has a link to."""

    contents: Contents

    def stat(self, repository: str, digest: Digest) -> BlobInfo:
        """Asking counts as use: who pushes asks first, and then relies on the answer."""
        if not self.contents.renew(keys.layer_link(repository, digest), digest):
            raise _not_held(repository, digest)
        return BlobInfo(digest, self.contents.size(self._target(repository, digest)))

    def open(self, repository: str, digest: Digest, offset: int = 0) -> Opened:
        return self.contents.open(self._target(repository, digest), offset)

    def _target(self, repository: str, digest: Digest) -> Digest:
        """docker-registry keeps a blob by its sha256 and lets links of other digests say so."""
        key = keys.layer_link(repository, digest)
        try:
            if digest.startswith("sha256:"):
                self.contents.driver.stat(key)
                return digest
            link = self.contents.driver.read(key, limit=MAX_LINK_BYTES)
            return parse_digest(link.decode("ascii", "replace"))
        except (FileNotFoundError, InvalidArgument) as error:
            raise _not_held(repository, digest) from error

    def location(self, repository: str, digest: Digest, *, method: str = "GET") -> str | None:
        target = self._target(repository, digest)
        where = self.contents.driver.location(keys.blob(target), method=method)
        if where is not None:
            self.contents.size(target)
        return where

    def mount(self, repository: str, digest: Digest, *, source: str) -> BlobInfo | None:
        """The blob of `source` becomes one of `repository` too; None: it is not in `source`."""
        try:
            size = self.stat(source, digest).size
        except BlobUnknown:
            return None
        target = self._target(source, digest)
        with self.contents.locked(target):
            self.contents.usage.check_link(repository, target, size)
            self.hold(repository, digest, size, target=target)
        return BlobInfo(digest, size)

    def hold(
        self, repository: str, digest: Digest, size: int, *, target: Digest | None = None
    ) -> None:
        """Links the blob. Hold its lock."""
        self.contents.usage.linked(repository, target or digest, size)
        self.contents.link(keys.layer_link(repository, digest), target or digest)

    def delete(self, repository: str, digest: Digest) -> None:
        """Only from this repository; the bytes go when nothing refers to them."""
        target = self._target(repository, digest)
        with self.contents.locked(target):
            self.contents.driver.delete(keys.layer_link(repository, digest))
            self.contents.usage.unlinked(repository, target)


def _not_held(repository: str, digest: Digest) -> BlobUnknown:
    return BlobUnknown(f"blob {digest} is not known to the repository {repository}", digest=digest)
