"""What the host's own firewall says of a packet that comes in: asked of the kernel, by a trial."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address, IPv6Address

from estiba.kernel import rtnetlink, rtroutes, trial
from estiba.kernel.netlink import NetlinkSocket
from estiba.model.errors import EstibaError
from estiba.network.firewall.table import Firewall
from estiba.network.policy.decide import Source
from estiba.network.policy.egress import Address

_log = logging.getLogger(__name__)

_ADMISSION = "chain admission { jump user-published\ngoto host\n}"
_STRANGERS: dict[int, Address] = {
    4: IPv4Address("203.0.113.77"),
    6: IPv6Address("2001:db8::77"),
}
"""For a machine outside that is not named (RFC 5737, 3849)."""

_HOSTS: dict[int, Address] = {4: IPv4Address("203.0.113.1"), 6: IPv6Address("2001:db8::1")}


class HostGate:
    """`world.HostVerdict`."""

    def __init__(self, firewall: Firewall) -> None:
        self._firewall = firewall

    def __call__(
        self,
        protocol: str,
        port: int,
        address: Address | None,
        source: Source,
        published: bool = False,
    ) -> tuple[bool | None, str]:
        """None where it cannot be said."""
        text = self._firewall.host_text
        if text is None:
            return None, "the host's own firewall is not asked (--publish-policy=open)"
        ours = self._firewall.user_rules("user-published") if published else []
        if not text.chains and not ours:
            return True, "the host's own firewall lets everything in"
        version = (address or source.address or _STRANGERS[4]).version
        comes = source.address or _STRANGERS[version]
        target = address or _HOSTS[version]
        link = source.member.bridge if source.member is not None else _link_towards(comes)
        packet = trial.Packet(link, comes, target, protocol, port)
        rules = "\n".join([str(text), "chain user-published {", *ours, "}", _ADMISSION])
        try:
            admitted = trial.passes(rules, "admission", packet)
        except (EstibaError, OSError) as error:
            _log.info("the host's firewall could not be asked: %s", error)
            return None, "the host's own firewall could not be asked"
        what = "lets it in" if admitted else "refuses it"
        whose = "user-published or the host's own firewall" if ours else "the host's own firewall"
        return admitted, f"{whose} {what} ({link}, from {comes})"


def _link_towards(address: Address) -> str:
    """The link by which packets of that address come, if routing is symmetric."""
    with NetlinkSocket() as handle:
        routes = rtroutes.list_routes(handle)
        links = {link.index: link.name for link in rtnetlink.list_links(handle)}
    found = [
        route
        for route in routes
        if route.network.version == address.version and address in route.network
    ]
    best = max(found, key=lambda route: route.network.prefixlen, default=None)
    return links.get(best.index, "eth0") if best is not None else "eth0"
