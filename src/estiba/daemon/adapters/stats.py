"""`docker stats`: the counters of a container's cgroup and interfaces in the API's form."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from estiba.containers.actor import Actor
from estiba.containers.record import ContainerRecord
from estiba.containers.specs import SpecMaker
from estiba.daemon.adapters.container_views import ZERO_TIME, timestamp
from estiba.kernel.blocking import run_blocking
from estiba.kernel.cgroup import BlkioStats, CpuStats, Hierarchies, MemoryStats
from estiba.network.networks import Networks

Json = dict[str, Any]
_EVERY_S = 1.0
_NOT_COUNTED = (
    "io_queue", "io_service_time", "io_wait_time", "io_merged", "io_time", "sectors",
)  # fmt: skip
"""Counters of a scheduler that the kernel has no more."""


@dataclass(slots=True)
class StatsReader:
    """Reads counters; `cpus` and `memory_bytes` are the host's."""

    hierarchies: Hierarchies
    specs: SpecMaker
    networks: Networks
    cpus: int
    memory_bytes: int

    def pids(self, record: ContainerRecord) -> set[int]:
        """All processes of the container."""
        return set(self.hierarchies.processes(self.specs.cgroup(record)))

    async def samples(self, actor: Actor, *, stream: bool, one_shot: bool) -> AsyncIterator[Json]:
        """One sample, or one a second for as long as the container exists.

        The CLI's percentage needs two; unless `one_shot`, the first is taken a second before.
        """
        before: Json | None = None
        if not stream and not one_shot and actor.record.state.is_up:
            before = await run_blocking(self._sample, actor.record)
            await asyncio.sleep(_EVERY_S)
        removed = actor.wait_future("removed")
        while not removed.done():
            sample = await run_blocking(self._sample, actor.record)
            sample["precpu_stats"] = before["cpu_stats"] if before else _cpu_times(CpuStats())
            sample["preread"] = before["read"] if before else ZERO_TIME
            yield sample
            if not stream:
                return
            before = sample
            await asyncio.wait([removed], timeout=_EVERY_S)

    def _sample(self, record: ContainerRecord) -> Json:
        view: Json = {
            "name": f"/{record.name}",
            "id": record.id,
            "read": timestamp(time.time_ns()),
            "num_procs": 0,
            "storage_stats": {},
        }
        if not record.state.is_up:
            return {
                **view,
                "read": ZERO_TIME,
                "pids_stats": {},
                "cpu_stats": _cpu_times(CpuStats()),
                "memory_stats": {},
                "blkio_stats": _blkio(BlkioStats()),
            }
        stats = self.hierarchies.stats(self.specs.cgroup(record))
        view["pids_stats"] = {"current": stats.pids.current}
        if stats.pids.limit is not None:
            view["pids_stats"]["limit"] = stats.pids.limit
        view["cpu_stats"] = self._cpu(stats.cpu)
        view["memory_stats"] = self._memory(stats.memory)
        view["blkio_stats"] = _blkio(stats.blkio)
        networks = self._networks(record)
        if networks:
            view["networks"] = networks
        return view

    def _cpu(self, cpu: CpuStats) -> Json:
        host = {"system_cpu_usage": system_cpu_ns(), "online_cpus": self.cpus}
        return {**_cpu_times(cpu), **host}

    def _memory(self, memory: MemoryStats) -> Json:
        limit = min(memory.limit or self.memory_bytes, self.memory_bytes)
        view: Json = {"usage": memory.usage, "stats": memory.details, "limit": limit}
        if memory.max_usage:
            view["max_usage"] = memory.max_usage
        if memory.failures:
            view["failcnt"] = memory.failures
        return view

    def _networks(self, record: ContainerRecord) -> Json:
        counters = self.networks.interface_statistics(record.id)
        return {
            name: {
                "rx_bytes": count.rx_bytes,
                "rx_packets": count.rx_packets,
                "rx_errors": count.rx_errors,
                "rx_dropped": count.rx_dropped,
                "tx_bytes": count.tx_bytes,
                "tx_packets": count.tx_packets,
                "tx_errors": count.tx_errors,
                "tx_dropped": count.tx_dropped,
            }
            for name, count in counters.items()
        }


def _cpu_times(cpu: CpuStats) -> Json:
    usage: Json = {
        "total_usage": cpu.total_ns,
        "usage_in_kernelmode": cpu.kernel_ns,
        "usage_in_usermode": cpu.user_ns,
    }
    if cpu.per_cpu_ns:
        usage["percpu_usage"] = list(cpu.per_cpu_ns)
    return {
        "cpu_usage": usage,
        "throttling_data": {
            "periods": cpu.periods,
            "throttled_periods": cpu.throttled_periods,
            "throttled_time": cpu.throttled_ns,
        },
    }


def _blkio(blkio: BlkioStats) -> Json:
    def entries(items: Any) -> list[Json]:
        return [
            {
                "major": item.major,
                "minor": item.minor,
                "op": item.operation.lower(),
                "value": item.value,
            }
            for item in items
        ]

    return {
        "io_service_bytes_recursive": entries(blkio.service_bytes),
        "io_serviced_recursive": entries(blkio.serviced),
        **{f"{name}_recursive": [] for name in _NOT_COUNTED},
    }


def system_cpu_ns() -> int:
    """CPU time of the whole host since boot (proc(5), /proc/stat): the CLI's denominator."""
    with open("/proc/stat", "rb") as file:
        fields = file.readline().split()[1:8]
    return sum(map(int, fields)) * 10_000_000
