"""What of a request this host or this engine cannot honour: a warning in the answer, never
silence, and nothing of it in the record. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from estiba.containers.health import is_unknown
from estiba.containers.hostfacts import HostFacts
from estiba.containers.limits import R, named
from estiba.kernel.cgroup import Feature
from estiba.model.container import Config, HostConfig, Resources

_IGNORED_LOG_OPTIONS = {"labels", "labels-regex", "env", "env-regex", "mode", "max-buffer-size",
                        "compress"}  # fmt: skip
_WINDOWS_LIMITS = ("cpu_count", "cpu_percent", "io_maximum_iops", "io_maximum_bandwidth")
_SET_AT_CREATION = {"cgroup_parent", "devices", "device_cgroup_rules", "device_requests",
                    "memory_swappiness", "oom_kill_disable", "ulimits"}  # fmt: skip

_NOTHING = Resources()

# Feature, the fields that need it, the warning of those who ask for one in vain.
_NEEDS: tuple[tuple[Feature, tuple[str, ...], str], ...] = (
    (
        Feature.MEMORY,
        ("memory", "memory_swap"),
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted. "
        "Limitation discarded.",
    ),
    (
        Feature.MEMORY_RESERVATION,
        ("memory_reservation",),
        "Your kernel does not support memory soft limit capabilities or the cgroup is not "
        "mounted. Limitation discarded.",
    ),
    (
        Feature.SWAPPINESS,
        ("memory_swappiness",),
        "Your kernel does not support memory swappiness capabilities or the cgroup is not "
        "mounted. Memory swappiness discarded.",
    ),
    (
        Feature.OOM_KILL_DISABLE,
        ("oom_kill_disable",),
        "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
    ),
    (
        Feature.PIDS,
        ("pids_limit",),
        "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. "
        "PIDs limit discarded.",
    ),
    (
        Feature.CPU_SHARES,
        ("cpu_shares",),
        "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
    ),
    (
        Feature.CPU_QUOTA,
        ("nano_cpus", "cpu_period", "cpu_quota"),
        "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
    ),
    (
        Feature.CPU_REALTIME,
        ("cpu_realtime_period", "cpu_realtime_runtime"),
        "Your kernel does not support CPU real-time scheduler. Limits discarded.",
    ),
    (
        Feature.CPUSET,
        ("cpuset_cpus", "cpuset_mems"),
        "Your kernel does not support cpuset or the cgroup is not mounted. CPU set discarded.",
    ),
    (
        Feature.BLKIO_WEIGHT,
        ("blkio_weight",),
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. "
        "Weight discarded.",
    ),
    (
        Feature.BLKIO_WEIGHT,
        ("blkio_weight_device",),
        "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
        "Weight-device discarded.",
    ),
    (
        Feature.BLKIO_THROTTLE,
        (
            "blkio_device_read_bps",
            "blkio_device_write_bps",
            "blkio_device_read_iops",
            "blkio_device_write_iops",
        ),
        "Your kernel does not support Block I/O rate limits or the cgroup is not mounted. "
        "Block I/O limits discarded.",
    ),
)


def warnings_for(config: Config, host: HostConfig, facts: HostFacts) -> Iterator[str]:
    """What of the request this host or this engine cannot honour."""
    yield from limit_warnings(host, facts)
    if host.oom_kill_disable and not host.memory and Feature.OOM_KILL_DISABLE in facts.features:
        yield (
            "OOM killer is disabled for the container, but no memory limit is set, this can "
            "result in the system running out of resources."
        )
    if host.device_requests:
        yield "DeviceRequests (GPUs) are not supported and were discarded."
    if host.storage_opt:
        yield "StorageOpt needs project quotas, which this host lacks. Size limit discarded."
    if host.cgroup:
        yield "The field Cgroup is obsolete and was discarded."
    ignored = sorted(_IGNORED_LOG_OPTIONS & set(host.log_config.config))
    if ignored:
        yield f"Log options without effect here: {', '.join(ignored)}."
    if (host.publish_all_ports and host.network_mode in ("host", "none")) or (
        host.port_bindings and host.network_mode == "host"
    ):
        yield "Published ports are discarded when using host network mode"
    if config.healthcheck and is_unknown(config.healthcheck):
        yield (
            f"The health check begins with {config.healthcheck.test[0][:32]!r} and is never run: "
            "use NONE, CMD with arguments, or CMD-SHELL with one string."
        )
    if config.args_escaped:
        yield "ArgsEscaped is for Windows and was discarded."


def limit_warnings(limits: Resources, facts: HostFacts) -> Iterator[str]:
    """What of the limits this host cannot honour."""
    for feature, names, says in _NEEDS:
        if feature not in facts.features and any(_is_asked(limits, name) for name in names):
            yield says
    can_limit_memory = Feature.MEMORY in facts.features
    if limits.memory > 0 and can_limit_memory and Feature.SWAP not in facts.features:
        yield (
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
    if limits.kernel_memory or limits.kernel_memory_tcp:
        yield "Kernel memory limits are obsolete in the kernel and were discarded."
    if any(getattr(limits, name) for name in _WINDOWS_LIMITS):
        yield "Limits that exist on Windows only (CpuCount, IOMaximum…) were discarded."


def honoured_limits(limits: R, facts: HostFacts) -> R:
    """`limits` without those that `limit_warnings` said would be discarded."""
    changed: dict[str, object] = dict.fromkeys(
        ("kernel_memory", "kernel_memory_tcp", *_WINDOWS_LIMITS), 0
    )
    if limits.memory_swappiness == -1:
        changed["memory_swappiness"] = None
    for feature, names, _ in _NEEDS:
        if feature not in facts.features:
            changed |= {name: getattr(_NOTHING, name) for name in names}
    return msgspec.structs.replace(limits, **changed)


def _is_asked(limits: Resources, name: str) -> bool:
    """-1 and, of processes, 0 are no limit."""
    value = getattr(limits, name)
    return value != getattr(_NOTHING, name) and value != -1 and (name, value) != ("pids_limit", 0)


def update_warnings(update: Resources, facts: HostFacts) -> Iterator[str]:
    """What of an update this host cannot honour, or nobody can without a new container."""
    yield from limit_warnings(update, facts)
    for name in sorted(_SET_AT_CREATION & named(update).keys()):
        field = dict(zip(update.__struct_fields__, update.__struct_encode_fields__, strict=True))
        yield f"{field[name]} is set when a container is created: not updated."


def honoured_update(update: Resources, facts: HostFacts) -> Resources:
    """`update` without what `update_warnings` names."""
    fixed = {name: getattr(_NOTHING, name) for name in _SET_AT_CREATION}
    return msgspec.structs.replace(honoured_limits(update, facts), **fixed)


def without_unhonoured(host: HostConfig, facts: HostFacts) -> HostConfig:
    """`host` without what `warnings_for` said would be discarded."""
    return msgspec.structs.replace(honoured_limits(host, facts), device_requests=[], storage_opt={})
