"""What the host offers to containers, as far as requests are checked against it."""

from __future__ import annotations

from dataclasses import dataclass

from estiba.kernel.cgroup import Feature


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Found out once at the start of the engine."""

    cpus: int
    memory_bytes: int
    cgroup_v2: bool
    memory_nodes: str = "0"
    """The NUMA nodes that are online, as a list such as 0-1,3."""
    features: frozenset[Feature] = frozenset(Feature)
    """What the kernel can limit."""
    runtimes: tuple[str, ...] = ("crun", "runc")
