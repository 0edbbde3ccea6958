"""A container's limits in the runtime-spec's form (linux.resources). Pure.

The runtime translates them to the cgroup version of the host. Zero means "not limited" in the
API; what is zero stays away from the spec, so that an update changes only what it names. Neither
is "no limit" of the CPU quota and the number of processes put there, which crun 1.8 writes in a
form that the kernel refuses: a new group has none, and an update asks `lifted_limits`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from estiba.kernel.cgroup import Limit
from estiba.model.container import Resources, ThrottleDevice

_CPU_PERIOD_US = 100_000
_MIN_SHARES, _MAX_SHARES = 2, 262_144  # the kernel's, which crun turns into a weight unchecked

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
        "shares": wanted.cpu_shares and min(max(_MIN_SHARES, wanted.cpu_shares), _MAX_SHARES),
        "period": wanted.cpu_period,
        "quota": wanted.cpu_quota,
        "realtimePeriod": wanted.cpu_realtime_period,
        "realtimeRuntime": wanted.cpu_realtime_runtime,
        "cpus": wanted.cpuset_cpus,
        "mems": wanted.cpuset_mems,
    }
    if wanted.cpu_quota < 0:
        del values["quota"]
    return cpu | {name: value for name, value in values.items() if value}


def _pids(wanted: Resources) -> dict[str, Any]:
    if wanted.pids_limit is None or wanted.pids_limit <= 0:
        return {}
    return {"limit": wanted.pids_limit}


def lifted_limits(update: Resources) -> frozenset[Limit]:
    """The limits that an update takes away."""
    lifted = {
        Limit.CPU_QUOTA: update.cpu_quota < 0,
        Limit.PIDS: update.pids_limit is not None and update.pids_limit <= 0,
    }
    return frozenset(limit for limit, is_lifted in lifted.items() if is_lifted)


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
