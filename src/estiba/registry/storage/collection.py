"""Garbage collection, also while the registry serves: mark, sweep, and a grace period.

Everything younger than the grace period is spared: uploads by their last byte, links by their
time. Pushing renews what it relies on (a HEAD or a mount of a blob, a manifest that refers to
it), and a link is taken away only after another look at its time under the lock of its digest;
so what a push relies on is young when the sweep comes. A blob without links is not deleted but
doomed (see `contents.py`) and deleted by a collection one grace period later.

An error while marking ends the collection before anything is swept.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from estiba.kernel import failpoint
from estiba.model.digest import Digest, parse_digest
from estiba.model.errors import Cancelled, EstibaError, InvalidArgument
from estiba.registry.storage import keys
from estiba.registry.storage.catalog import links, walk_repositories
from estiba.registry.storage.contents import MAX_LINK_BYTES, Contents
from estiba.registry.storage.documents import Document, parse_manifest
from estiba.registry.storage.errors import BlobUnknown, ManifestInvalid, ManifestTooLarge
from estiba.registry.storage.manifests import StoredManifests
from estiba.registry.storage.uploads import StoredUploads

log = logging.getLogger(__name__)

_DIGESTS = re.compile(rb"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


@dataclass(slots=True)
class Report:
    """What one collection did; `str` is one line."""

    repositories: int = 0
    manifests: int = 0
    uploads_expired: int = 0
    manifests_deleted: int = 0
    links_deleted: int = 0
    blobs_kept: int = 0
    blobs_doomed: int = 0
    blobs_deleted: int = 0
    bytes_deleted: int = 0

    def __str__(self) -> str:
        return ", ".join(
            f"{getattr(self, each.name)} {each.name.replace('_', ' ')}" for each in fields(self)
        )


@dataclass(slots=True)
class _Manifest:
    refers: frozenset[Digest]
    document: Document | None


@dataclass(slots=True)
class Collection:
    """One run. With `alone` nobody else uses the storage, and blobs are deleted at once."""

    manifests: StoredManifests
    uploads: StoredUploads
    delete_untagged: bool = False
    alone: bool = False
    stopped: Callable[[], bool] = lambda: False
    report: Report = field(default_factory=Report)
    _keep: set[Digest] = field(default_factory=set)

    def run(self) -> Report:
        """Raises OSError, and Cancelled once `stopped` says so."""
        for repository in walk_repositories(self._contents.driver):
            self._pause_point()
            self.report.repositories += 1
            self._expire_uploads(repository)
            self._mark(repository)
        failpoint.hit("registry.marked")
        self._sweep_blobs()
        self._sweep_doomed()
        return self.report

    @property
    def _contents(self) -> Contents:
        return self.manifests.blobs.contents

    def _pause_point(self) -> None:
        if self.stopped():
            raise Cancelled("the collection was stopped")

    def _is_old(self, mtime: float) -> bool:
        return self._contents.clock() - mtime >= self._contents.grace

    def _expire_uploads(self, repository: str) -> None:
        for entry in list(self._contents.driver.list(keys.uploads(repository))):
            is_idle = functools.partial(self._is_idle, repository, entry.name)
            if is_idle() and self.uploads.expire(repository, entry.name, is_idle):
                self.report.uploads_expired += 1

    def _is_idle(self, repository: str, upload: str) -> bool:
        """Its last byte is long ago. What is empty is just being made."""
        found = list(self._contents.driver.walk(keys.upload(repository, upload)))
        return bool(found) and self._is_old(max(stat.mtime for _, stat in found))

    def _mark(self, repository: str) -> None:
        """Notes what the repository needs, and lets go of what it does not."""
        revisions = links(self._contents.driver, keys.revisions(repository))
        read = {digest: self._read(repository, digest) for digest in revisions}
        self.report.manifests += len(read)
        if self.delete_untagged:
            self._delete_untagged(repository, read, revisions)
        needed = {digest for manifest in read.values() for digest in manifest.refers}
        self._keep |= needed | read.keys()
        for digest, mtime in links(self._contents.driver, keys.layers(repository)).items():
            target = self._target(repository, digest)
            spared = digest in needed or target in needed or not self._is_old(mtime)
            if spared or not self._unlink(repository, digest, target):
                self._keep.add(target)

    def _read(self, repository: str, digest: Digest) -> _Manifest:
        """Whatever looks like a digest in it is kept, also where we do not understand it."""
        try:
            body = self._contents.read(digest)
        except BlobUnknown:
            return _Manifest(frozenset(), None)
        refers = frozenset(found.decode() for found in _DIGESTS.findall(body))
        try:
            document = parse_manifest(body)
        except (ManifestInvalid, ManifestTooLarge):
            return _Manifest(refers, None)
        self.manifests.referrers_index.ensure(repository, digest, len(body), document)
        return _Manifest(refers | {*document.contents, *document.children}, document)

    def _target(self, repository: str, digest: Digest) -> Digest:
        if digest.startswith("sha256:"):
            return digest
        with contextlib.suppress(FileNotFoundError, InvalidArgument):
            key = keys.layer_link(repository, digest)
            link = self._contents.driver.read(key, limit=MAX_LINK_BYTES)
            return parse_digest(link.decode("ascii", "replace"))
        return digest

    def _delete_untagged(
        self, repository: str, read: dict[Digest, _Manifest], revisions: dict[Digest, float]
    ) -> None:
        """Keeps what a tag or a young manifest leads to, and what has such a one as subject."""
        wanted = {digest for digest, mtime in revisions.items() if not self._is_old(mtime)}
        for tag in self.manifests.tag_names(repository):
            with contextlib.suppress(EstibaError):
                wanted.add(self.manifests.resolve(repository, tag))
        kept: set[Digest] = set()
        while wanted:
            kept |= wanted
            wanted = {d for digest in wanted if digest in read for d in read[digest].refers}
            wanted |= {d for d, m in read.items() if m.document and m.document.subject in kept}
            wanted = (wanted & read.keys()) - kept
        for digest in read.keys() - kept:
            if self._forget(repository, digest):
                del read[digest]

    def _forget(self, repository: str, digest: Digest) -> bool:
        with self._contents.locked(digest):
            try:
                stat = self._contents.driver.stat(keys.revision_link(repository, digest))
            except FileNotFoundError:
                return True
            if not self._is_old(stat.mtime):
                return False
            self.manifests.forget(repository, digest)
        self.report.manifests_deleted += 1
        return True

    def _unlink(self, repository: str, digest: Digest, target: Digest) -> bool:
        key = keys.layer_link(repository, digest)
        with self._contents.locked(target):
            try:
                if not self._is_old(self._contents.driver.stat(key).mtime):
                    return False
            except FileNotFoundError:
                return True
            self._contents.driver.delete(key)
            self._contents.usage.unlinked(repository, target)
        self.report.links_deleted += 1
        return True

    def _sweep_blobs(self) -> None:
        for key, stat in self._contents.driver.walk(keys.BLOBS):
            self._pause_point()
            parts = key.removeprefix(f"{keys.BLOBS}/").split("/")
            if len(parts) != 4 or parts[3] != "data":
                continue
            digest = f"{parts[0]}:{parts[2]}"
            if digest in self._keep or not self._is_old(stat.mtime):
                self.report.blobs_kept += 1
                continue
            with self._contents.locked(digest):
                self._sweep_blob(digest)

    def _sweep_blob(self, digest: Digest) -> None:
        with contextlib.suppress(FileNotFoundError):
            stat = self._contents.driver.stat(keys.blob(digest))
            if not self._is_old(stat.mtime):
                return
            if not self.alone:
                self._contents.doom(digest)
                self.report.blobs_doomed += 1
                return
            self._contents.driver.delete(keys.blob(digest))
            self._contents.usage.blob_removed(digest)
            self.report.blobs_deleted += 1
            self.report.bytes_deleted += stat.size

    def _sweep_doomed(self) -> None:
        driver = self._contents.driver
        for key, _ in list(driver.walk(keys.DOOMED)):
            path, dot, since = key.removeprefix(f"{keys.DOOMED}/").partition(".")
            if dot and since == "since":
                self._pause_point()
                with contextlib.suppress(FileNotFoundError):
                    doomed = driver.read(key, limit=MAX_LINK_BYTES)
                    if self.alone or not doomed.isdigit() or self._is_old(int(doomed)):
                        self._end_doom(path.replace("/", ":", 1))

    def _end_doom(self, digest: Digest) -> None:
        driver = self._contents.driver
        with self._contents.locked(digest):
            if digest in self._keep:
                with contextlib.suppress(BlobUnknown):
                    # Brings it back, unless it has come again.
                    self._contents.size(digest)
            with contextlib.suppress(FileNotFoundError):
                size = driver.stat(keys.doomed(digest)).size
                driver.delete(keys.doomed(digest))
                self.report.blobs_deleted += 1
                self.report.bytes_deleted += size
            driver.delete(keys.doomed_since(digest))


class PeriodicCollection:
    """Runs `collect` every `interval` seconds in a thread of its own, from `start` to `stop`."""

    def __init__(self, collect: Callable[[Callable[[], bool]], Report], interval: float) -> None:
        self._collect = collect
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collection", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                log.info("collection: %s", self._collect(self._stop.is_set))
            except Cancelled:
                return
            except (OSError, EstibaError) as error:
                log.error("the collection failed, nothing is lost: %s", error)
