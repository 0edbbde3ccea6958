"""From settings to a storage that serves, and `gc` on one that nobody serves."""

from __future__ import annotations

from functools import partial

from estiba.registry.storage.cached_blobs import CachedBlobs, NoUploads
from estiba.registry.storage.cached_manifests import CachedManifests
from estiba.registry.storage.collection import PeriodicCollection, Report
from estiba.registry.storage.file_driver import FileDriver
from estiba.registry.storage.ports import Driver, Registry
from estiba.registry.storage.s3_driver import S3Driver
from estiba.registry.storage.settings import StorageSettings
from estiba.registry.storage.store import Store
from estiba.registry.storage.upstream import UpstreamClient


class Storage:
    """Opening it takes the root. `start` begins what goes on by itself; `close` ends it.

    Raises Conflict when another process has the root, InvalidArgument, OSError.
    """

    def __init__(self, settings: StorageSettings) -> None:
        self.store = _store(settings)
        self.registry: Registry = self.store.registry
        self._cache: CachedBlobs | None = None
        if settings.upstream is not None:
            client = UpstreamClient(settings.upstream)
            self._cache = CachedBlobs(self.store.blobs, self.store.uploads, client, settings.root)
            self.registry = Registry(
                self._cache,
                NoUploads(),
                CachedManifests(self.store.manifests, client),
                self.store.catalog,
                read_only=True,
            )
        self._collection: PeriodicCollection | None = None
        if settings.interval:
            collect = partial(self.store.collect, delete_untagged=settings.delete_untagged)
            self._collection = PeriodicCollection(collect, settings.interval)

    def start(self) -> None:
        if self._collection is not None:
            self._collection.start()

    def close(self) -> None:
        if self._collection is not None:
            self._collection.stop()
        if self._cache is not None:
            self._cache.close()
        self.store.close()


def _store(settings: StorageSettings) -> Store:
    driver = _driver(settings)
    try:
        return Store(driver, limits=settings.limits, grace=settings.grace)
    except BaseException:
        driver.close()
        raise


def _driver(settings: StorageSettings) -> Driver:
    if settings.s3 is None:
        return FileDriver(settings.root)
    driver = S3Driver(settings.s3)
    driver.check()
    return driver


def collect_once(settings: StorageSettings) -> Report:
    """`gc`: a root of files is nobody else's meanwhile, a bucket may be served.

    Raises Conflict when a registry serves the root, OSError.
    """
    store = _store(settings)
    try:
        return store.collect(delete_untagged=settings.delete_untagged, alone=settings.s3 is None)
    finally:
        store.close()
