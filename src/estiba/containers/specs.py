"""From a record to the OCI runtime-spec: the facts that the pure builder needs, looked up."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from estiba.containers.hostfiles import Linked, hostname
from estiba.containers.links import check_links, environment
from estiba.containers.record import ContainerRecord
from estiba.containers.sources import Sources
from estiba.model.container import OF_CONTAINER, HostConfig, ProcessSpec, Ulimit
from estiba.model.errors import Conflict, Internal
from estiba.runtime.devices import device_number, resolve_devices
from estiba.runtime.namespaces import NEW, Namespace, Namespaces, namespace_of
from estiba.runtime.process import build_env, build_process
from estiba.runtime.spec import SpecInput, build_spec
from estiba.runtime.users import resolve_user
from estiba.runtime.workdir import ensure_working_directory, exec_directory
from estiba.security.profiles.profile import Host, Profile, decide_profile

Find = Callable[[str], ContainerRecord]


@dataclass(slots=True)
class SpecMaker:
    """Blocks on the file system only."""

    host: Host
    sources: Sources
    find: Find
    cgroup_parent: str
    init_path: Path
    can_limit_swap: bool
    default_ulimits: Sequence[Ulimit] = ()
    linked: Linked = lambda _record: {}

    def profile(self, host_config: HostConfig) -> Profile:
        """The isolation of a container. Raises InvalidArgument."""
        return decide_profile(host_config, self.host, default_ulimits=self.default_ulimits)

    def cgroup(self, record: ContainerRecord) -> str:
        parent = record.host_config.cgroup_parent or self.cgroup_parent
        return posixpath.join("/", parent, record.id)

    def container(
        self, record: ContainerRecord, netns: Path | None, rootfs: Path
    ) -> dict[str, Any]:
        """config.json of a start.

        Raises InvalidArgument or Conflict for what does not hold at this moment.
        """
        linked = self.linked(record)
        check_links(record, linked)
        env = [*environment(record, linked), *record.config.env]
        config = msgspec.structs.replace(record.config, env=env)
        host = record.host_config
        user = resolve_user(rootfs, config.user, host.group_add)
        ensure_working_directory(rootfs, config.working_dir)
        return build_spec(
            SpecInput(
                config=config,
                host=host,
                args=record.argv,
                user=user,
                hostname=hostname(record),
                rootfs=rootfs,
                namespaces=self._namespaces(record, netns),
                mounts=self.sources.spec_mounts(record),
                cgroup_path=self.cgroup(record),
                profile=self.profile(host),
                devices=resolve_devices(host),
                device_number=device_number,
                init=self.init_path if host.init else None,
                shm=self.sources.shm(record),
                can_limit_swap=self.can_limit_swap,
            )
        )

    def process(self, record: ContainerRecord, wanted: ProcessSpec, rootfs: Path) -> dict[str, Any]:
        """The process object of an exec. Raises InvalidArgument for a hostile directory."""
        user = resolve_user(rootfs, wanted.user or record.config.user, record.host_config.group_add)
        host = record.host_config
        if wanted.privileged:
            host = msgspec.structs.replace(host, privileged=True)
        profile = self.profile(host)
        return build_process(
            args=wanted.cmd,
            env=build_env(
                [
                    *environment(record, self.linked(record)),
                    *record.config.env,
                    *wanted.env,
                ],
                hostname=hostname(record),
                tty=wanted.tty,
                home=user.home,
            ),
            cwd=exec_directory(wanted.working_dir) or record.config.working_dir,
            user=user,
            capabilities=profile.capabilities,
            no_new_privileges=profile.no_new_privileges,
            rlimits=profile.rlimits,
            tty=wanted.tty,
            console_size=wanted.console_size,
        )

    def _namespaces(self, record: ContainerRecord, netns: Path | None) -> Namespaces:
        host = record.host_config
        return Namespaces(
            network=netns if netns is not None else self._mode(host.network_mode, "net"),
            pid=self._mode(host.pid_mode, "pid"),
            ipc=self._mode(host.ipc_mode, "ipc"),
            uts=self._mode(_uts_mode(record), "uts"),
            cgroup=self._mode(host.cgroupns_mode, "cgroup"),
        )

    def _mode(self, mode: str, kind: str) -> Namespace:
        if mode == "host":
            return None
        if not mode.startswith(OF_CONTAINER):
            return NEW
        other = self.find(mode.removeprefix(OF_CONTAINER))
        if not other.state.is_up or other.container is None:
            # Docker's clients take this for the server's fault where it is about the processes.
            refuse = Internal if kind == "pid" else Conflict
            raise refuse(
                f"failed to join {kind.upper()} namespace: container {other.id} is not running"
            )
        return namespace_of(other.container.pid, kind)


def _uts_mode(record: ContainerRecord) -> str:
    """With the host's network and no name of its own a container bears the host's."""
    host = record.host_config
    if host.uts_mode or record.config.hostname:
        return host.uts_mode
    return "host" if host.network_mode == "host" else ""
