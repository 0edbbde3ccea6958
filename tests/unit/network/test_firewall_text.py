from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from estiba.model.errors import InvalidArgument
from estiba.network.firewall.rules import (
    BridgeRule,
    PortRule,
    check_interface_name,
    table_name,
)
from estiba.network.firewall.table import render_table

BLUE = BridgeRule("blue", (IPv4Network("10.0.0.0/24"),))
RED = BridgeRule("red", (IPv4Network("10.0.1.0/24"),), icc=False, internal=True)


def test_what_differs_is_elements_only() -> None:
    ports = [
        PortRule("tcp", "0.0.0.0", 8080, IPv4Address("10.0.0.2"), 80),
        PortRule("udp", "127.0.0.1", 53, IPv4Address("10.0.0.3"), 5353),
    ]
    text = render_table("t", [BLUE, RED], ports)
    assert 'set bridges { type ifname; elements = { "blue", "red" }; }' in text
    assert 'set talking { type ifname . ifname; elements = { "blue" . "blue" }; }' in text
    assert 'set internal { type ifname; elements = { "red" }; }' in text
    assert 'elements = { "blue" . 10.0.0.0/24, "red" . 10.0.1.0/24 }' in text
    assert "set leaving { type ipv4_addr; flags interval; elements = { 10.0.0.0/24 }; }" in text
    assert "elements = { tcp . 8080 : 10.0.0.2 . 80 }" in text
    assert "elements = { 127.0.0.1 . udp . 53 : 10.0.0.3 . 5353 }" in text
    chains = text[text.index("chain guard") :]
    assert chains == render_table("t", [], [])[-len(chains) :]


def test_names() -> None:
    assert table_name("br-1.x") == "estiba_br_1_x"
    assert check_interface_name("br-1.x") == "br-1.x"
    for name in ("", ".", "a b", "a/b", "x" * 16, 'a"'):
        with pytest.raises(InvalidArgument):
            check_interface_name(name)
