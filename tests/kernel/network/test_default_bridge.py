"""The default bridge: of the engine's making, of somebody else's, and none."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface

import pytest
from tests.kernel.network.private_host import Host

from estiba.kernel import rtnetlink, rtroutes
from estiba.kernel.netlink import NetlinkSocket
from estiba.model.errors import (
    InvalidArgument,
)
from estiba.network.networks import Networks
from estiba.network.record import NetworkSpec

pytestmark = pytest.mark.kernel


def test_bip_moves_the_default_bridge(host: Host) -> None:
    networks = host.again(bip="10.88.0.1/24")
    networks.restore([])
    assert host.attach("one").ip_address == "10.88.0.2"
    assert networks.network("bridge").pools[0].gateway == "10.88.0.1"
    with NetlinkSocket() as handle:
        addresses = [str(address) for _, address in rtroutes.list_addresses(handle)]
    assert "172.17.0.1/16" not in addresses
    with pytest.raises(InvalidArgument, match="invalid --bip"):
        host.again(bip="300.0.0.1/24")
    host.networks = Networks(host.config, host.store)
    host.networks.start()


def test_a_host_without_a_default_bridge(host: Host) -> None:
    endpoint = host.attach("earlier")
    bare = Networks(replace(host.config, bridge="none"), host.store)
    host.networks.stop()
    bare.start()
    bare.restore([endpoint])
    bare.create(NetworkSpec(name="blue"))
    host.networks, regular = bare, host.networks
    assert bare.network("bridge").driver == "null"
    assert host.attach("one").interface == "" and host.attach("one", "blue").ip_address
    with NetlinkSocket() as handle:
        assert "none" not in [link.name for link in rtnetlink.list_links(handle)]
    for name in "one", "earlier":
        bare.close_sandbox(name)
    bare.remove("blue")
    bare.drain()
    bare.remove_all_traces()
    host.networks = regular
    networks = host.again()
    networks.restore([])
    assert networks.network("bridge").owns_bridge
    assert host.attach("one").ip_address and networks.network("bridge").driver == "bridge"


def test_the_default_subnet_avoids_what_the_host_uses(host: Host) -> None:
    networks = host.networks
    with NetlinkSocket() as handle:
        index = rtnetlink.get_link(handle, "up0").index
        handle.execute(rtroutes.add_address(index, ip_interface("172.18.3.1/24")))
    assert networks.create(NetworkSpec(name="blue")).pools[0].subnet == "172.19.0.0/16"


def test_a_bridge_of_somebody_else_stays(host: Host) -> None:
    with NetlinkSocket() as handle:
        handle.execute(rtnetlink.add_bridge("theirs", mac="02:00:00:00:01:01", mtu=1500))
    host.networks.remove_all_traces()
    networks = Networks(replace(host.config, bridge="theirs"), host.store)
    networks.start()
    networks.restore([])
    assert not networks.network("bridge").owns_bridge
    networks.remove_all_traces()
    with NetlinkSocket() as handle:
        assert rtnetlink.get_link(handle, "theirs").kind == "bridge"
        handle.execute(rtnetlink.delete_link("theirs"))
    host.networks = Networks(host.config, host.store)
    host.networks.start()
