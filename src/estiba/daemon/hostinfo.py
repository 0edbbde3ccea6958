"""What the host is and offers, read once at the start of the daemon."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from estiba.containers.hostfacts import HostFacts

_CGROUP = Path("/sys/fs/cgroup")
_NODES = Path("/sys/devices/system/node/online")
_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class HostInfo:
    """For `info` and `version`."""

    kernel: str
    operating_system: str
    os_version: str
    architecture: str
    go_architecture: str
    name: str
    cpus: int
    memory_bytes: int
    cgroup_version: str


_GO_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


def read_host() -> HostInfo:
    """Reads the host's facts. Blocks for a moment."""
    machine = platform.machine()
    release = _os_release()
    return HostInfo(
        kernel=os.uname().release,
        operating_system=release.get("PRETTY_NAME", "Linux"),
        os_version=release.get("VERSION_ID", ""),
        architecture=machine,
        go_architecture=_GO_ARCHITECTURES.get(machine, machine),
        name=os.uname().nodename,
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cgroup_version="2" if (_CGROUP / "cgroup.controllers").exists() else "1",
    )


def read_facts(host: HostInfo, runtimes: list[str]) -> HostFacts:
    """What limits this host can enforce."""
    is_v2 = host.cgroup_version == "2"
    return HostFacts(
        cpus=host.cpus,
        memory_bytes=host.memory_bytes,
        cgroup_v2=is_v2,
        memory_nodes=_NODES.read_text().strip() if _NODES.exists() else "0",
        swap_limit=is_v2 or (_CGROUP / "memory/memory.memsw.limit_in_bytes").exists(),
        blkio_weight=_has_blkio_weight(is_v2),
        blkio_throttle=is_v2 or (_CGROUP / "blkio/blkio.throttle.read_bps_device").exists(),
        cpu_realtime=(_CGROUP / "cpu/cpu.rt_period_us").exists(),
        pids=is_v2 or (_CGROUP / "pids").exists(),
        runtimes=tuple(runtimes),
    )


def read_versions(programs: Mapping[str, Path]) -> dict[str, str]:
    """Versions of installed programs, as each prints it. Blocks for a few milliseconds each."""
    versions = {}
    for name, path in programs.items():
        try:
            done = subprocess.run([path, "--version"], capture_output=True, timeout=5, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        found = _VERSION.search(done.stdout.decode(errors="replace"))
        if found is not None:
            versions[name] = found[0]
    return versions


def _has_blkio_weight(is_v2: bool) -> bool:
    if is_v2:
        return True
    blkio = _CGROUP / "blkio"
    return any((blkio / name).exists() for name in ("blkio.weight", "blkio.bfq.weight"))


def _os_release() -> dict[str, str]:
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        if path.exists():
            lines = path.read_text().splitlines()
            pairs = (line.partition("=") for line in lines if "=" in line)
            return {key: value.strip("\"'") for key, _, value in pairs}
    return {}
