"""What of a request this host or this engine cannot honour: a warning in the answer, never
silence, and nothing of it in the record. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import msgspec

from estiba.containers.hostfacts import HostFacts
from estiba.containers.limits import named
from estiba.model.container import Config, HostConfig, Resources

R = TypeVar("R", bound=Resources)

_IGNORED_LOG_OPTIONS = {"labels", "labels-regex", "env", "env-regex", "mode", "max-buffer-size",
                        "compress"}  # fmt: skip
_WINDOWS_LIMITS = ("cpu_count", "cpu_percent", "io_maximum_iops", "io_maximum_bandwidth")
_SET_AT_CREATION = {"cgroup_parent", "devices", "device_cgroup_rules", "device_requests",
                    "memory_swappiness", "oom_kill_disable", "ulimits"}  # fmt: skip


def warnings_for(config: Config, host: HostConfig, facts: HostFacts) -> Iterator[str]:
    """What of the request this host or this engine cannot honour."""
    yield from limit_warnings(host, facts)
    if host.oom_kill_disable and not host.memory and not facts.cgroup_v2:
        yield (
            "OOM killer is disabled for the container, but no memory limit is set, this can "
            "result in the system running out of resources."
        )
    if host.device_requests:
        yield "DeviceRequests (GPUs) are not supported and were discarded."
    if host.storage_opt:
        yield "StorageOpt needs project quotas, which this host lacks. Size limit discarded."
    if host.links:
        yield "Links are not built yet and were discarded: use a shared network."
    if host.cgroup:
        yield "The field Cgroup is obsolete and was discarded."
    ignored = sorted(_IGNORED_LOG_OPTIONS & set(host.log_config.config))
    if ignored:
        yield f"Log options without effect here: {', '.join(ignored)}."
    if (host.publish_all_ports and host.network_mode in ("host", "none")) or (
        host.port_bindings and host.network_mode == "host"
    ):
        yield "Published ports are discarded when using host network mode"
    if config.args_escaped:
        yield "ArgsEscaped is for Windows and was discarded."


def limit_warnings(limits: Resources, facts: HostFacts) -> Iterator[str]:
    """What of the limits this host cannot honour."""
    if limits.memory and not facts.swap_limit:
        yield "Your kernel does not support swap limit capabilities. Memory limited without swap."
    if limits.kernel_memory or limits.kernel_memory_tcp:
        yield "Kernel memory limits are obsolete in the kernel and were discarded."
    if facts.cgroup_v2:
        if limits.oom_kill_disable:
            yield "OomKillDisable is not supported on cgroup v2 and was discarded."
        if limits.memory_swappiness not in (None, -1):
            yield "MemorySwappiness is not supported on cgroup v2 and was discarded."
    if not facts.blkio_weight:
        missing = "or the cgroup is not mounted"
        if limits.blkio_weight:
            yield f"Your kernel does not support Block I/O weight {missing}. Weight discarded."
        if limits.blkio_weight_device:
            yield (
                f"Your kernel does not support Block I/O weight_device {missing}. "
                "Weight-device discarded."
            )
    if (limits.cpu_realtime_period or limits.cpu_realtime_runtime) and not facts.cpu_realtime:
        yield "Your kernel does not support CPU real-time scheduler limits. They were discarded."
    if any(getattr(limits, name) for name in _WINDOWS_LIMITS):
        yield "Limits that exist on Windows only (CpuCount, IOMaximum…) were discarded."


def honoured_limits(limits: R, facts: HostFacts) -> R:
    """`limits` without those that `limit_warnings` said would be discarded."""
    changed: dict[str, object] = dict.fromkeys(
        ("kernel_memory", "kernel_memory_tcp", *_WINDOWS_LIMITS), 0
    )
    if facts.cgroup_v2:
        changed |= {"oom_kill_disable": False, "memory_swappiness": None}
    if limits.memory_swappiness == -1:
        changed["memory_swappiness"] = None
    if not facts.blkio_weight:
        changed |= {"blkio_weight": 0, "blkio_weight_device": []}
    if not facts.cpu_realtime:
        changed |= {"cpu_realtime_period": 0, "cpu_realtime_runtime": 0}
    return msgspec.structs.replace(limits, **changed)


def update_warnings(update: Resources, facts: HostFacts) -> Iterator[str]:
    """What of an update this host cannot honour, or nobody can without a new container."""
    yield from limit_warnings(update, facts)
    for name in sorted(_SET_AT_CREATION & named(update).keys()):
        field = dict(zip(update.__struct_fields__, update.__struct_encode_fields__, strict=True))
        yield f"{field[name]} is set when a container is created: not updated."


def honoured_update(update: Resources, facts: HostFacts) -> Resources:
    """`update` without what `update_warnings` names."""
    nothing = Resources()
    fixed = {name: getattr(nothing, name) for name in _SET_AT_CREATION}
    return msgspec.structs.replace(honoured_limits(update, facts), **fixed)


def without_unhonoured(host: HostConfig, facts: HostFacts) -> HostConfig:
    """`host` without what `warnings_for` said would be discarded."""
    return msgspec.structs.replace(
        honoured_limits(host, facts), device_requests=[], storage_opt={}, links=[]
    )
