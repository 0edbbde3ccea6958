"""What a RUN means in the terms of a container: its config and its limits. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from estiba.build.ports import RunLimits, RunRequest, SecretMount, SshMount
from estiba.model.container import Config, HostConfig, Ulimit
from estiba.model.errors import InvalidArgument
from estiba.model.limits import check_cpu_times, check_memory

DEFAULT_HOSTNAME = "build"
"""The same for all steps, so that one that writes it down gives the same layer again."""

_MAX_MOUNTS = 128
_MAX_STRING_BYTES = 128 << 10  # of one argument or variable: MAX_ARG_STRLEN of execve(2)
_MAX_STRINGS_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The engine's own settings, which hold for containers too.

    `seccomp` is a profile's text, "unconfined", or empty for the built-in one.
    """

    cgroup_parent: str = "/estiba"
    shm_bytes: int = 64 << 20
    ulimits: Sequence[Ulimit] = ()
    seccomp: str = ""
    no_new_privileges: bool = False
    host_gateway: str = ""
    dns: Sequence[str] = ()
    dns_options: Sequence[str] = ()
    dns_search: Sequence[str] = ()


def check_request(request: RunRequest) -> None:
    """Raises InvalidArgument for what no run can be made of."""
    if not request.argv or not request.argv[0]:
        raise InvalidArgument("RUN has no command: give one, or set SHELL to a program")
    if len(request.mounts) > _MAX_MOUNTS:
        raise InvalidArgument(f"{len(request.mounts)} mounts are more than {_MAX_MOUNTS}")
    _check_limits(request.limits)
    strings = [*request.argv, *request.env, request.cwd, request.hostname]
    for text in strings:
        if "\0" in text:
            raise InvalidArgument("a command, variable or directory of RUN holds a NUL byte")
    try:
        sizes = [len(text.encode()) for text in strings]
    except UnicodeEncodeError:
        raise InvalidArgument("a command, variable or directory of RUN is not UTF-8") from None
    if max(sizes) >= _MAX_STRING_BYTES or sum(sizes) > _MAX_STRINGS_BYTES:
        raise InvalidArgument(
            "the command and the environment of RUN are too long for the kernel (execve(2)): "
            "use a file, or a here-document with its own interpreter"
        )


def _check_limits(limits: RunLimits) -> None:
    for name, value, least in (
        ("memory", limits.memory_bytes, 0),
        ("memory with swap", limits.memory_swap_bytes, -1),
        ("shm size", limits.shm_bytes, 0),
        ("cpu shares", limits.cpu_shares, 0),
        ("cpu period", limits.cpu_period_us, 0),
        ("cpu quota", limits.cpu_quota_us, -1),
    ):
        if not least <= value < 1 << 63:
            raise InvalidArgument(f"invalid {name} for RUN: {str(value)[:32]}")
    check_memory(limits.memory_bytes, limits.memory_swap_bytes)
    check_cpu_times(limits.cpu_period_us, limits.cpu_quota_us)


def container_config(request: RunRequest) -> Config:
    """The program. Raises InvalidArgument for a secret that no variable can hold."""
    env = list(request.env)
    names = {entry.partition("=")[0] for entry in env}
    agents = [mount.target for mount in request.mounts if isinstance(mount, SshMount)]
    if agents and "SSH_AUTH_SOCK" not in names:
        env.append(f"SSH_AUTH_SOCK={agents[0]}")
    for mount in request.mounts:
        if isinstance(mount, SecretMount) and mount.env:
            env.append(f"{mount.env}={_as_text(mount)}")
    return Config(env=env, working_dir=request.cwd)


def host_config(request: RunRequest, defaults: Defaults, *, cgroup_v2: bool) -> HostConfig:
    """The isolation and the limits, as `estiba run` has them without flags."""
    limits = request.limits
    names = {limit.name for limit in limits.ulimits}
    security = [f"seccomp={defaults.seccomp}"] if defaults.seccomp and not request.insecure else []
    if defaults.no_new_privileges:
        security.append("no-new-privileges")
    return HostConfig(
        network_mode=request.network,
        privileged=request.insecure,
        cgroupns_mode="host" if request.insecure and not cgroup_v2 else "private",
        security_opt=security,
        shm_size=limits.shm_bytes or defaults.shm_bytes,
        ulimits=[*limits.ulimits, *(each for each in defaults.ulimits if each.name not in names)],
        memory=limits.memory_bytes,
        memory_swap=_swap(limits),
        cpu_shares=limits.cpu_shares,
        cpu_period=limits.cpu_period_us,
        cpu_quota=limits.cpu_quota_us,
        cpuset_cpus=limits.cpuset_cpus,
        cpuset_mems=limits.cpuset_mems,
    )


def cgroup_of(request: RunRequest, defaults: Defaults) -> str:
    """Raises InvalidArgument for a parent that leaves the tree of groups."""
    parent = request.limits.cgroup_parent or defaults.cgroup_parent
    if ".." in parent.split("/") or "\0" in parent or len(parent) > 1024:
        raise InvalidArgument(f"invalid cgroup parent {parent[:64]!r}: give a path such as /builds")
    return posixpath.join("/", parent, f"build-{request.id}")


def hostname_of(request: RunRequest) -> str:
    return request.hostname or DEFAULT_HOSTNAME


def _swap(limits: RunLimits) -> int:
    """With a memory limit and no swap limit as much swap as memory, as for containers."""
    if limits.memory_bytes > 0 and limits.memory_swap_bytes == 0:
        return limits.memory_bytes * 2
    return limits.memory_swap_bytes


def _as_text(mount: SecretMount) -> str:
    try:
        text = mount.data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or len(mount.data) >= _MAX_STRING_BYTES:
        raise InvalidArgument(
            f"the secret for the variable {mount.env} is binary or too long for a variable: "
            "mount it as a file"
        )
    return text
