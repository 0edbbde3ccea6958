from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest

from estiba.model.errors import InvalidArgument
from estiba.network.firewall.contents import Contents
from estiba.network.firewall.elements import change
from estiba.network.firewall.rules import (
    BridgeRule,
    EndpointRule,
    PortRule,
    check_interface_name,
    table_name,
)
from estiba.network.firewall.text import render_bridge, render_inet

BLUE = BridgeRule("blue", (IPv4Network("10.0.0.0/24"),))
RED = BridgeRule("red", (IPv4Network("10.0.1.0/24"),), icc=False, internal=True)


WEB = PortRule("tcp", "0.0.0.0", 8080, IPv4Address("10.0.0.2"), 80)
DNS = PortRule("udp", "127.0.0.1", 53, IPv4Address("10.0.0.3"), 5353)
WEB6 = PortRule("tcp", "::", 8080, IPv6Address("fd00::2"), 80)
DNS6 = PortRule("udp", "0:0::1", 53, IPv6Address("fd00::3"), 5353)
LINK = EndpointRule("es1", "blue", "02:42:0A:00:00:02", (IPv4Address("10.0.0.2"),))


def test_what_differs_is_elements_only() -> None:
    contents = Contents()
    for bridge in BLUE, RED:
        contents.put_bridge(bridge)
    contents.put_ports([WEB, DNS, WEB6, DNS6])
    contents.put_endpoint(LINK)
    text = render_inet("t", contents.elements())
    assert 'set bridges { type ifname; elements = { "blue", "red" }; }' in text
    assert 'set talking { type ifname . ifname; elements = { "blue" . "blue" }; }' in text
    assert 'set internal { type ifname; elements = { "red" }; }' in text
    assert 'elements = { "blue" . 10.0.0.0/24, "red" . 10.0.1.0/24 }' in text
    assert "set leaving { type ipv4_addr; flags interval; elements = { 10.0.0.0/24 }; }" in text
    assert "elements = { tcp . 8080 : 10.0.0.2 . 80 }" in text
    assert "elements = { 127.0.0.1 . udp . 53 : 10.0.0.3 . 5353 }" in text
    assert "elements = { tcp . 8080 : fd00::2 . 80 }" in text
    assert "elements = { ::1 . udp . 53 : fd00::3 . 5353 }" in text
    chains = text[text.index("chain guard") :]
    assert chains == render_inet("t", {})[-len(chains) :]
    text = render_bridge("t", contents.elements())
    assert 'elements = { "es1" . 02:42:0a:00:00:02 }' in text
    assert 'elements = { "es1" . fe80::42:aff:fe00:2 }' in text
    assert 'elements = { "es1" . 0xfe800000000000000042' in text


def test_a_change_names_what_goes_and_what_comes() -> None:
    contents = Contents()
    contents.put_ports([WEB])
    moved = replace(WEB, address=IPv4Address("10.0.0.9"))
    assert change("t", *contents.put_ports([moved])).splitlines() == [
        "delete element inet t published { tcp . 8080 }",
        "add element inet t published { tcp . 8080 : 10.0.0.9 . 80 }",
    ]
    assert change("t", *contents.drop_ports([WEB])) == "", "it belongs to another by now"
    assert change("t", *contents.put_bridge(BLUE)) != ""
    assert change("t", *contents.put_bridge(BLUE)) == ""


def test_names() -> None:
    assert table_name("br-1.x") == "estiba_br_1_x"
    assert check_interface_name("br-1.x") == "br-1.x"
    for name in ("", ".", "a b", "a/b", "x" * 16, 'a"'):
        with pytest.raises(InvalidArgument):
            check_interface_name(name)
