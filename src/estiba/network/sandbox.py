"""Sandboxes: one network namespace a container, as a file named by the container's id."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from estiba.kernel import failpoint, rtnetlink
from estiba.kernel.netlink import NetlinkSocket
from estiba.kernel.netns import ensure_netns, remove_netns, run_in_netns

_DEFAULTS = {
    # No link-local addresses on networks without IPv6; ::1 on lo stays.
    "net/ipv6/conf/default/disable_ipv6": "1",
    # Announces itself when the interface comes up: an address may have had another MAC before.
    "net/ipv4/conf/default/arp_notify": "1",
}


class Sandboxes:
    """The namespaces under one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, container_id: str) -> Path:
        return self._root / container_id

    def open(self, container_id: str) -> Path:
        """The namespace of a container, with its loopback up; made if it is not there."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path(container_id)
        ensure_netns(path, _prepare)
        failpoint.hit("network.sandbox-open")
        return path

    def close(self, container_id: str) -> None:
        """Takes the namespace away; none is no error."""
        remove_netns(self.path(container_id))

    def ids(self) -> Iterator[str]:
        """The containers that have a sandbox, whole or left half made by a crash."""
        if self._root.is_dir():
            yield from (entry.name for entry in self._root.iterdir())


def configure(
    sandbox: Path, interface: str, address: IPv4Interface, *, gateway: IPv4Address | None
) -> None:
    """Gives the container's end its address, brings it up and routes by `gateway`."""

    def inside() -> None:
        with NetlinkSocket() as handle:
            index = rtnetlink.get_link(handle, interface).index
            requests = [
                rtnetlink.add_address(index, address),
                rtnetlink.set_link(interface, up=True),
            ]
            if gateway is not None:
                requests.append(rtnetlink.set_default_route(index, gateway))
            handle.execute(*requests)

    run_in_netns(sandbox, inside)


def set_default_route(sandbox: Path, interface: str, gateway: IPv4Address) -> None:
    """Makes another interface the way out."""

    def inside() -> None:
        with NetlinkSocket() as handle:
            index = rtnetlink.get_link(handle, interface).index
            handle.execute(rtnetlink.set_default_route(index, gateway))

    run_in_netns(sandbox, inside)


def _prepare() -> None:
    for name, value in _DEFAULTS.items():
        path = Path("/proc/sys", name)
        if path.exists():
            path.write_text(value)
    with NetlinkSocket() as handle:
        handle.execute(rtnetlink.set_link("lo", up=True))
