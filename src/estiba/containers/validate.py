"""Checks of a create request, but for its limits and mounts. Pure.

A field that makes no sense raises; for what cannot be honoured see `unhonoured`.
"""

from __future__ import annotations

import ipaddress
import re

from estiba.containers.health import plan_health
from estiba.containers.hostfacts import HostFacts
from estiba.containers.limits import check_resources
from estiba.containers.logdetails import check_details
from estiba.containers.restart import check_policy
from estiba.containers.signals import parse_signal
from estiba.model.container import OF_CONTAINER, Config, HostConfig, PortBinding
from estiba.model.errors import InvalidArgument
from estiba.network.policy.egress import OPTION as EGRESS
from estiba.network.policy.egress import parse_egress
from estiba.network.resolv import parse_extra_host

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
_HOSTNAME = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,62}[a-zA-Z0-9_])?")
_UNDEFINED = "This would result in undefined behavior"
_DNS_WORD = re.compile(r"[!-~]+")
_SIZE = re.compile(r"-1|(\d{1,18})([kKmMgG]?)[bB]?")
_DIGITS = re.compile(r"\d{1,64}")
_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_MODES = {
    "IPC": ("", "none", "private", "shareable", "host", OF_CONTAINER),
    "PID": ("", "host", OF_CONTAINER),
    "UTS": ("", "host"),
    "cgroup namespace": ("", "private", "host"),
}


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
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]."
        )
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    for port, bindings in host.port_bindings.items():
        check_binding(port, bindings)
    for what, words in (("search domain", host.dns_search), ("option", host.dns_options)):
        for word in words:
            if word and not _DNS_WORD.fullmatch(word):
                raise InvalidArgument(f"invalid DNS {what}: {word[:64]!r}")
    if "" in host.annotations:
        raise InvalidArgument(
            "invalid Annotations: the empty string is not permitted as an annotation key"
        )
    check_egress(host.annotations.get(EGRESS, ""), host.network_mode)
    if ".." in host.cgroup_parent.split("/") or not host.cgroup_parent.isprintable():
        raise InvalidArgument(f"invalid cgroup parent: {host.cgroup_parent[:64]!r}")
    for address in host.dns:
        _check_address(address, "DNS server")
    for entry in host.extra_hosts:
        parse_extra_host(entry)
    check_log(host)


def check_binding(port: str, bindings: list[PortBinding]) -> None:
    """Raises InvalidArgument for a port that cannot be published so."""
    parse_port(port)
    for binding in bindings:
        parse_host_port(binding.host_port)
        _check_address(binding.host_ip, "host IP of a published port")


def _check_modes(host: HostConfig) -> None:
    for what, mode in (
        ("IPC", host.ipc_mode),
        ("PID", host.pid_mode),
        ("UTS", host.uts_mode),
        ("cgroup namespace", host.cgroupns_mode),
    ):
        word, colon, name = mode.partition(":")
        if word + colon not in _MODES[what] or (colon and not name):
            raise InvalidArgument(f"invalid {what} mode: {mode}")
    if host.userns_mode not in ("", "host"):
        raise InvalidArgument(f"invalid userns mode: {host.userns_mode}")
    if host.network_mode == OF_CONTAINER:
        raise InvalidArgument("invalid network mode: invalid container format container:<name|id>")
    if host.isolation not in ("", "default"):
        raise InvalidArgument(
            f"invalid isolation ({host.isolation}): linux only supports 'default'"
        )


def check_network_conflicts(config: Config, host: HostConfig) -> None:
    """Options that contradict a shared network or UTS namespace, in Docker's words."""
    shared = host.network_mode.startswith(OF_CONTAINER)
    conflicts: list[tuple[object, str]] = [
        (host.uts_mode == "host" and config.hostname, "hostname and the UTS mode")
    ]
    if host.network_mode == "host":
        conflicts += [
            (host.links, f"host type networking can't be used with links. {_UNDEFINED}"),
            (config.mac_address, "mac-address and the network mode"),
        ]
    if shared:
        conflicts += [
            (config.hostname, "hostname and the network mode"),
            (host.links, f"container type network can't be used with links. {_UNDEFINED}"),
            (host.dns, "dns and the network mode"),
            (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
            (config.mac_address, "mac-address and the network mode"),
            (
                host.port_bindings or host.publish_all_ports,
                "port publishing and the container type network mode",
            ),
            (config.exposed_ports, "port exposing and the container type network mode"),
        ]
    for given, what in conflicts:
        if given:
            raise InvalidArgument(f"conflicting options: {what}")


def check_log(host: HostConfig) -> None:
    """Raises InvalidArgument for an unknown log driver or option."""
    log = host.log_config
    if log.type not in ("", *LOG_DRIVERS):
        known = ", ".join(LOG_DRIVERS)
        raise InvalidArgument(f"logger: no log driver named '{log.type}' is registered ({known})")
    driver = log.type or "json-file"
    for name, value in log.config.items():
        if name not in _LOG_OPTIONS[driver]:
            raise InvalidArgument(f"unknown log opt '{name}' for {driver} log driver")
        if name == "max-size":
            parse_size(value)
        if name == "max-file" and not re.fullmatch(r"0*[1-9]\d{0,8}", value):
            raise InvalidArgument("max-file cannot be less than 1")
    check_details(log.config)


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
    if not (_DIGITS.fullmatch(first) and _DIGITS.fullmatch(last)):
        raise InvalidArgument(f'invalid port specification: "{text[:64]}"')
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


def check_egress(text: str, network_mode: str) -> None:
    """Raises InvalidArgument for a list that cannot be read, or that could not be kept."""
    kind = network_mode.partition(":")[0]
    if parse_egress(text) is not None and kind in ("host", "container"):
        raise InvalidArgument(
            f"{EGRESS}: a container with --network {network_mode} has no network of its own that "
            "could be confined: use a bridge network"
        )
