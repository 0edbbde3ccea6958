"""Which manifests have a given one as their subject (distribution-spec 1.1, referrers).

An entry holds the descriptor that the API answers with. Repositories that docker-registry
filled have no entries: the first question reads all their manifests once, and every collection
adds what is missing.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import msgspec

from estiba.model.digest import Digest
from estiba.registry.storage import keys
from estiba.registry.storage.catalog import links
from estiba.registry.storage.contents import Contents
from estiba.registry.storage.documents import Document, parse_manifest
from estiba.registry.storage.errors import BlobUnknown, ManifestInvalid


@dataclass(slots=True)
class Referrers:
    """The index of one registry."""

    contents: Contents

    def of(self, repository: str, subject: Digest) -> list[dict[str, Any]]:
        """Descriptors sorted by digest."""
        self._complete(repository)
        found = []
        for entry in self.contents.driver.list(keys.referrers(repository, subject)):
            key = f"{keys.referrers(repository, subject)}/{entry.name}"
            with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
                found.append(msgspec.json.decode(self.contents.driver.read(key)))
        return sorted(found, key=lambda descriptor: str(descriptor.get("digest")))

    def add(self, repository: str, digest: Digest, size: int, document: Document) -> None:
        """Notes the manifest if it has a subject."""
        if document.subject is None:
            return
        descriptor: dict[str, Any] = {
            "mediaType": document.media_type,
            "digest": digest,
            "size": size,
        }
        if document.artifact_type:
            descriptor["artifactType"] = document.artifact_type
        if document.annotations:
            descriptor["annotations"] = document.annotations
        key = keys.referrer(repository, document.subject, digest)
        self.contents.driver.write(key, msgspec.json.encode(descriptor))

    def ensure(self, repository: str, digest: Digest, size: int, document: Document) -> None:
        """`add` unless it is there."""
        if document.subject is None:
            return
        try:
            self.contents.driver.stat(keys.referrer(repository, document.subject, digest))
        except FileNotFoundError:
            self.add(repository, digest, size, document)

    def remove(self, repository: str, digest: Digest, document: Document) -> None:
        if document.subject is not None:
            self.contents.driver.delete(keys.referrer(repository, document.subject, digest))

    def _complete(self, repository: str) -> None:
        driver = self.contents.driver
        with contextlib.suppress(FileNotFoundError):
            driver.stat(keys.referrers_complete(repository))
            return
        any_ = False
        for digest in links(driver, keys.revisions(repository)):
            any_ = True
            with contextlib.suppress(BlobUnknown, ManifestInvalid):
                body = self.contents.read(digest)
                self.ensure(repository, digest, len(body), parse_manifest(body))
        if any_:
            driver.write(keys.referrers_complete(repository), b"")
