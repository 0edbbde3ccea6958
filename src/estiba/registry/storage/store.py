"""`Store`: one registry's storage, put together over a driver."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from estiba.registry.storage import keys
from estiba.registry.storage.blobs import StoredBlobs
from estiba.registry.storage.catalog import StoredCatalog, links, walk_repositories
from estiba.registry.storage.collection import Collection, Report
from estiba.registry.storage.contents import DEFAULT_GRACE_SECONDS, Contents
from estiba.registry.storage.manifests import StoredManifests
from estiba.registry.storage.ports import Driver, Registry
from estiba.registry.storage.quota import Limits, Usage
from estiba.registry.storage.referrers import Referrers
from estiba.registry.storage.uploads import StoredUploads


class Store:
    """Opening it counts what is stored, if there are limits. Raises OSError."""

    def __init__(
        self,
        driver: Driver,
        *,
        limits: Limits | None = None,
        grace: float = DEFAULT_GRACE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.driver = driver
        self.usage = Usage(limits)
        self.contents = Contents(driver, self.usage, grace, clock)
        self.blobs = StoredBlobs(self.contents)
        self.uploads = StoredUploads(self.blobs)
        self.manifests = StoredManifests(self.blobs, Referrers(self.contents))
        self.catalog = StoredCatalog(self.contents)
        self._collecting = threading.Lock()
        self.count()

    @property
    def registry(self) -> Registry:
        """What a server serves."""
        return Registry(
            self.blobs, self.uploads, self.manifests, self.catalog, local=self.driver.local
        )

    def close(self) -> None:
        self.driver.close()

    def collect(
        self,
        stopped: Callable[[], bool] = lambda: False,
        *,
        delete_untagged: bool = False,
        alone: bool = False,
    ) -> Report:
        """Collects garbage; one collection at a time. Raises OSError, Cancelled."""
        with self._collecting:
            report = Collection(self.manifests, self.uploads, delete_untagged, alone, stopped).run()
            self.count()
        return report

    def count(self) -> None:
        """Counts anew what the limits limit; pushes go on meanwhile."""
        if not self.usage.counts:
            return
        sizes: dict[str, int] = {}
        with self.usage.counting():
            for key, stat in self.driver.walk(keys.BLOBS):
                parts = key.split("/")
                if parts[-1] == "data":
                    digest = f"{parts[-4]}:{parts[-2]}"
                    sizes[digest] = stat.size
                    self.usage.found_blob(digest, stat.size)
            if not self.usage.prefixes:
                return
            for repository in walk_repositories(self.driver):
                for prefix in (keys.layers(repository), keys.revisions(repository)):
                    for digest in links(self.driver, prefix):
                        with contextlib.suppress(KeyError):
                            self.usage.found_link(repository, digest, sizes[digest])
