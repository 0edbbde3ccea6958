"""What the host offers to containers, as far as requests are checked against it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Found out once at the start of the engine."""

    cpus: int
    memory_bytes: int
    cgroup_v2: bool
    memory_nodes: str = "0"
    """The NUMA nodes that are online, as a list such as 0-1,3."""
    swap_limit: bool = True
    blkio_weight: bool = False
    blkio_throttle: bool = True
    cpu_realtime: bool = False
    pids: bool = True
    runtimes: tuple[str, ...] = ("crun", "runc")
