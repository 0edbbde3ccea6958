"""Links taken away by hand, engines killed in the middle, and many at once."""

from __future__ import annotations

import signal
import subprocess
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from tests.kernel.network.private_host import Host
from tests.kernel.network.probes import addresses, default_route, links, ping, run_child
from tests.support.daemon import wait_until

from estiba.kernel import rtnetlink
from estiba.kernel.netlink import NetlinkSocket
from estiba.model.errors import Conflict, FailedPrecondition
from estiba.network.networks import Networks
from estiba.network.record import KIND, IpamConfig, NetworkSpec, PortRequest
from estiba.store import Store, Transaction
from estiba.store.events import EventBus

pytestmark = pytest.mark.kernel


def run(*words: str) -> None:
    subprocess.run(words, check=True)


def forget(tx: Transaction, network_id: str) -> None:
    tx.delete(KIND, network_id)


def names() -> list[str]:
    with NetlinkSocket() as handle:
        return sorted(link.name for link in rtnetlink.list_links(handle))


# -- by hand -----------------------------------------------------------------------------------


def test_a_bridge_taken_away_comes_back_with_its_containers(host: Host) -> None:
    network = host.networks.create(NetworkSpec(name="blue", enable_ipv6=True))
    one = host.attach("one", network="blue")
    run("ip", "link", "del", network.bridge)
    two = host.attach("two", network="blue")
    here = host.networks.sandbox_path("one")
    for address in (two.ip_address, two.ipv6_address, one.gateway, one.ipv6_gateway):
        assert ping(here, address), address


def test_a_bridge_taken_away_while_no_engine_ran(host: Host) -> None:
    network = host.networks.create(NetworkSpec(name="blue"))
    pair = [host.attach(name, network="blue") for name in ("one", "two")]
    host.networks.stop()
    run("ip", "link", "del", network.bridge)
    host.networks = Networks(host.config, host.store)
    host.networks.start()
    host.networks.restore(pair)
    assert ping(host.networks.sandbox_path("one"), pair[1].ip_address)


def test_a_pair_taken_away_is_no_error_and_comes_with_the_next_start(host: Host) -> None:
    one = host.attach("one", ports=[PortRequest(container_port=80, host_port="8080")])
    run("ip", "link", "del", one.host_interface)
    assert host.networks.interface_statistics("one") == {}
    host.networks.republish("one", one, [PortRequest(container_port=80, host_port="8081")])
    host.networks.disconnect("one", one)
    assert ping(host.networks.sandbox_path("one"), host.attach("one").gateway)


def test_the_first_containers_on_a_network_that_could_not_be_made_have_each_their_address(
    host: Host,
) -> None:
    network = host.networks.create(NetworkSpec(name="blue"))
    host.networks.stop()
    run("ip", "link", "del", network.bridge)
    run("ip", "link", "add", network.bridge, "type", "veth", "peer", "name", "other0")
    host.networks = Networks(host.config, host.store)
    host.networks.start()
    with pytest.raises(FailedPrecondition, match="no bridge"):
        host.attach("early", network="blue")
    run("ip", "link", "del", network.bridge)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: host.attach(f"c{n}", network="blue"), range(8)))
    assert len({endpoint.ip_address for endpoint in found}) == 8
    for endpoint in found:
        assert ping(host.networks.sandbox_path(endpoint.container_id), endpoint.gateway)


def test_networks_whose_bridge_is_gone_are_removed(host: Host) -> None:
    network = host.networks.create(NetworkSpec(name="blue"))
    run("ip", "link", "del", network.bridge)
    host.networks.remove("blue")
    assert [one.name for one in host.networks.networks()] == ["bridge", "host", "none"]


def test_what_the_container_did_to_its_interfaces_does_not_keep_it_here(host: Host) -> None:
    """A privileged one deletes eth0 and makes an eth1 of its own."""
    host.networks.create(NetworkSpec(name="blue", enable_ipv6=True))
    host.attach("one", network="blue")
    bridge = host.attach("one")
    inside = ["nsenter", f"--net={host.networks.sandbox_path('one')}", "ip", "link"]
    run(*inside, "del", "eth0")
    host.networks.disconnect("one", bridge)
    host.networks.drain()
    run(*inside, "add", "eth1", "type", "bridge")
    with pytest.raises(Conflict, match="has an interface eth1 that is not the engine's"):
        host.attach("one")
    run(*inside, "del", "eth1")
    assert host.attach("one").interface == "eth1"
    host.networks.close_sandbox("one")


def test_links_of_networks_without_a_record_go_at_the_next_start(host: Host) -> None:
    """An engine that died after it had forgotten a network, before the kernel had."""
    kept = [
        host.networks.create(NetworkSpec(name=f"kept-{d}", driver=d)) for d in ("bridge", "macvlan")
    ]
    lost = [
        host.networks.create(NetworkSpec(name=f"lost-{d}", driver=d)) for d in ("bridge", "macvlan")
    ]
    for record in lost:
        host.store.commit_blocking(partial(forget, network_id=record.id), durable=True)
    host.again().restore([])
    host.networks.drain()
    left = set(names())
    assert not {record.bridge or record.parent for record in lost} & left
    assert {"estiba9", *(record.bridge or record.parent for record in kept)} <= left
    for record in kept:
        host.networks.remove(record.id)


def test_a_name_and_a_subnet_are_free_at_once(host: Host) -> None:
    """Although the kernel takes its time to delete a bridge."""
    spec = NetworkSpec(
        name="blue",
        pools=[IpamConfig(subnet="10.8.0.0/24")],
        options={"com.docker.network.bridge.name": "blue0"},
    )
    for _ in range(3):
        made = host.networks.create(spec)
        assert made.owns_bridge
        one, two = (host.attach(name, network="blue") for name in ("one", "two"))
        assert ping(host.networks.sandbox_path("one"), two.ip_address)
        for endpoint in (one, two):
            host.networks.disconnect(endpoint.container_id, endpoint)
        host.networks.remove("blue")
    host.networks.drain()
    assert "blue0" not in names()


# -- live containers ---------------------------------------------------------------------------


def test_default_routes_of_both_families_move(host: Host) -> None:
    host.networks.create(NetworkSpec(name="a4"))
    host.networks.create(NetworkSpec(name="b6", enable_ipv4=False, enable_ipv6=True))
    host.networks.create(NetworkSpec(name="c46", enable_ipv6=True))
    here = host.networks.sandbox_path("one")
    both = host.attach("one", network="c46")
    four = host.attach("one", network="a4")
    six = host.attach("one", network="b6")
    assert (both.interface, four.interface, six.interface) == ("eth0", "eth1", "eth2")

    def ways() -> tuple[str, str]:
        found = (default_route(here, version).split() for version in (4, 6))
        four, six = (words[words.index("dev") + 1] if words else "" for words in found)
        return four, six

    assert ways() == ("eth1", "eth2")
    host.networks.disconnect("one", four)
    assert ways() == ("eth0", "eth2")
    host.networks.disconnect("one", six)
    assert ways() == ("eth0", "eth0")
    host.networks.disconnect("one", both)
    host.networks.drain()
    assert ways() == ("", "")


def test_a_hundred_times_in_a_loop(host: Host) -> None:
    host.networks.create(NetworkSpec(name="blue", enable_ipv6=True))
    host.attach("one")
    here = host.networks.sandbox_path("one")
    for _ in range(100):
        joined = host.attach("one", network="blue")
        assert joined.interface == "eth1"
        host.networks.disconnect("one", joined)
    host.networks.drain()
    assert "eth1" not in links(here)
    assert len(names()) == len(set(names())) <= 7
    assert ping(here, host.networks.endpoints(host.networks.network("bridge").id)[0].gateway)


def test_renaming_reaches_those_who_keep_names(host: Host) -> None:
    heard: list[str] = []

    class Observer:
        def joining(self, network: object, endpoint: object) -> None: ...

        def joined(self, network: object, endpoint: object) -> None:
            heard.append(f"joined {endpoint.container_name} {endpoint.dns_names}")  # type: ignore[attr-defined]

        def left(self, endpoint: object) -> None:
            heard.append(f"left {endpoint.container_name}")  # type: ignore[attr-defined]

        def adopted(self, endpoints: object) -> None: ...

        def removed(self, network: object) -> None: ...

    host.networks.stop()
    host.networks = Networks(host.config, host.store, [Observer()])
    host.networks.start()
    host.networks.restore([])
    host.networks.create(NetworkSpec(name="blue"))
    host.attach("one", network="blue")
    (changed,) = host.networks.rename("one", "first")
    assert heard == [
        "joined name-one ['name-one', 'one']",
        "left name-one",
        "joined first ['first', 'one']",
    ]
    assert host.networks.endpoints(changed.network_id) == [changed]


# -- many --------------------------------------------------------------------------------------


def test_two_hundred_containers_on_one_network(host: Host) -> None:
    host.networks.create(NetworkSpec(name="crowd", enable_ipv6=True))

    def attach(number: int) -> str:
        ports = [PortRequest(container_port=80)] if number % 20 == 0 else []
        return host.attach(f"c{number}", network="crowd", ports=ports).ipv6_address

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(attach, range(200)))
    assert len(set(given)) == 200
    assert ping(host.networks.sandbox_path("c0"), given[199])
    assert ping(host.networks.sandbox_path("c199"), given[0])


def test_networks_at_once_choose_different_subnets(host: Host) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(
            pool.map(
                lambda n: host.networks.create(NetworkSpec(name=f"n{n}", enable_ipv6=True)),
                range(12),
            )
        )
    subnets = [pool.subnet for network in made for pool in network.pools]
    assert len(set(subnets)) == 24
    for network in made:
        host.networks.remove(network.id)


# -- killed ------------------------------------------------------------------------------------

CHILD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from estiba.network.networks import Networks
    from estiba.network.plan import NetworkConfig
    from estiba.network.record import NetworkSpec, PortRequest
    from estiba.store import Store
    from estiba.store.events import EventBus
    root = Path(sys.argv[1])
    store = Store.open(root / "child.db", EventBus())
    networks = Networks(NetworkConfig(netns_root=root / "netns", bridge="estiba9"), store)
    networks.start()
    networks.restore([])
    def port(host_port):
        return PortRequest(container_port=80, host_port=host_port)
    networks.create(NetworkSpec(name="blue", enable_ipv6=True))
    networks.create(NetworkSpec(name="mac", driver="macvlan", enable_ipv6=True))
    networks.open_sandbox("one")
    lan = networks.connect("one", container_name="one", network="mac")
    made = networks.connect("one", container_name="one", network="blue", ports=[port("8080")])
    made = networks.republish("one", made, [port("8080"), port("8081")])
    networks.disconnect("one", made)
    networks.disconnect("one", lan)
    networks.remove("mac")
    networks.remove("blue")
    """
)

POINTS = [
    *(f"network.{step}" for step in ("recorded", "bridge-made#2", "bridge-admitted")),
    *(f"network.{step}" for step in ("recorded#2", "parent-made", "child-made")),
    *(f"network.{step}" for step in ("veth-made", "veth-configured")),
    *(f"network.{step}" for step in ("ports-held", "ports-translated")),
    *(f"network.{step}" for step in ("ports-held#2", "ports-translated#2")),
    *(f"network.{step}" for step in ("ports-released", "veth-removed", "child-removed")),
    *(f"network.{step}" for step in ("bridge-dismissed", "bridge-removed", "bridge-removed#2")),
]


@pytest.fixture
def bare(host: Host) -> Iterator[Host]:
    """The host without an engine."""
    host.networks.remove_all_traces()
    yield host
    host.networks = Networks(host.config, host.store)
    host.networks.start()


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_step_nothing_is_left(bare: Host, tmp_path: Path, point: str) -> None:
    """What the next engine finds is either whole or gone; then all of it can be taken away."""
    before = names()
    child = run_child(CHILD, tmp_path, f"{point}=kill")
    assert child.returncode == -signal.SIGKILL, child.stderr
    store = Store.open(tmp_path / "child.db", EventBus())
    networks = Networks(bare.config, store)
    networks.start()
    networks.restore([])
    networks.sweep([])
    networks.drain()
    assert list((tmp_path / "netns").glob("*")) == []
    records = [record for record in networks.networks() if not record.predefined]
    wanted = {
        *before,
        "estiba9",
        *(record.bridge for record in records if record.bridge),
        *(record.parent for record in records if record.parent),
        *(record.parent.replace("dm-", "dp-") for record in records if record.parent),
    }
    # The kernel takes a veth away in its own time once its namespace is gone.
    wait_until(lambda: set(names()) == wanted, what=f"no links but {wanted}")
    # The same again, whole this time.
    for record in records:
        networks.remove(record.id)
    networks.create(NetworkSpec(name="blue", enable_ipv6=True))
    networks.open_sandbox("one")
    ports = [PortRequest(container_port=80, host_port=port) for port in ("8080", "8081")]
    made = networks.connect("one", container_name="one", network="blue", ports=ports)
    assert f"{made.ipv6_address}/64" in addresses(networks.sandbox_path("one"), "eth0")
    networks.close_sandbox("one")
    networks.remove("blue")
    networks.remove_all_traces()
    wait_until(lambda: names() == before, what="no links of the engine")
    store.close()


STEPS = [
    *(f"network.{step}" for step in ("recorded", "bridge-made#2", "bridge-admitted")),
    *(f"network.{step}" for step in ("recorded#2", "parent-made", "child-made")),
    *(f"network.{step}" for step in ("veth-made", "veth-configured")),
    *(f"network.{step}" for step in ("ports-held", "ports-translated")),
    *(f"network.{step}" for step in ("ports-held#2", "ports-translated#2")),
]


@pytest.mark.parametrize("point", STEPS)
def test_a_step_that_fails_is_undone(bare: Host, tmp_path: Path, point: str) -> None:
    """The engine lives on; what failed is not there, or as it was before."""
    before = names()
    body = textwrap.indent(
        CHILD.partition("def port")[2].partition("networks.disconnect")[0], "    "
    )
    script = (
        CHILD.partition("def port")[0]
        + "try:\n    def port"
        + body
        + textwrap.dedent(
            """
            except OSError as error:
                print(error)
            for endpoint in networks.endpoints(networks.network("blue").id) if any(
                one.name == "blue" for one in networks.networks()
            ) else []:
                print([one.host_port for one in endpoint.ports["80/tcp"]])
                networks.republish("one", endpoint, [port("8080"), port("8081")])
            networks.close_sandbox("one")
            for record in networks.networks():
                if not record.predefined:
                    networks.remove(record.id)
            networks.drain()
            networks.remove_all_traces()
            store.close()
            """
        )
    )
    child = run_child(script, tmp_path, f"{point}=error")
    assert (child.returncode, child.stderr) == (0, "")
    assert f"failpoint {point.partition('#')[0]}" in child.stdout
    if point.endswith(("held#2", "translated#2")):
        assert "['8080', '8080']" in child.stdout, "a change of ports that failed changes nothing"
    wait_until(lambda: names() == before, what="no links of the engine")
