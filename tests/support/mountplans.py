"""The mounts that a request comes to, with images and other containers made up."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from estiba.containers.mounts import plan_mounts
from estiba.containers.record import ContainerRecord, MountPlan
from estiba.model.container import (
    Config,
    HostConfig,
)
from estiba.model.digest import Digest
from estiba.model.errors import NotFound


@dataclass(frozen=True)
class MountedImage:
    id: Digest
    layers: list[Digest]


def planned(
    host: HostConfig | None = None,
    *,
    volumes: Iterable[str] = (),
    others: dict[str, ContainerRecord] | None = None,
) -> list[MountPlan]:
    def find(name: str) -> ContainerRecord:
        if name not in (others or {}):
            raise NotFound(f"No such container: {name}")
        return (others or {})[name]

    def find_image(name: str) -> MountedImage:
        return MountedImage(f"sha256:{name}", ["sha256:below", "sha256:above"])

    numbers = itertools.count(1)
    config = Config(volumes={path: {} for path in volumes})
    return plan_mounts(
        config,
        host or HostConfig(),
        find=find,
        find_image=find_image,
        driver_of=lambda name: "local",
        new_name=lambda: f"new{next(numbers)}",
        data_root="/var/lib/estiba",
    )
