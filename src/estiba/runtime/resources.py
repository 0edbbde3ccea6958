"""A container's limits in the runtime-spec's form (linux.resources). Pure.

The runtime translates them to the cgroup version of the host. Zero means "not limited" in the
API; what is zero stays away from the spec, so that an update changes only what it names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from estiba.model.container import Resources, ThrottleDevice

_CPU_PERIOD_US = 100_000

DeviceNumber = Callable[[str], tuple[int, int]]
"""Path of a block device → (major, minor)."""


def build_resources(
    wanted: Resources, *, device_number: DeviceNumber, can_limit_swap: bool = True
) -> dict[str, Any]:
    """linux.resources without its devices."""
    parts = {
        "memory": _memory(wanted, can_limit_swap=can_limit_swap),
        "cpu": _cpu(wanted),
        "pids": _pids(wanted),
        "blockIO": _block_io(wanted, device_number),
    }
    return {name: part for name, part in parts.items() if part}


def _memory(wanted: Resources, *, can_limit_swap: bool) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    if wanted.memory:
        memory["limit"] = wanted.memory
    if wanted.memory_reservation:
        memory["reservation"] = wanted.memory_reservation
    if wanted.memory_swap and can_limit_swap:
        memory["swap"] = wanted.memory_swap
    if wanted.memory_swappiness is not None and wanted.memory_swappiness >= 0:
        memory["swappiness"] = wanted.memory_swappiness
    if wanted.oom_kill_disable:
        memory["disableOOMKiller"] = True
    return memory


def _cpu(wanted: Resources) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if wanted.nano_cpus:
        cpu["period"] = _CPU_PERIOD_US
        cpu["quota"] = wanted.nano_cpus * _CPU_PERIOD_US // 1_000_000_000
    values = {
        "shares": wanted.cpu_shares,
        "period": wanted.cpu_period,
        "quota": wanted.cpu_quota,
        "realtimePeriod": wanted.cpu_realtime_period,
        "realtimeRuntime": wanted.cpu_realtime_runtime,
        "cpus": wanted.cpuset_cpus,
        "mems": wanted.cpuset_mems,
    }
    return cpu | {name: value for name, value in values.items() if value}


def _pids(wanted: Resources) -> dict[str, Any]:
    if not wanted.pids_limit:
        return {}
    return {"limit": wanted.pids_limit if wanted.pids_limit > 0 else -1}


def _block_io(wanted: Resources, device_number: DeviceNumber) -> dict[str, Any]:
    def throttle(devices: list[ThrottleDevice]) -> list[dict[str, int]]:
        return [{**number(each.path), "rate": each.rate} for each in devices]

    def number(path: str) -> dict[str, int]:
        major, minor = device_number(path)
        return {"major": major, "minor": minor}

    block_io = {
        "weight": wanted.blkio_weight,
        "weightDevice": [
            {**number(each.path), "weight": each.weight} for each in wanted.blkio_weight_device
        ],
        "throttleReadBpsDevice": throttle(wanted.blkio_device_read_bps),
        "throttleWriteBpsDevice": throttle(wanted.blkio_device_write_bps),
        "throttleReadIOPSDevice": throttle(wanted.blkio_device_read_iops),
        "throttleWriteIOPSDevice": throttle(wanted.blkio_device_write_iops),
    }
    return {name: value for name, value in block_io.items() if value}
