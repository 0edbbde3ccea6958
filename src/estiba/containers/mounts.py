"""Which mounts a container gets: binds, `--mount`, the image's volumes, `--volumes-from`. Pure.

A name of 64 hex digits is an anonymous volume, made for this container.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from estiba.containers.binds import (
    MAX_PATH,
    PROPAGATIONS,
    NewName,
    anonymous,
    check_volume_name,
    destination_of,
    parse_bind,
)
from estiba.containers.idmaps import ANNOTATION, parse_annotation
from estiba.containers.record import ContainerRecord, MountPlan
from estiba.model.container import BindOptions, Config, HostConfig, Mount
from estiba.model.digest import Digest
from estiba.model.errors import InvalidArgument
from estiba.runtime.mounts import tmpfs as check_tmpfs
from estiba.runtime.mounts import tmpfs_mount

_OPTIONS_OF = {
    "bind_options": "bind",
    "volume_options": "volume",
    "image_options": "image",
    "tmpfs_options": "tmpfs",
}


class SourceImage(Protocol):
    """What a mount reads of an image."""

    @property
    def id(self) -> Digest: ...

    @property
    def layers(self) -> list[Digest]: ...


FindImage = Callable[[str], SourceImage]


def plan_mounts(
    config: Config,
    host: HostConfig,
    *,
    find: Callable[[str], ContainerRecord],
    find_image: FindImage,
    driver_of: Callable[[str], str],
    new_name: NewName,
    data_root: str,
    read_only_recursive: bool = True,
) -> list[MountPlan]:
    """All mounts of a new container, one for each destination.

    `find` resolves the containers of `volumes_from`, `find_image` images to mount, `driver_of`
    X
    """
    plans: dict[str, MountPlan] = {}
    tmpfs = {destination_of(path) for path in host.tmpfs}
    for path, options in host.tmpfs.items():
        check_tmpfs(path, options)
    for source in host.volumes_from:
        for plan in _inherited(source, find):
            plans[plan.destination] = plan
    explicit = [parse_bind(bind, new_name, driver=host.volume_driver) for bind in host.binds]
    explicit += [_from_mount(mount, new_name, find_image) for mount in host.mounts]
    explicit = [_with_driver(plan, driver_of) for plan in explicit]
    explicit = [_settled(plan, data_root, read_only_recursive) for plan in explicit]
    seen: set[str] = set()
    for plan in explicit:
        if plan.destination in seen or plan.destination in tmpfs:
            raise InvalidArgument(f"Duplicate mount point: {plan.destination}")
        if plan.destination == "/proc" and plan.source != "/proc":
            raise InvalidArgument(
                "invalid mount config: /proc cannot be mounted because it is not of type proc"
            )
        seen.add(plan.destination)
        plans[plan.destination] = plan
    for destination in config.volumes:
        path = destination_of(destination)
        if path not in plans and path not in tmpfs:
            plan = anonymous(path, new_name)
            driver = host.volume_driver or plan.driver
            plans[path] = msgspec.structs.replace(plan, driver=driver)
    _map_owners(plans, parse_annotation(host.annotations))
    return sorted(plans.values(), key=lambda plan: plan.destination)


def _with_driver(plan: MountPlan, driver_of: Callable[[str], str]) -> MountPlan:
    if plan.type != "volume" or plan.driver:
        return plan
    return msgspec.structs.replace(plan, driver=driver_of(plan.name))


def _map_owners(plans: dict[str, MountPlan], wanted: Mapping[str, str]) -> None:
    for destination, idmap in wanted.items():
        plan = plans.get(destination)
        if plan is None or plan.type not in ("bind", "volume"):
            raise InvalidArgument(
                f"annotation {ANNOTATION}: no bind and no volume is mounted at {destination}"
            )
        plans[destination] = msgspec.structs.replace(plan, idmap=idmap)


def _from_mount(mount: Mount, new_name: NewName, find_image: FindImage) -> MountPlan:
    _check_mount(mount)
    destination = destination_of(mount.target, kind=mount.type)
    if mount.type == "bind":
        return _bind_mount(mount, destination)
    if mount.type == "image":
        return _image_mount(mount, destination, find_image(mount.source))
    if mount.type == "tmpfs":
        return MountPlan(
            type="tmpfs",
            destination=destination,
            rw=not mount.read_only,
            tmpfs_options=mount.tmpfs_options,
        )
    options = mount.volume_options
    driver = options.driver_config if options else None
    return MountPlan(
        type="volume",
        name=mount.source or new_name(),
        destination=destination,
        driver=driver.name if driver else "",
        driver_options=driver.options if driver else {},
        labels=options.labels if options else {},
        mode="z",
        rw=not mount.read_only,
        no_copy=options.no_copy if options else False,
        subpath=options.subpath if options else "",
        anonymous=not mount.source,
    )


def _check_mount(mount: Mount) -> None:
    kind = mount.type
    invalid = f'invalid mount config for type "{kind[:32]}": '
    if kind not in ("bind", "volume", "tmpfs", "image"):
        raise InvalidArgument(f"{invalid}mount type unknown: use bind, volume, tmpfs or image")
    for name, owner in _OPTIONS_OF.items():
        if getattr(mount, name) is not None and owner != kind:
            field = name.title().replace("_", "")
            raise InvalidArgument(f'{field} must not be specified on mount type "{kind}"')
    if not mount.target:
        raise InvalidArgument(f"{invalid}field Target must not be empty")
    if kind in ("bind", "image") and not mount.source:
        raise InvalidArgument(f"{invalid}field Source must not be empty")
    if kind == "tmpfs" and mount.source:
        raise InvalidArgument(f"{invalid}field Source must not be specified")
    if kind == "volume":
        _check_volume_mount(mount, invalid)
    if kind == "image" and mount.image_options:
        _check_subpath(mount.image_options.subpath, f"{invalid}subpath", "image")
    if kind == "tmpfs" and mount.tmpfs_options:
        tmpfs_mount(mount.target, mount.tmpfs_options)


def _check_volume_mount(mount: Mount, invalid: str) -> None:
    path = mount.volume_options.subpath if mount.volume_options else ""
    if mount.source:
        check_volume_name(mount.source)
    elif path:
        raise InvalidArgument(f"{invalid}must not set Subpath when using anonymous volumes")
    elif mount.read_only:
        raise InvalidArgument(f"{invalid}must not set ReadOnly mode when using anonymous volumes")
    _check_subpath(path, f"{invalid}subpath", "volume")


def _check_subpath(path: str, what: str, owner: str) -> None:
    if path.startswith("/") or ".." in path.split("/"):
        raise InvalidArgument(f"{what} must be a relative path within the {owner}")
    if "\0" in path or len(path.encode()) > MAX_PATH:
        raise InvalidArgument(f"{what} has bad characters or is over {MAX_PATH} bytes long")


def _image_mount(mount: Mount, destination: str, image: SourceImage) -> MountPlan:
    return MountPlan(
        type="image",
        name=mount.source,
        source=image.id,
        destination=destination,
        layers=image.layers,
        rw=False,
        propagation="rprivate",
        subpath=mount.image_options.subpath if mount.image_options else "",
    )


def _bind_mount(mount: Mount, destination: str) -> MountPlan:
    if not mount.source.startswith("/"):
        raise InvalidArgument(
            'invalid mount config for type "bind": invalid mount path: '
            f"'{mount.source}' mount path must be absolute"
        )
    options = mount.bind_options or BindOptions()
    if options.propagation and options.propagation not in PROPAGATIONS:
        raise InvalidArgument(
            'invalid mount config for type "bind": invalid propagation mode: '
            f"{options.propagation[:32]}"
        )
    if options.read_only_non_recursive and options.read_only_force_recursive:
        raise InvalidArgument(
            'invalid mount config for type "bind": mount options conflict: '
            "ReadOnlyNonRecursive && ReadOnlyForceRecursive"
        )
    return MountPlan(
        type="bind",
        source=posixpath.normpath(mount.source),
        destination=destination,
        rw=not mount.read_only,
        propagation=options.propagation,
        create_source=options.create_mountpoint,
        non_recursive=options.non_recursive,
        read_only_non_recursive=options.read_only_non_recursive,
        read_only_force_recursive=options.read_only_force_recursive,
    )


def _settled(plan: MountPlan, data_root: str, read_only_recursive: bool) -> MountPlan:
    """A bind with its propagation, which never keeps the engine's own mounts alive.

    Raises InvalidArgument for one that would.
    """
    if plan.type != "bind":
        return plan
    propagation = plan.propagation
    if overlap(plan.source, data_root):
        propagation = propagation or "rslave"
        if propagation not in ("rslave", "rshared"):
            raise InvalidArgument(
                'invalid mount config: must use either propagation mode "rslave" or "rshared" '
                f'when mount source is within the daemon root, daemon root: "{data_root}", '
                f'bind mount source: "{plan.source}", propagation: "{propagation}"'
            )
    return msgspec.structs.replace(
        plan,
        propagation=propagation or "rprivate",
        read_only_non_recursive=plan.read_only_non_recursive
        or not (read_only_recursive or plan.read_only_force_recursive),
    )


def overlap(one: str, other: str) -> bool:
    """Whether one path is, or lies in, the other."""
    return posixpath.commonpath((one, other)) in (one, other)


def _inherited(text: str, find: Callable[[str], ContainerRecord]) -> Iterable[MountPlan]:
    name, _, mode = text.partition(":")
    if not name:
        raise InvalidArgument("volumes-from specification cannot be an empty string")
    if mode not in ("", "ro", "rw", "z", "Z"):
        raise InvalidArgument(f"invalid mode: {mode}: use ro or rw with volumes-from")
    for plan in find(name).mounts:
        if plan.type in ("volume", "bind", "image"):
            rw = plan.rw and mode != "ro"
            # Nameless volumes stay so: with the last container that has one it goes.
            yield msgspec.structs.replace(plan, rw=rw, no_copy=True)
