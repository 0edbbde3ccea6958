"""Which networks a container may join and leave, and where its ports are published."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.support.records import make_record

from estiba.containers.joining import Way, plan_connection, plan_disconnection, port_bearer
from estiba.containers.record import AttachedNetwork, ContainerRecord
from estiba.model.container import Config, EndpointSettings, HostConfig
from estiba.model.errors import (
    Conflict,
    EstibaError,
    Forbidden,
    Internal,
    InvalidArgument,
    NotFound,
)
from estiba.model.state import ContainerState
from estiba.network.record import NetworkRecord

IFNAME = "com.docker.network.endpoint.ifname"
DRIVERS = {"bridge": "bridge", "host": "host", "none": "null", "blue": "bridge", "plan": "null"}


def find(name: str) -> NetworkRecord:
    if name not in DRIVERS:
        raise NotFound(f"network {name} not found")
    return NetworkRecord(
        id=name.ljust(64, "0"), name=name, driver=DRIVERS[name], created_ns=0,
        config_only=name == "plan",
    )  # fmt: skip


def on(
    *names: str, mode: str = "bridge", state: str = "running", **options: str
) -> ContainerRecord:
    """A container on these networks."""
    return make_record(
        "web",
        host_config=HostConfig(network_mode=mode),
        state=ContainerState(state),
        networks=[
            AttachedNetwork(network=name, requested=EndpointSettings(driver_opts=dict(options)))
            for name in names
        ],
    )


def test_a_network_is_joined() -> None:
    settings = EndpointSettings(aliases=["a"])
    net = plan_connection(on("bridge"), find("blue"), settings, find)
    assert net == AttachedNetwork(network="blue", requested=settings)
    # One that is gone meanwhile stands in nobody's way.
    assert plan_connection(on("gone"), find("blue"), settings, find) == net


def test_the_address_of_the_container_is_the_main_networks_again() -> None:
    """docker-compose 1.29 leaves the main network and joins it anew before the first start."""
    record = on("bridge", mode="blue", state="created")
    record = msgspec.structs.replace(record, config=Config(mac_address="02:42:0a:00:00:01"))
    net = plan_connection(record, find("blue"), EndpointSettings(), find)
    assert net is not None and net.requested.mac_address == "02:42:0a:00:00:01"
    own = EndpointSettings(mac_address="02:42:0a:00:00:02")
    net = plan_connection(record, find("blue"), own, find)
    assert net is not None and net.requested == own
    net = plan_connection(on("gone"), find("blue"), EndpointSettings(), find)
    assert net is not None and not net.requested.mac_address


def test_joining_twice_is_refused_while_it_runs() -> None:
    nothing = EndpointSettings()
    assert plan_connection(on("blue", state="exited"), find("blue"), nothing, find) is None
    with pytest.raises(Forbidden, match="endpoint with name web already exists in network blue"):
        plan_connection(on("blue"), find("blue"), nothing, find)
    # Noted by its id before the network had a record.
    with pytest.raises(Forbidden, match="already exists"):
        plan_connection(on(find("blue").id), find("blue"), nothing, find)


@pytest.mark.parametrize(
    ("record", "network", "kind", "why"),
    [
        (on(mode="container:x"), "blue", InvalidArgument, "container sharing network namespace"),
        (on("host", mode="host"), "blue", InvalidArgument, "container sharing network namespace"),
        (on("bridge"), "host", InvalidArgument, "cannot connect container to host network"),
        (on("bridge"), "none", InvalidArgument, "private \\(none\\) mode"),
        (on("none", mode="none"), "blue", InvalidArgument, "private \\(none\\) mode"),
        (on("bridge"), "plan", Forbidden, "configuration-only network"),
        (on("bridge", state="removing"), "blue", Conflict, "is marked for removal"),
    ],
)
def test_what_is_refused(
    record: ContainerRecord, network: str, kind: type[EstibaError], why: str
) -> None:
    with pytest.raises(kind, match=why):
        plan_connection(record, find(network), EndpointSettings(), find)


def test_interface_names_are_ones_own() -> None:
    wanted = EndpointSettings(driver_opts={IFNAME: "lan0"})
    with pytest.raises(InvalidArgument, match="lan0 is that of the network bridge"):
        plan_connection(on("bridge", **{IFNAME: "lan0"}), find("blue"), wanted, find)


def test_a_network_is_left() -> None:
    record = on("bridge", "blue")
    assert plan_disconnection(record, find("blue"), "blue") is record.networks[1]
    assert plan_disconnection(on("gone"), None, "gone").network == "gone"
    for network, reference, why in (
        (find("none"), "none", "is not connected to network none"),
        (None, "nope", "is not connected to the network nope"),
    ):
        with pytest.raises(Internal, match=why):
            plan_disconnection(record, network, reference)
    with pytest.raises(InvalidArgument, match="cannot disconnect container from host network"):
        plan_disconnection(on("host", mode="host"), find("host"), "host")
    assert plan_disconnection(on("none", mode="none"), find("none"), "none").network == "none"


@pytest.mark.parametrize(
    ("ways", "bearer"),
    [
        ([], None),
        ([("b", 0, "bridge", True), ("a", 0, "bridge", True)], 1),
        ([("b", 1, "bridge", True), ("a", 0, "bridge", True)], 0),
        ([("a", 0, "bridge", False), ("b", 0, "bridge", True)], 1),
        ([("a", 0, "macvlan", True), ("b", 0, "bridge", True)], 1),
        ([("a", 0, "plugin", True)], 0),
        ([("host", 0, "host", True)], None),
        ([("a", 0, "bridge", False)], None),
    ],
)
def test_ports_are_where_the_way_out_is(ways: list[Any], bearer: int | None) -> None:
    made = [Way(name=n, priority=p, driver=d, is_open=o) for n, p, d, o in ways]
    assert port_bearer(made) == bearer
