"""From a create request to the record of a new container. Decides, touches nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from posixpath import normpath
from typing import Protocol

import msgspec

from estiba.containers.attachments import FindMaybe, attachment_warnings, plan_networks
from estiba.containers.defaults import fill_host, merge_image
from estiba.containers.hostfacts import HostFacts
from estiba.containers.links import plan_links
from estiba.containers.mounts import FindImage, plan_mounts
from estiba.containers.record import ContainerRecord
from estiba.containers.unhonoured import warnings_for, without_unhonoured
from estiba.containers.validate import check_config, check_host, check_network_conflicts
from estiba.model.container import (
    OF_CONTAINER,
    Config,
    HostConfig,
    LogConfig,
    NetworkingConfig,
    Ulimit,
)
from estiba.model.digest import Digest
from estiba.model.ids import new_id
from estiba.model.image import ImageProcessConfig


class SourceImage(Protocol):
    """What creation reads of an image."""

    @property
    def id(self) -> Digest: ...

    @property
    def layers(self) -> list[Digest]: ...

    @property
    def process_config(self) -> ImageProcessConfig: ...


@dataclass(frozen=True, slots=True)
class Defaults:
    """The daemon's settings that a container inherits."""

    runtime: str
    log: LogConfig
    init: bool
    ulimits: list[Ulimit]
    no_new_privileges: bool
    shm_bytes: int
    data_root: str
    ipc_mode: str = "private"
    cgroupns_mode: str = ""
    seccomp: str = ""
    """A profile as JSON, or unconfined; empty is the engine's own."""


@dataclass(frozen=True, slots=True)
class Request:
    """A create request as it came in."""

    name: str
    config: Config
    host_config: HostConfig
    networking: NetworkingConfig
    read_only_recursive: bool = True
    """Whether a read-only bind covers what is mounted below its source."""


def decide_creation(
    request: Request,
    image: SourceImage,
    *,
    facts: HostFacts,
    defaults: Defaults,
    find: Callable[[str], ContainerRecord],
    find_image: FindImage,
    driver_of: Callable[[str], str],
    find_network: FindMaybe = lambda _name: None,
) -> tuple[ContainerRecord, list[str]]:
    """The record of the new container, and warnings for the user.

    `find…` resolve other containers, images and networks named in the request, `driver_of` says
    which driver a volume has. Raises InvalidArgument for what makes no sense, NotFound for a
    container that does not exist.
    """
    check_config(request.config)
    host = _inherit(request.host_config, defaults)
    check_host(host, facts)
    check_network_conflicts(request.config, host)
    links = plan_links(host, find)
    warnings = list(warnings_for(request.config, host, facts))
    host = without_unhonoured(host, facts)
    host = fill_host(host, runtime=defaults.runtime, log=defaults.log, cgroup_v2=facts.cgroup_v2)
    host = _resolve_modes(host, find)
    config = merge_image(request.config, image.process_config)
    check_config(config)
    if config.working_dir:
        config = msgspec.structs.replace(config, working_dir=normpath(config.working_dir))
    networks = plan_networks(config, host, request.networking, find_network)
    warnings += attachment_warnings(networks, find_network)
    container_id = new_id()
    record = ContainerRecord(
        id=container_id,
        name=request.name,
        created_ns=time.time_ns(),
        image_id=image.id,
        image_name=request.config.image,
        layers=image.layers,
        config=config,
        host_config=host,
        runtime=host.runtime,
        mounts=plan_mounts(
            config,
            host,
            find=find,
            find_image=find_image,
            driver_of=driver_of,
            new_name=new_id,
            data_root=defaults.data_root,
            read_only_recursive=request.read_only_recursive,
        ),
        networks=networks,
        links=links,
    )
    return record, warnings


def _inherit(host: HostConfig, defaults: Defaults) -> HostConfig:
    names = {limit.name for limit in host.ulimits}
    inherited = [limit for limit in defaults.ulimits if limit.name not in names]
    security = host.security_opt
    if defaults.no_new_privileges and not any(o.startswith("no-new-privileges") for o in security):
        security = [*security, "no-new-privileges"]
    if defaults.seccomp and not (host.privileged or any(o[:7] == "seccomp" for o in security)):
        security = [*security, f"seccomp={defaults.seccomp}"]
    return msgspec.structs.replace(
        host,
        init=defaults.init if host.init is None else host.init,
        ulimits=[*host.ulimits, *inherited],
        security_opt=security,
        ipc_mode=host.ipc_mode or defaults.ipc_mode,
        cgroupns_mode=host.cgroupns_mode or defaults.cgroupns_mode,
        shm_size=host.shm_size or defaults.shm_bytes,
    )


def _resolve_modes(host: HostConfig, find: Callable[[str], ContainerRecord]) -> HostConfig:
    """`container:NAME` becomes `container:ID`, so that a rename changes nothing."""
    changed = {}
    for name in ("network_mode", "ipc_mode", "pid_mode"):
        mode: str = getattr(host, name)
        if mode.startswith(OF_CONTAINER):
            changed[name] = OF_CONTAINER + find(mode.removeprefix(OF_CONTAINER)).id
    return msgspec.structs.replace(host, **changed)
