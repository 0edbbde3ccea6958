"""The parts that keep things on the disk: layers, images, snapshots, and what builds keep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from estiba.build.cache import Cache
from estiba.build.running.cache_mounts import CacheMounts
from estiba.containers.record import ContainerRecord
from estiba.daemon.config import DaemonConfig
from estiba.images.images import Images
from estiba.kernel.blocking import run_blocking
from estiba.model.digest import Digest
from estiba.model.errors import Conflict, EstibaError, NotFound
from estiba.model.image import Platform
from estiba.storage.content import ContentStore
from estiba.storage.layers import LayerStore
from estiba.storage.snapshots import SnapshotStore
from estiba.storage.unpack import Limits
from estiba.storage.workspaces import Workspaces
from estiba.store import Store
from estiba.volumes.volumes import Volumes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StorageParts:
    """All of one engine; nothing is opened yet."""

    limits: Limits
    images: Images
    snapshots: SnapshotStore
    workspaces: Workspaces
    build_cache: Cache
    cache_mounts: CacheMounts


def storage_parts(config: DaemonConfig, store: Store, platform: Platform) -> StorageParts:
    limits = Limits()
    layers = LayerStore(config.data_root / "images", limits)
    snapshots = SnapshotStore(config.data_root / "snapshots", layers)
    content = ContentStore(config.data_root / "images")
    build_root = config.data_root / "build"
    workspaces = Workspaces(build_root / "work", layers)
    build_cache = Cache(store, layers)

    def used_layers() -> set[Digest]:
        return snapshots.used_layers() | workspaces.used_layers() | build_cache.layers_kept()

    images = Images(layers, content, store, used_layers, platform)
    return StorageParts(limits, images, snapshots, workspaces, build_cache, CacheMounts(build_root))


async def remove_nameless(
    volumes: Volumes, record: ContainerRecord, users_of: Callable[[str], Collection[str]]
) -> None:
    """Removes the volumes that were made for a container which goes, where nobody else has them.

    One that its plugin keeps stays with a warning, as in Docker: the container goes all the same.
    """
    for name in record.anonymous_volumes:
        users = [user for user in users_of(name) if user != record.id]
        try:
            await run_blocking(volumes.remove, name, users=users)
        except (Conflict, NotFound):
            continue
        except (EstibaError, OSError) as error:
            _log.warning("a volume of container %s stays: %s", record.name, error)
