"""Sandboxes: one network namespace a container, as a file named by the container's id."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from estiba.kernel import failpoint, rtnetlink, rtroutes
from estiba.kernel.congestion import unpaced
from estiba.kernel.netlink import NetlinkError, NetlinkSocket
from estiba.kernel.netns import ensure_netns, is_netns, open_netlink, remove_netns, run_in_netns
from estiba.kernel.rtroutes import Address, Interface, Network
from estiba.model.errors import InvalidArgument

_log = logging.getLogger(__name__)

_OUT_OF_ORDER = (errno.ENODEV, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL)
_DEFAULTS = {
    # No link-local addresses on networks without IPv6; ::1 on lo stays.
    "net/ipv6/conf/default/disable_ipv6": "1",
    # Announces itself when the interface comes up: an address may have had another MAC before.
    "net/ipv4/conf/default/arp_notify": "1",
    "net/ipv6/conf/default/ndisc_notify": "1",
    # Addresses and routes are the engine's to give, and a neighbour's advertisements are not.
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/autoconf": "0",
    "net/ipv6/conf/default/accept_redirects": "0",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What an interface inside a sandbox is to have."""

    interface: str
    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...] = ()
    """Of the default routes, at most one a family."""

    direct: tuple[int, ...] = ()
    """Families whose default route is the interface itself, without a gateway."""

    is_in_host: bool = False
    """Neighbours on the link are in this host."""

    routes: tuple[tuple[Network, Address | None], ...] = ()
    """Further ones: destination, and gateway unless it is on the link itself."""

    sysctls: Mapping[str, str] = field(default_factory=dict)


def configure(sandbox: Path, setup: Setup, open_port: Callable[[], None] | None = None) -> None:
    """Gives the container's end its addresses, brings it up and routes by the gateways.

    Where something outside has to be opened once it is up, `open_port` does that, and then the
    addresses are announced, so that nobody goes on with the MAC of whoever had them before.

    Raises InvalidArgument for a setting that the kernel does not have or take.
    """
    run_in_netns(sandbox, lambda: _configure(setup, open_port))


def _configure(setup: Setup, open_port: Callable[[], None] | None) -> None:
    name = setup.interface
    if any(address.version == 6 for address in setup.addresses):
        # Never waited for: nobody else has the address (IFA_F_NODAD, and for link-local ones).
        _write(f"net/ipv6/conf/{name}/accept_dad", "0")
        _write(f"net/ipv6/conf/{name}/disable_ipv6", "0")
    with NetlinkSocket() as handle:
        link = rtnetlink.get_link(handle, name)
        index = link.index
        requests = [rtroutes.add_address(index, address) for address in setup.addresses]
        requests.append(rtnetlink.set_link(name, up=True))
        if setup.is_in_host and (algorithm := unpaced()):
            # The first address of each subnet is what its route was made for.
            first = {address.network: address for address in reversed(setup.addresses)}
            requests += [
                rtroutes.set_congestion_control(index, address, algorithm)
                for network, address in first.items()
                if network.prefixlen < network.max_prefixlen
            ]
        requests += [rtroutes.set_default_route(index, gateway) for gateway in setup.gateways]
        requests += [rtroutes.set_direct_route(index, version) for version in setup.direct]
        # Those on the link first: a gateway may be reached by one of them.
        routes = sorted(setup.routes, key=lambda route: route[1] is not None)
        requests += [rtroutes.add_route(index, to, gateway) for to, gateway in routes]
        handle.execute(*requests)
        rtnetlink.settle_carrier(handle, name)
        if open_port is not None:
            open_port()
            # What the kernel announced when the link came up met a closed port. It does so again
            # for a MAC that is set, be it the same.
            handle.execute(rtnetlink.set_link(name, mac=link.mac))
    for key, value in setup.sysctls.items():
        # The name of an interface may have dots itself.
        parts = (part.replace(".", "/") for part in key.split(f".{name}."))
        _set(f"/{name}/".join(parts), key, value)


def open_handle(sandbox: Path) -> NetlinkSocket | None:
    """Keeps the namespace, be the sandbox closed meanwhile; None for one that is gone."""
    try:
        return open_netlink(sandbox)
    except OSError as error:
        # It may be closed while this looks at it.
        if is_netns(sandbox):
            _log.warning("cannot clear away links in %s: %s", sandbox.name, error)
        return None


def remove_interface(handle: NetlinkSocket, interface: str, kind: str) -> None:
    """Deletes a link of that kind, if it is there, and closes the handle."""
    with handle:
        try:
            link = rtnetlink.get_link(handle, interface)
            if link.kind == kind:
                handle.execute(rtnetlink.delete_link(link.index))
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise


def counters(sandbox: Path, interface: str) -> rtnetlink.Counters | None:
    """None for a link that is not there."""

    def inside() -> rtnetlink.Counters | None:
        with NetlinkSocket() as handle:
            try:
                return rtnetlink.get_link(handle, interface).counters
            except NetlinkError as error:
                if error.errno != errno.ENODEV:
                    raise
                return None

    return run_in_netns(sandbox, inside) if is_netns(sandbox) else None


def set_default_routes(sandbox: Path, routes: Iterable[tuple[str, Address]]) -> None:
    """Makes interfaces the way out by gateways, one a family.

    An interface that the container itself has taken away or down is left alone.
    """

    def inside() -> None:
        with NetlinkSocket() as handle:
            for interface, gateway in routes:
                try:
                    index = rtnetlink.get_link(handle, interface).index
                    handle.execute(rtroutes.set_default_route(index, gateway))
                except NetlinkError as error:
                    if error.errno not in _OUT_OF_ORDER:
                        raise
                    _log.warning("%s in %s: %s", interface, sandbox.name, error.strerror)

    run_in_netns(sandbox, inside)


def _set(path: str, key: str, value: str) -> None:
    try:
        Path("/proc/sys", path).write_text(value)
    except OSError as error:
        raise InvalidArgument(f"cannot set {key}={value[:64]}: {error.strerror}") from error


def _write(name: str, value: str) -> None:
    """Where the kernel has that setting: one without IPv6 has none of its."""
    path = Path("/proc/sys", name)
    if path.exists():
        path.write_text(value)


def _prepare() -> None:
    for name, value in _DEFAULTS.items():
        _write(name, value)
    with NetlinkSocket() as handle:
        handle.execute(rtnetlink.set_link("lo", up=True))
