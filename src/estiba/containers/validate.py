"""Checks of a create or update request, and warnings for what cannot be honoured. Pure.

A field that makes no sense raises; a field that this host or this engine cannot honour gives
a warning in the answer, never silence.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from estiba.containers.health import plan_health
from estiba.containers.restart import check_policy
from estiba.containers.signals import parse_signal
from estiba.model.container import Config, HostConfig, Resources
from estiba.model.errors import InvalidArgument

MIN_MEMORY_BYTES = 6 * 1024 * 1024
LOG_DRIVERS = ("json-file", "local", "journald", "syslog", "none")
_LOG_OPTIONS = {
    "json-file": {"max-size", "max-file", "labels", "labels-regex", "env", "env-regex", "tag",
                  "compress", "mode", "max-buffer-size"},
    "local": {"max-size", "max-file", "compress", "mode", "max-buffer-size"},
    "journald": {"labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"},
    "syslog": {"syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert",
               "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify", "labels",
               "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"},
    "none": set(),
}  # fmt: skip
_IGNORED_LOG_OPTIONS = {"labels", "labels-regex", "env", "env-regex", "mode", "max-buffer-size",
                        "compress"}  # fmt: skip
_HOSTNAME = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,62}[a-zA-Z0-9_])?")
_DNS_WORD = re.compile(r"[!-~]+")
_CPUSET = re.compile(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*")
_SIZE = re.compile(r"-1|(\d+)([kKmMgG]?)[bB]?")
_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_WORDS = ("", "private", "host", "shareable", "none")


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the host offers; found out once at the start of the engine."""

    cpus: int
    memory_bytes: int
    cgroup_v2: bool
    swap_limit: bool = True
    blkio_weight: bool = False
    blkio_throttle: bool = True
    cpu_realtime: bool = False
    pids: bool = True
    runtimes: tuple[str, ...] = ("crun", "runc")


def check_config(config: Config) -> None:
    """Raises InvalidArgument for a Config that makes no sense."""
    for what, text in (("hostname", config.hostname), ("domainname", config.domainname)):
        if text and (len(text) > 64 or not all(map(_HOSTNAME.fullmatch, text.split(".")))):
            raise InvalidArgument(f"invalid {what} {text[:80]!r}")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.working_dir}' is invalid, "
            "it needs to be an absolute path"
        )
    for entry in config.env:
        if not entry or entry.startswith("=") or "\0" in entry:
            shown = entry[:64].replace("\0", "\\0")
            raise InvalidArgument(f"invalid environment variable: {shown}")
    if config.stop_signal:
        parse_signal(config.stop_signal)
    for port in config.exposed_ports:
        parse_port(port)
    plan_health(config)


def check_host(host: HostConfig, facts: HostFacts) -> None:
    """Raises InvalidArgument for a HostConfig that makes no sense on this host."""
    check_policy(host.restart_policy, auto_remove=host.auto_remove)
    check_resources(host, facts)
    _check_modes(host)
    if host.runtime and host.runtime not in facts.runtimes:
        known = ", ".join(facts.runtimes)
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime} (known: {known})")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    for port, bindings in host.port_bindings.items():
        parse_port(port)
        for binding in bindings:
            parse_host_port(binding.host_port)
            _check_address(binding.host_ip, "host IP of a published port")
    for what, words in (("search domain", host.dns_search), ("option", host.dns_options)):
        for word in words:
            if word and not _DNS_WORD.fullmatch(word):
                raise InvalidArgument(f"invalid DNS {what}: {word[:64]!r}")
    if ".." in host.cgroup_parent.split("/") or not host.cgroup_parent.isprintable():
        raise InvalidArgument(f"invalid cgroup parent: {host.cgroup_parent[:64]!r}")
    for address in host.dns:
        _check_address(address, "DNS server")
    for entry in host.extra_hosts:
        name, colon, address = entry.partition(":")
        if not colon or not _DNS_WORD.fullmatch(name):
            raise InvalidArgument(f'bad format for add-host: "{entry}"')
        if address != "host-gateway":
            _check_address(address.strip("[]"), "address of an extra host")
    check_log(host)


def _check_modes(host: HostConfig) -> None:
    for what, mode in (
        ("IPC", host.ipc_mode),
        ("PID", host.pid_mode),
        ("UTS", host.uts_mode),
        ("cgroup namespace", host.cgroupns_mode),
    ):
        if mode not in _WORDS and not (mode.startswith("container:") and len(mode) > 10):
            raise InvalidArgument(f"invalid {what} mode: {mode}")
    if host.userns_mode not in ("", "host"):
        raise InvalidArgument(f"invalid userns mode: {host.userns_mode}")
    if host.network_mode == "container:":
        raise InvalidArgument("invalid network mode: container: needs a name")


def check_network_conflicts(config: Config, host: HostConfig) -> None:
    """Options that contradict a shared network or UTS namespace, in Docker's words."""
    shared = host.network_mode.startswith("container:")
    if (shared or host.uts_mode == "host") and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the network mode")
    if not shared:
        return
    for given, what in (
        (host.links, "links"),
        (host.dns, "dns"),
        (host.extra_hosts, "custom host-to-IP mapping"),
        (host.port_bindings or host.publish_all_ports, "port publishing"),
        (config.mac_address, "mac-address"),
    ):
        if given:
            raise InvalidArgument(
                f"conflicting options: {what} and the container type network mode"
            )


def check_resources(resources: Resources, facts: HostFacts) -> None:
    """Raises InvalidArgument for limits that contradict one another or the host."""
    _check_memory(resources)
    if resources.nano_cpus:
        if resources.cpu_quota or resources.cpu_period:
            raise InvalidArgument(
                "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set"
            )
        if not 0 < resources.nano_cpus <= facts.cpus * 1_000_000_000:
            raise InvalidArgument(
                f"range of CPUs is from 0.01 to {facts.cpus}.00, as there are only "
                f"{facts.cpus} CPUs available"
            )
    if resources.cpu_period and not 1000 <= resources.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms or more than 1s")
    if 0 < resources.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if resources.cpu_shares < 0:
        raise InvalidArgument("CPU shares cannot be negative")
    _check_cpuset(resources, facts)
    if resources.blkio_weight and not 10 <= resources.blkio_weight <= 1000:
        raise InvalidArgument("range of blkio weight is from 10 to 1000")
    for limit in resources.ulimits:
        if limit.soft > limit.hard and limit.hard != -1:
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.name}"
            )


def _check_memory(resources: Resources) -> None:
    memory, swap = resources.memory, resources.memory_swap
    if memory and memory < MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if swap > 0 and not memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit")
    if swap > 0 and swap < memory:
        raise InvalidArgument(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    reservation = resources.memory_reservation
    if reservation and reservation < MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if memory and reservation > memory:
        raise InvalidArgument(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    swappiness = resources.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidArgument(
            f"Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )


def _check_cpuset(resources: Resources, facts: HostFacts) -> None:
    for what, text in (("cpus", resources.cpuset_cpus), ("mems", resources.cpuset_mems)):
        if text and (len(text) > 1024 or not _CPUSET.fullmatch(text)):
            raise InvalidArgument(f"Invalid value {text[:64]} for cpuset {what}")
    numbers = [int(number) for number in re.findall(r"\d+", resources.cpuset_cpus)]
    if numbers and max(numbers) >= facts.cpus:
        raise InvalidArgument(
            f"Requested CPUs are not available - requested {resources.cpuset_cpus}, "
            f"available: 0-{facts.cpus - 1}"
        )


def check_log(host: HostConfig) -> None:
    """Raises InvalidArgument for an unknown log driver or option."""
    log = host.log_config
    if log.type not in ("", *LOG_DRIVERS):
        known = ", ".join(LOG_DRIVERS)
        raise InvalidArgument(f"logger: no log driver named '{log.type}' is registered ({known})")
    for name, value in log.config.items():
        if name not in _LOG_OPTIONS[log.type or "json-file"]:
            raise InvalidArgument(f"unknown log opt '{name}' for {log.type} log driver")
        if name == "max-size":
            parse_size(value)
        if name == "max-file" and (not value.isdecimal() or int(value) < 1):
            raise InvalidArgument("max-file cannot be less than 1")


def parse_size(text: str) -> int:
    """Bytes of `10m`, `1g`, `512k`, `100`; -1 is no limit. Raises InvalidArgument."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument(f"invalid size: '{text[:32]}': use for example 10m")
    return -1 if match[1] is None else int(match[1]) * _SIZE_UNITS[match[2].lower()]


def parse_port(text: str) -> tuple[range, str]:
    """The ports and protocol of `80`, `80/tcp`, `8000-8010/udp`. Raises InvalidArgument."""
    numbers, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid proto: {protocol[:16]} in port {text[:32]!r}")
    return _port_range(numbers, text), protocol


def parse_host_port(text: str) -> range | None:
    """The host ports to choose from; None is any free one. Raises InvalidArgument."""
    if text in ("", "0"):
        return None
    return _port_range(text, text)


def _port_range(numbers: str, text: str) -> range:
    first, dash, last = numbers.partition("-")
    if not dash:
        last = first
    if not (first.isdecimal() and last.isdecimal()):
        raise InvalidArgument(f"invalid port specification: {text[:64]!r}")
    low, high = int(first), int(last)
    if not 0 < low <= high <= 65535:
        raise InvalidArgument(f"invalid port range {text[:64]!r}: use 1 to 65535, lowest first")
    return range(low, high + 1)


def _check_address(text: str, what: str) -> None:
    if not text:
        return
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid {what}: {text[:64]!r} is not an IP address") from None


def warnings_for(config: Config, host: HostConfig, facts: HostFacts) -> Iterator[str]:
    """What of the request this host or this engine cannot honour."""
    if host.memory and not facts.swap_limit:
        yield "Your kernel does not support swap limit capabilities. Memory limited without swap."
    if host.kernel_memory or host.kernel_memory_tcp:
        yield "Kernel memory limits are obsolete in the kernel and were discarded."
    if facts.cgroup_v2:
        if host.oom_kill_disable:
            yield "OomKillDisable is not supported on cgroup v2 and was discarded."
        if host.memory_swappiness not in (None, -1):
            yield "MemorySwappiness is not supported on cgroup v2 and was discarded."
    if host.oom_kill_disable and not host.memory:
        yield "OOM killer is disabled without a memory limit: the host may run out of memory."
    if (host.blkio_weight or host.blkio_weight_device) and not facts.blkio_weight:
        yield "Your kernel does not support block I/O weight. Weight discarded."
    if (host.cpu_realtime_period or host.cpu_realtime_runtime) and not facts.cpu_realtime:
        yield "Your kernel does not support CPU real-time scheduler limits. They were discarded."
    if host.device_requests:
        yield "DeviceRequests (GPUs) are not supported and were discarded."
    if host.storage_opt:
        yield "StorageOpt needs project quotas, which this host lacks. Size limit discarded."
    if host.links:
        yield "Links are not built yet and were discarded: use a shared network."
    if host.isolation not in ("", "default"):
        yield f"Isolation {host.isolation!r} is for Windows and was discarded."
    if host.io_maximum_iops or host.io_maximum_bandwidth or host.cpu_count or host.cpu_percent:
        yield "Limits that exist on Windows only (CpuCount, IOMaximum…) were discarded."
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


def without_unhonoured(host: HostConfig, facts: HostFacts) -> HostConfig:
    """`host` without the limits that `warnings_for` said would be discarded."""
    changed: dict[str, object] = {
        "kernel_memory": 0,
        "kernel_memory_tcp": 0,
        "device_requests": [],
        "storage_opt": {},
        "links": [],
    }
    if facts.cgroup_v2:
        changed |= {"oom_kill_disable": False, "memory_swappiness": None}
    if not facts.blkio_weight:
        changed |= {"blkio_weight": 0, "blkio_weight_device": []}
    if not facts.cpu_realtime:
        changed |= {"cpu_realtime_period": 0, "cpu_realtime_runtime": 0}
    return msgspec.structs.replace(host, **changed)
