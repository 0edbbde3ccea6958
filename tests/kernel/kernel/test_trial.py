"""What rules say of a packet that is sent for a trial."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from estiba.kernel.trial import Packet, passes
from estiba.model.errors import Internal

pytestmark = pytest.mark.kernel

RULES = """\
chain host { goto rest
}
chain rest {
  ct state invalid drop
  ct state established accept
  tcp dport 22 accept
  ip saddr 10.0.0.0/8 udp dport 53 accept
  iifname "eth7" sctp dport 9 accept
  icmp type echo-request accept
  icmpv6 type echo-request accept
  ip6 saddr fd00::/8 tcp dport 80 accept
  drop
}"""


@pytest.mark.parametrize(
    ("link", "source", "protocol", "port", "admitted"),
    [
        ("eth7", "10.1.1.1", "tcp", 22, True),
        ("eth7", "10.1.1.1", "tcp", 23, False),
        ("eth7", "10.1.1.1", "udp", 53, True),
        ("eth7", "11.1.1.1", "udp", 53, False),
        ("eth7", "11.1.1.1", "sctp", 9, True),
        ("eth8", "11.1.1.1", "sctp", 9, False),
        ("eth8", "11.1.1.1", "icmp", 0, True),
        ("eth8", "fd00::1", "tcp", 80, True),
        ("eth8", "fe00::1", "tcp", 80, False),
        ("eth8", "fd00::1", "icmp", 0, True),
        ("eth8", "fd00::1", "udp", 80, False),
    ],
)
def test_rules_see_the_packet(
    link: str, source: str, protocol: str, port: int, admitted: bool
) -> None:
    target = "192.0.2.1" if "." in source else "2001:db8::1"
    packet = Packet(link, ip_address(source), ip_address(target), protocol, port)
    assert passes(RULES, "host", packet) is admitted


def test_rules_that_make_no_sense() -> None:
    ends = ip_address("10.0.0.1"), ip_address("10.0.0.2")
    with pytest.raises(Internal):
        passes("chain host { nonsense }", "host", Packet("eth7", *ends, "tcp", 1))
