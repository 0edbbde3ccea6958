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
from estiba.kernel.cgroup import Hierarchies, Mode
from estiba.security.profiles.profile import go_architecture

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


def read_host() -> HostInfo:
    """Reads the host's facts. Blocks for a moment."""
    machine = platform.machine()
    release = _os_release()
    return HostInfo(
        kernel=os.uname().release,
        operating_system=release.get("PRETTY_NAME", "Linux"),
        os_version=release.get("VERSION_ID", ""),
        architecture=machine,
        go_architecture=go_architecture(machine),
        name=os.uname().nodename,
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def read_facts(
    host: HostInfo, runtimes: list[str], hierarchies: Hierarchies, cgroup_parent: str
) -> HostFacts:
    """What limits this host can enforce below `cgroup_parent`, which is made if absent."""
    hierarchies.ensure_parent(cgroup_parent)
    return HostFacts(
        cpus=host.cpus,
        memory_bytes=host.memory_bytes,
        cgroup_v2=hierarchies.mode == Mode.V2,
        memory_nodes=_NODES.read_text().strip() if _NODES.exists() else "0",
        features=hierarchies.features(cgroup_parent),
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


def _os_release() -> dict[str, str]:
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        if path.exists():
            lines = path.read_text().splitlines()
            pairs = (line.partition("=") for line in lines if "=" in line)
            return {key: value.strip("\"'") for key, _, value in pairs}
    return {}
