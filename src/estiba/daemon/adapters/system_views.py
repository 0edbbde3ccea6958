"""`version` and `info` as the Engine API shows them. Pure."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from estiba import __version__
from estiba.containers.hostfacts import HostFacts
from estiba.containers.record import ContainerRecord
from estiba.containers.validate import LOG_DRIVERS
from estiba.daemon.config import DaemonConfig
from estiba.daemon.hostinfo import HostInfo
from estiba.distribution.settings import RegistrySettings, is_network
from estiba.kernel.cgroup import Feature
from estiba.model.reference import DEFAULT_DOMAIN
from estiba.model.state import ContainerState

# Limits whose absence `info` points out.
_WARNED = (
    (Feature.MEMORY, "memory limit"),
    (Feature.SWAP, "swap limit"),
    (Feature.CPU_QUOTA, "cpu cfs quota"),
    (Feature.CPU_SHARES, "cpu shares"),
    (Feature.CPUSET, "cpuset"),
    (Feature.PIDS, "pids limit"),
    (Feature.BLKIO_WEIGHT, "blkio weight"),
    (Feature.BLKIO_THROTTLE, "blkio throttle"),
)

API_VERSION = "1.51"
MIN_API_VERSION = "1.24"
Json = dict[str, Any]
_NO_SWARM: Json = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What only the running engine knows."""

    id: str
    storage_driver: str
    storage_status: list[list[str]]
    images: int
    event_listeners: int
    tasks: int
    networks: list[str]
    volume_drivers: list[str]
    warnings: list[str]
    security_options: list[str]
    runtimes: Mapping[str, str]
    versions: Mapping[str, str]
    """Component name (crun, runc, conmon, tini) → version."""


def version_view(config: DaemonConfig, host: HostInfo, engine: EngineFacts) -> Json:
    """The body of `GET /version`."""
    components = [
        {
            "Name": "Engine",
            "Version": __version__,
            "Details": {
                "ApiVersion": API_VERSION,
                "MinAPIVersion": MIN_API_VERSION,
                "Arch": host.go_architecture,
                "Os": "linux",
                "KernelVersion": host.kernel,
                "GitCommit": "",
                "GoVersion": "",
                "PythonVersion": platform.python_version(),
                "Experimental": str(config.experimental).lower(),
                "BuildTime": "",
            },
        },
        *(
            {"Name": name, "Version": version, "Details": {"GitCommit": ""}}
            for name, version in engine.versions.items()
        ),
    ]
    return {
        "Platform": {"Name": "Estiba"},
        "Components": components,
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": host.go_architecture,
        "KernelVersion": host.kernel,
        "BuildTime": "",
    }


def info_view(
    config: DaemonConfig,
    host: HostInfo,
    facts: HostFacts,
    engine: EngineFacts,
    records: list[ContainerRecord],
) -> Json:
    """The body of `GET /info`."""
    return {
        "ID": engine.id,
        **_counts(records),
        "Images": engine.images,
        "Driver": engine.storage_driver,
        "DriverStatus": engine.storage_status,
        "DockerRootDir": str(config.data_root),
        "Plugins": {
            "Volume": engine.volume_drivers,
            "Network": engine.networks,
            "Authorization": None,
            "Log": sorted(LOG_DRIVERS),
        },
        **_limits(facts),
        "IPv4Forwarding": True,
        "BridgeNfIptables": False,
        "BridgeNfIp6tables": False,
        "Debug": config.log_level == "debug",
        "NFd": len(os.listdir("/proc/self/fd")),
        "NGoroutines": engine.tasks,
        "SystemTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "LoggingDriver": config.log.type,
        "NEventsListener": engine.event_listeners,
        **_host(host),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": registry_view(config.registries),
        "GenericResources": None,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Labels": config.labels,
        "ExperimentalBuild": config.experimental,
        "ServerVersion": __version__,
        "Runtimes": {name: {"path": path} for name, path in engine.runtimes.items()},
        "DefaultRuntime": config.default_runtime,
        "Swarm": _NO_SWARM,
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": config.init_path.name,
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": _runtime_version(config.default_runtime, engine.versions)},
        "InitCommit": {"ID": engine.versions.get("tini", "")},
        "SecurityOptions": engine.security_options,
        "DefaultAddressPools": [
            {"Base": base, "Size": size} for base, size in config.address_pools
        ],
        "FirewallBackend": {"Driver": "nftables"},
        "CDISpecDirs": [],
        "Warnings": engine.warnings,
    }


def _counts(records: list[ContainerRecord]) -> Json:
    states = [record.state for record in records]
    running = sum(state in (ContainerState.RUNNING, ContainerState.RESTARTING) for state in states)
    paused = states.count(ContainerState.PAUSED)
    return {
        "Containers": len(records),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(records) - running - paused,
    }


def _limits(facts: HostFacts) -> Json:
    """What the cgroups of this host can limit."""
    return {
        "MemoryLimit": Feature.MEMORY in facts.features,
        "SwapLimit": Feature.SWAP in facts.features,
        "KernelMemoryTCP": False,
        "CpuCfsPeriod": Feature.CPU_QUOTA in facts.features,
        "CpuCfsQuota": Feature.CPU_QUOTA in facts.features,
        "CPUShares": Feature.CPU_SHARES in facts.features,
        "CPUSet": Feature.CPUSET in facts.features,
        "PidsLimit": Feature.PIDS in facts.features,
        "OomKillDisable": Feature.OOM_KILL_DISABLE in facts.features,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if facts.cgroup_v2 else "1",
    }


def _host(host: HostInfo) -> Json:
    return {
        "Name": host.name,
        "KernelVersion": host.kernel,
        "OperatingSystem": host.operating_system,
        "OSVersion": host.os_version,
        "OSType": "linux",
        "Architecture": host.architecture,
        "NCPU": host.cpus,
        "MemTotal": host.memory_bytes,
    }


def _runtime_version(name: str, versions: Mapping[str, str]) -> str:
    """Clients call this the version of runc; of another default runtime it bears the name."""
    version = versions.get(name, "")
    return version if name == "runc" else f"{name} {version}".rstrip()


def host_warnings(config: DaemonConfig, facts: HostFacts) -> list[str]:
    """What `info` warns of, in the words that dockerd uses where it has them."""
    warnings = []
    if config.allow_insecure_tcp and any(url.startswith("tcp://") for url in config.hosts):
        url = next(url for url in config.hosts if url.startswith("tcp://"))
        warnings.append(
            f"WARNING: API is accessible on {url} without client certificates: "
            "access to it is equivalent to root access on the host"
        )
    return warnings + [
        f"WARNING: No {what} support" for feature, what in _WARNED if feature not in facts.features
    ]


_LOOPBACK = ("::1/128", "127.0.0.0/8")


def registry_view(settings: RegistrySettings) -> Json:
    """OpenAPI RegistryServiceConfig. It knows mirrors of Docker Hub alone."""
    mirrors = [f"{url.rstrip('/')}/" for url in settings.mirrors.get(DEFAULT_DOMAIN, ())]
    networks = [one for one in settings.insecure if is_network(one)]
    hosts = [one for one in settings.insecure if one not in networks]
    indexes = {DEFAULT_DOMAIN: (mirrors, True), **{host: ([], False) for host in hosts}}
    return {
        "InsecureRegistryCIDRs": [*_LOOPBACK, *networks],
        "IndexConfigs": {
            name: {
                "Name": name,
                "Mirrors": of_it,
                "Secure": is_secure,
                "Official": name == DEFAULT_DOMAIN,
            }
            for name, (of_it, is_secure) in indexes.items()
        },
        "Mirrors": mirrors,
    }
