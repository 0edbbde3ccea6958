"""The container's /etc/hostname, /etc/hosts and /etc/resolv.conf, kept beside its log.

They are written anew at each start: addresses change, and so does the host's resolver.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from estiba.containers.ports import Paths
from estiba.containers.record import AttachedNetwork, ContainerRecord
from estiba.kernel.files import write_atomic
from estiba.model.container import OF_CONTAINER
from estiba.network.resolv import render_hostname, render_hosts, render_resolv_conf

_RESOLV_CONF = Path("/etc/resolv.conf")
_HOSTS = Path("/etc/hosts")
NAMES = ("hostname", "hosts", "resolv.conf")


@dataclass(frozen=True, slots=True)
class HostFiles:
    """`dns…` are the daemon's settings, for containers that set none."""

    paths: Paths
    dns: Sequence[str] = ()
    dns_options: Sequence[str] = ()
    dns_search: Sequence[str] = ()

    def owner(self, record: ContainerRecord) -> str:
        """Whose files these are: those of the container whose network is shared, if any."""
        mode = record.host_config.network_mode
        return mode.removeprefix(OF_CONTAINER) if mode.startswith(OF_CONTAINER) else record.id

    def path(self, record: ContainerRecord, name: str) -> Path:
        return self.paths.state(self.owner(record)) / name

    def write(self, record: ContainerRecord, networks: list[AttachedNetwork]) -> None:
        """Blocks. Raises InvalidArgument for an extra host that cannot be resolved."""
        if self.owner(record) != record.id:
            return
        host = record.host_config
        shares_host = host.network_mode == "host"
        endpoints = [net.endpoint for net in networks if net.endpoint is not None]
        gateway = next((endpoint.gateway for endpoint in endpoints if endpoint.gateway), "")
        texts = {
            "hostname": render_hostname(hostname(record)),
            "hosts": render_hosts(
                hostname(record),
                domainname=record.config.domainname,
                addresses=[endpoint.ip_address for endpoint in endpoints],
                extra_hosts=host.extra_hosts,
                host_gateway="127.0.0.1" if shares_host else gateway,
                **({"base": _read(_HOSTS)} if shares_host else {}),
            ),
            "resolv.conf": render_resolv_conf(
                _read(_RESOLV_CONF),
                dns=host.dns or self.dns,
                search=host.dns_search or self.dns_search,
                options=host.dns_options or self.dns_options,
                shares_host=shares_host,
            ),
        }
        for name, text in texts.items():
            path = self.paths.state(record.id) / name
            write_atomic(path, text.encode(), mode=0o644, durable=False)


def hostname(record: ContainerRecord) -> str:
    """What the program sees as its host's name."""
    if record.config.hostname:
        return record.config.hostname
    host = record.host_config
    if host.uts_mode == "host" or host.network_mode == "host":
        return os.uname().nodename
    return record.id[:12]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
