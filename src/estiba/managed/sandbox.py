"""How a plugin's program runs: in the engine's own sandbox, as containers do. Decides; no effects.

<exec root>/plugins/<id>/          /run/docker/plugins of the plugin: its socket
<exec root>/plugins/.run/<id>/     config.json, log, pid, identity
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estiba.managed.config import RUN_DIRECTORY
from estiba.managed.record import PluginRecord
from estiba.model.container import Config, DeviceMapping, HostConfig
from estiba.model.errors import FailedPrecondition
from estiba.model.ids import short
from estiba.runtime.devices import device_number, resolve_devices
from estiba.runtime.mounts import SpecMount, bind
from estiba.runtime.namespaces import NEW, Namespaces
from estiba.runtime.spec import SpecInput, build_spec
from estiba.runtime.users import User
from estiba.security.profiles.profile import Host, decide_profile

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOST_FILES = ("/etc/hosts", "/etc/resolv.conf")
_BIND_OPTIONS = frozenset(
    "bind rbind ro rw rro nosuid suid nodev dev noexec exec private rprivate slave rslave shared "
    "rshared".split()
)


@dataclass(frozen=True, slots=True)
class Paths:
    """Of all plugins of an engine."""

    data_root: Path
    exec_root: Path

    @property
    def content(self) -> Path:
        return self.data_root / "plugins" / "content"

    @property
    def mounts(self) -> Path:
        return self.data_root / "plugins" / "mounts"

    @property
    def sockets(self) -> Path:
        return self.exec_root / "plugins"

    def rootfs(self, record: PluginRecord) -> Path:
        return self.content / record.place / "rootfs"

    def propagated(self, plugin_id: str) -> Path:
        return self.mounts / plugin_id

    def socket(self, record: PluginRecord) -> Path:
        return self.sockets / record.id / record.config.interface.socket

    def run(self, plugin_id: str) -> Path:
        return self.sockets / ".run" / plugin_id

    @property
    def state(self) -> Path:
        """The runtime's own."""
        return self.sockets / ".state"


def cgroup_of(parent: str, plugin_id: str) -> str:
    return posixpath.join("/", parent, f"plugin-{plugin_id}")


def spec_of(
    record: PluginRecord, paths: Paths, host: Host, *, cgroup: str, seccomp: str
) -> dict[str, Any]:
    """config.json. Raises FailedPrecondition for a setting that is missing, InvalidArgument."""
    config, settings = record.config, record.settings
    wanted = _host_config(record, seccomp)
    return build_spec(
        SpecInput(
            config=Config(env=[_PATH, *settings.env], working_dir=config.work_dir or "/"),
            host=wanted,
            args=[*config.entrypoint, *settings.args],
            user=User(config.user.uid, config.user.gid, (config.user.gid,), "/"),
            hostname=short(record.id),
            rootfs=paths.rootfs(record),
            namespaces=Namespaces(
                network=None if config.network.type == "host" else NEW,
                pid=None if config.pid_host else NEW,
                ipc=None if config.ipc_host else NEW,
            ),
            mounts=_mounts(record, paths),
            cgroup_path=cgroup,
            profile=decide_profile(wanted, host),
            devices=resolve_devices(wanted),
            device_number=device_number,
        )
    )


def _host_config(record: PluginRecord, seccomp: str) -> HostConfig:
    config = record.config
    devices = []
    for device in record.settings.devices:
        if not device.path:
            raise FailedPrecondition(
                f"plugin {record.name} needs the device {device.name!r}: "
                f"plugin set {record.name} {device.name}.path=/dev/…"
            )
        devices.append(DeviceMapping(path_on_host=device.path, path_in_container=device.path))
    return HostConfig(
        network_mode="host" if config.network.type == "host" else "none",
        pid_mode="host" if config.pid_host else "",
        ipc_mode="host" if config.ipc_host else "private",
        cgroupns_mode="private",
        cap_add=list(config.linux.capabilities or []),
        devices=devices,
        device_cgroup_rules=["a *:* rwm"] if config.linux.allow_all_devices else [],
        security_opt=[f"seccomp={seccomp}"] if seccomp else [],
    )


def _mounts(record: PluginRecord, paths: Paths) -> Sequence[SpecMount]:
    config = record.config
    mounts = [bind(paths.sockets / record.id, RUN_DIRECTORY)]
    if config.network.type == "host":
        mounts += [bind(Path(name), name, rw=False) for name in _HOST_FILES if Path(name).exists()]
    if config.propagated_mount:
        place = paths.propagated(record.id)
        mounts.append(bind(place, config.propagated_mount, propagation="rshared"))
    for mount in record.settings.mounts:
        if mount.source is None and mount.type == "bind":
            raise FailedPrecondition(
                f"mount source is not specified: plugin set {record.name} {mount.name}.source=/path"
            )
        options = tuple(mount.options or ())
        if mount.type == "bind":
            options = ("rbind", *(each for each in options if each in _BIND_OPTIONS))
        source = mount.source or mount.type
        mounts.append(SpecMount(mount.destination, mount.type, source, options))
    return mounts
