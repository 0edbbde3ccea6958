"""Networks as the routes show them."""

from __future__ import annotations

from estiba.daemon.adapters.networks import network_view
from estiba.network.record import NetworkRecord


def test_a_network_without_addresses_of_the_engine_has_the_pool_that_is_none() -> None:
    record = NetworkRecord(id="a" * 64, name="net", driver="blue", created_ns=0, ipam_driver="null")
    view = network_view(record)["IPAM"]
    assert view == {"Driver": "null", "Options": None, "Config": [{"Subnet": "0.0.0.0/0"}]}
