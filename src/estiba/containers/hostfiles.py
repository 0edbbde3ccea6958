"""The container's /etc/hostname, /etc/hosts and /etc/resolv.conf, kept beside its log.

They are written anew at each start: addresses change, and so does the host's resolver. While the
container runs, /etc/hosts is changed in place, for it is mounted, and what the container's own
programs wrote there stays.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from estiba.containers.links import link_names, linked_addresses
from estiba.containers.ports import Paths
from estiba.containers.record import AttachedNetwork, ContainerRecord
from estiba.containers.resolvconf import Resolver
from estiba.kernel.files import edit_in_place, write_atomic
from estiba.model.container import OF_CONTAINER
from estiba.network.record import Endpoint
from estiba.network.resolv import (
    HOST_GATEWAY,
    own_names,
    parse_extra_host,
    render_hostname,
    render_hosts,
    with_hosts,
)

_HOSTS = Path("/etc/hosts")
_MAX_HOSTS_BYTES = 1 << 20
NAMES = ("hostname", "hosts", "resolv.conf")

Linked = Callable[[ContainerRecord], dict[str, ContainerRecord]]
"""The containers that one is linked to, by the alias that it knows them by."""


@dataclass(frozen=True, slots=True)
class HostFiles:
    """All three files of every container."""

    paths: Paths
    resolver: Resolver = field(default_factory=Resolver)
    linked: Linked = lambda _record: {}
    host_gateway: str = ""
    """What `host-gateway` stands for in extra hosts; empty is the bridge's own address."""

    _changing: threading.Lock = field(default_factory=threading.Lock)

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
        hosts = render_hosts(
            hostname(record),
            domainname=record.config.domainname,
            addresses=_addresses(endpoints),
            extra_hosts=host.extra_hosts,
            host_gateway=self.host_gateway or ("127.0.0.1" if shares_host else gateway),
            **({"base": _read(_HOSTS)} if shares_host else {}),
        )
        texts = {
            "hostname": render_hostname(hostname(record)),
            "hosts": with_hosts(hosts, self._links(record)),
        }
        state = self.paths.state(record.id)
        for name, text in texts.items():
            data = text.encode(errors="surrogateescape")
            write_atomic(state / name, data, mode=0o644, durable=False)
        self.resolver.write(state, record, ipv6=_has_ipv6(networks))

    def update_resolver(self, record: ContainerRecord, networks: list[AttachedNetwork]) -> None:
        """Makes /etc/resolv.conf of a container that is up fit its networks. Blocks.

        Raises OSError.
        """
        if self.owner(record) == record.id:
            state = self.paths.state(record.id)
            self.resolver.refresh(state, record, ipv6=_has_ipv6(networks))

    def update_hosts(
        self, record: ContainerRecord, networks: list[AttachedNetwork], gone: Sequence[str] = ()
    ) -> None:
        """Makes /etc/hosts of a container that is up say where it and its linked ones are.

        `gone` are the names of links that it no longer has. Blocks. Raises OSError.
        """
        if self.owner(record) != record.id or record.host_config.network_mode == "host":
            return
        endpoints = [net.endpoint for net in networks if net.endpoint is not None]
        own = own_names(hostname(record), record.config.domainname)
        wanted = {
            **{names: [] for names in gone},
            **self._links(record),
            own: _addresses(endpoints),
        }
        extra = [parse_extra_host(entry) for entry in record.host_config.extra_hosts]
        kept = [f"{address}\t{name}" for name, address in extra if address != HOST_GATEWAY]

        def edit(old: bytes) -> bytes:
            text = old.decode(errors="surrogateescape")
            return with_hosts(text, wanted, kept=kept).encode(errors="surrogateescape")

        with self._changing:
            edit_in_place(self.path(record, "hosts"), edit, limit=_MAX_HOSTS_BYTES)

    def _links(self, record: ContainerRecord) -> dict[str, list[str]]:
        """Addresses by the names that links give."""
        if not record.links:
            return {}
        return {
            link_names(alias, child): linked_addresses(child)
            for alias, child in self.linked(record).items()
        }


def _has_ipv6(networks: Sequence[AttachedNetwork]) -> bool:
    return any(net.endpoint is not None and net.endpoint.ipv6_address for net in networks)


def _addresses(endpoints: Sequence[Endpoint]) -> list[str]:
    found = [
        address
        for endpoint in endpoints
        for address in (endpoint.ip_address, endpoint.ipv6_address)
    ]
    return [address for address in found if address]


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
        return path.read_text("utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""
