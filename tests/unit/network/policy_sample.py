"""A network with rules, one with lists, and containers on them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from estiba.network.policy.egress import parse_egress
from estiba.network.policy.members import Member, NetworkView
from estiba.network.policy.rules import parse_policy


def network(number: int, policy: str = "", egress: str = "") -> NetworkView:
    return NetworkView(
        id=f"{number}" * 64,
        name=f"n{number}",
        bridge=f"br{number}",
        subnets=(ip_network(f"10.{number}.0.0/16"), ip_network(f"fd00:{number}::/64")),
        gateways=(ip_address(f"10.{number}.0.1"), ip_address(f"fd00:{number}::1")),
        policy=parse_policy(policy),
        egress=parse_egress(egress),
    )


def member(
    name: str, number: int, host: int, egress: str = "", labels: dict[str, str] | None = None
) -> Member:
    return Member(
        container_id=name * 16,
        name=name,
        network_id=f"{number}" * 64,
        network_name=f"n{number}",
        link=f"es{host:012x}",
        bridge=f"br{number}",
        mac=f"02:00:00:00:0{number}:{host:02x}",
        addresses=(ip_address(f"10.{number}.0.{host}"), ip_address(f"fd00:{number}::{host:x}")),
        names=frozenset([name]),
        labels=labels or {},
        egress=parse_egress(egress),
    )


CLOSED = network(
    1,
    "default closed\n"
    "allow from=web,label:tier=api,10.9.0.0/16 to=db port=5432/tcp,53/udp,icmp\n"
    "deny from=outside to=web port=22\n"
    "allow to=web from=any\n"
    "allow from=host to=db",
)
LISTED = network(2, egress="allow=*.debian.org:443,allow=10.0.0.0/8,allow=*:53/udp,allow=fd00::/8")
NETWORKS = {view.id: view for view in (CLOSED, LISTED)}
WEB, DB = member("web", 1, 2), member("db", 1, 3)
