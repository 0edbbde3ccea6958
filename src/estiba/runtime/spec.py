"""The OCI runtime-spec (1.1) of a container, from what the user wants and resolved facts. Pure.

Hooks are never used: networks and mounts are ready before the runtime is called.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from estiba.kernel.seccomp import compile_filter
from estiba.model.container import OF_CONTAINER, Config, HostConfig
from estiba.runtime.devices import Devices
from estiba.runtime.mounts import INIT_PATH, SpecMount, all_mounts, base_mounts, bind
from estiba.runtime.namespaces import NEW, Namespaces
from estiba.runtime.process import build_env, build_process
from estiba.runtime.resources import DeviceNumber, build_resources
from estiba.runtime.users import User
from estiba.security.profiles.profile import Profile

SPEC_VERSION = "1.0.2"  # crun 1.8 and runc 1.1 take no newer one

_CRUN_FILTER = "run.oci.seccomp_bpf_data"

# A container's own network namespace makes low ports and ICMP sockets harmless.
_NETWORK_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecInput:
    """Everything that a spec depends on; nothing here needs another look at the host.

    `args` is entrypoint and command, `mounts` all of the user's and the engine's own (resolv.conf
    and the like), `init` the init program on the host, `shm` a directory for /dev/shm unless the
    container has its own.
    """

    config: Config
    host: HostConfig
    args: Sequence[str]
    user: User
    hostname: str
    rootfs: Path
    namespaces: Namespaces
    mounts: Sequence[SpecMount]
    cgroup_path: str
    profile: Profile
    devices: Devices
    device_number: DeviceNumber
    init: Path | None = None
    shm: Path | None = None
    can_limit_swap: bool = True


def build_spec(given: SpecInput) -> dict[str, Any]:
    """The content of config.json."""
    host = given.host
    base = base_mounts(host, writable_cgroups=given.profile.writable_cgroups, shm=given.shm)
    engine = [bind(given.init, INIT_PATH, rw=False)] if given.init else []
    mounts = all_mounts(base, [*engine, *given.mounts])
    spec: dict[str, Any] = {
        "ociVersion": SPEC_VERSION,
        "process": _process(given),
        "root": {"path": str(given.rootfs), "readonly": host.readonly_rootfs},
        "mounts": [mount.to_spec() for mount in mounts],
        "linux": _linux(given),
    }
    if given.namespaces.uts == NEW:
        spec["hostname"] = given.hostname
        if given.config.domainname:
            spec["domainname"] = given.config.domainname
    own = {key: text for key, text in host.annotations.items() if key != _CRUN_FILTER}
    annotations = {**own, **_compiled_seccomp(given.profile)}
    if annotations:
        spec["annotations"] = annotations
    return spec


def _process(given: SpecInput) -> dict[str, Any]:
    config, host = given.config, given.host
    args = [INIT_PATH, "--", *given.args] if given.init else list(given.args)
    return build_process(
        args=args,
        env=build_env(config.env, hostname=given.hostname, tty=config.tty, home=given.user.home),
        cwd=config.working_dir,
        user=given.user,
        capabilities=given.profile.capabilities,
        no_new_privileges=given.profile.no_new_privileges,
        rlimits=given.profile.rlimits,
        oom_score_adj=host.oom_score_adj,
        tty=config.tty,
        console_size=host.console_size,
    )


def _linux(given: SpecInput) -> dict[str, Any]:
    profile = given.profile
    resources = build_resources(
        given.host, device_number=given.device_number, can_limit_swap=given.can_limit_swap
    )
    linux: dict[str, Any] = {
        "cgroupsPath": given.cgroup_path,
        "namespaces": given.namespaces.to_spec(),
        "resources": {"devices": list(given.devices.rules), **resources},
        "devices": [device.to_spec() for device in given.devices.nodes],
        "maskedPaths": profile.masked_paths,
        "readonlyPaths": profile.readonly_paths,
        "sysctl": _sysctls(given.host),
    }
    if profile.seccomp is not None:
        linux["seccomp"] = profile.seccomp
    slave_or_shared = _root_propagation(given.mounts)
    if slave_or_shared:
        linux["rootfsPropagation"] = slave_or_shared
    return linux


def _compiled_seccomp(profile: Profile) -> dict[str, str]:
    """crun takes the filter ready-made and saves the 20 ms of compiling it; others ignore it.

    The profile itself stays in the spec: a crun that no longer knew the annotation would still
    confine the container.
    """
    if profile.seccomp is None:
        return {}
    compiled = _compile_cached(msgspec.json.encode(profile.seccomp))
    return {_CRUN_FILTER: compiled} if compiled else {}


@functools.lru_cache(maxsize=16)
def _compile_cached(profile: bytes) -> str:
    return base64.b64encode(compile_filter(msgspec.json.decode(profile)) or b"").decode()


def _sysctls(host: HostConfig) -> dict[str, str]:
    owns_network = host.network_mode != "host" and not host.network_mode.startswith(OF_CONTAINER)
    return {**(_NETWORK_SYSCTLS if owns_network else {}), **host.sysctls}


def _root_propagation(mounts: Sequence[SpecMount]) -> str:
    """A shared mount needs a shared root, a slave one at least a slave root (mount(2))."""
    options = {option for mount in mounts for option in mount.options}
    if options & {"shared", "rshared"}:
        return "shared"
    if options & {"slave", "rslave"}:
        return "rslave"
    return ""
