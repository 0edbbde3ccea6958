"""Names of containers, asked over real sockets in real namespaces."""

from __future__ import annotations

import os
import select
import socket
import subprocess

import dns.exception
import dns.flags
import dns.message
import dns.reversename
import pytest
from tests.kernel.network.naming import Named
from tests.support.daemon import wait_until

from estiba.kernel.netns import run_in_netns
from estiba.kernel.nft import Nft, open_notices
from estiba.model.container import EndpointSettings
from estiba.model.errors import InvalidArgument
from estiba.network.dns import server as server_module
from estiba.network.record import NetworkSpec

pytestmark = pytest.mark.kernel


# -- names of containers -------------------------------------------------------------------


def test_containers_find_each_other(named: Named) -> None:
    one = named.join("one", settings=EndpointSettings(aliases=["shared"]))
    two = named.join("two", settings=EndpointSettings(aliases=["shared"]))
    assert named.told("one", "name-two") == two.ip_address
    assert named.told("two", "NAME-ONE.net.") == one.ip_address
    assert named.told("one", "shared") == " ".join(sorted([one.ip_address, two.ip_address]))
    assert named.told("one", "name-two", tcp=True) == two.ip_address
    reverse = ".".join(reversed(two.ip_address.split("."))) + ".in-addr.arpa"
    assert named.told("one", reverse, "PTR") == "name-two.net."
    assert named.told("one", "name-two", "AAAA") == (two.ipv6_address or "nothing")
    named.leave("two")
    assert named.told("one", "shared") == one.ip_address


def test_addresses_of_both_families(named: Named) -> None:
    named.host.networks.create(NetworkSpec(name="dual", enable_ipv6=True))
    named.join("one", "dual")
    two = named.join("two", "dual")
    assert two.ipv6_address
    assert named.told("one", "name-two", "AAAA") == two.ipv6_address
    both = " ".join(sorted([two.ip_address, two.ipv6_address]))
    assert named.told("one", "name-two", "ANY") == both
    reverse = dns.reversename.from_address(two.ipv6_address).to_text()
    assert named.told("one", reverse, "PTR") == "name-two.dual."
    nobody = dns.reversename.from_address(two.ipv6_address[:-1] + "ff").to_text()
    assert named.told("one", nobody, "PTR") == "NXDOMAIN"


def test_a_network_of_ipv6_alone(named: Named) -> None:
    spec = NetworkSpec(name="six", enable_ipv4=False, enable_ipv6=True)
    named.host.networks.create(spec)
    named.join("one", "six")
    two = named.join("two", "six")
    assert (named.told("one", "name-two"), two.ip_address) == ("nothing", "")
    assert named.told("one", "name-two", "AAAA") == two.ipv6_address


def test_the_answer_comes_from_port_53_of_the_server(named: Named) -> None:
    """dnspython, as musl and glibc, passes over answers from elsewhere; here it is looked at."""
    named.join("one")

    def inside() -> tuple[str, int]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.sendto(dns.message.make_query("name-one", "A").to_wire(), ("127.0.0.11", 53))
            return client.recvfrom(512)[1]

    assert run_in_netns(named.sandbox("one"), inside) == ("127.0.0.11", 53)


def test_the_container_may_use_port_53_itself(named: Named) -> None:
    named.join("one")

    def inside() -> None:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as own:
                own.bind(("0.0.0.0", 53))

    run_in_netns(named.sandbox("one"), inside)


def test_the_default_bridge_pays_nothing(named: Named) -> None:
    named.join("one", "bridge")
    assert not named.names.serves("one")

    def tables() -> list[object]:
        nft = Nft()
        try:
            return nft.list_json("list tables")
        finally:
            nft.close()

    assert run_in_netns(named.sandbox("one"), tables) == []
    with pytest.raises(OSError):
        named.told("one", "x", tcp=True, wait_s=0.5)


def test_a_container_joins_and_leaves_while_it_runs(named: Named) -> None:
    named.outsider("@ 60 A 192.0.2.9")
    named.join("one", "bridge")
    two = named.join("two")
    named.join("one")
    assert named.names.serves("one")
    assert named.told("one", "name-two") == two.ip_address
    named.leave("one")
    # Its resolv.conf names no other server: it is served on.
    assert named.told("one", "out.example") == "192.0.2.9"
    named.join("one")
    assert named.told("one", "name-two") == two.ip_address


def test_a_hundred_connects_and_disconnects(named: Named) -> None:
    named.outsider(rcode="NXDOMAIN")
    named.join("one")
    two = named.join("two")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        named.leave("two")
        assert named.told("one", "name-two") == "NXDOMAIN"
        two = named.join("two")
        assert named.told("one", "name-two") == two.ip_address
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before + 4, what="closed sockets")


def test_another_engine_answers_at_once(named: Named) -> None:
    named.join("one")
    two = named.join("two")

    def inside() -> socket.socket:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(5)
        client.connect(("127.0.0.11", 53))
        return client

    with run_in_netns(named.sandbox("one"), inside) as client:
        for _ in range(3):
            query = dns.message.make_query("name-two", "A")
            client.send(query.to_wire())
            reply = dns.message.from_wire(client.recv(512))
            assert reply.id == query.id
            assert reply.answer[0][0].to_text() == two.ip_address
            named.again()
            assert named.told("one", "name-two", tcp=True) == two.ip_address


def test_rules_that_others_delete_come_back(named: Named) -> None:
    named.join("one")
    two = named.join("two")
    sandbox = named.sandbox("one")

    def is_answered() -> bool:
        try:
            return named.told("one", "name-two", tcp=True, wait_s=1) == two.ip_address
        except (OSError, dns.exception.Timeout):
            return False

    for command in ("flush ruleset", "flush table ip estiba_dns", "delete table ip estiba_dns"):
        for _ in range(2):
            subprocess.run(["nsenter", f"--net={sandbox}", "nft", *command.split()], check=True)
            wait_until(is_answered, what=f"an answer after {command}")
    # Its own change is none of others: it does not go on writing.
    with run_in_netns(sandbox, open_notices) as notices:
        assert not select.select([notices], [], [], 2 * server_module.MEND_AFTER_S)[0]


def test_a_sandbox_that_is_gone_does_not_keep_the_engine_from_starting(named: Named) -> None:
    named.join("one")
    two = named.join("two")
    named.names.close()
    lost = named.endpoints.pop(("one", "net"))
    named.host.networks.close_sandbox("one")
    named.endpoints["one", "net"] = lost
    named.again()
    assert named.told("two", "name-two") == two.ip_address
    del named.endpoints["one", "net"]
    named.host.networks.disconnect("one", lost)


def test_custom_records_of_a_network(named: Named) -> None:
    outsider = named.outsider("@ 60 A 192.0.2.9")
    options = {
        "estiba.dns-record": "*.apps.example=10.0.0.5,www.example=name-one",
        "estiba.dns-record.far": "far.example=CNAME:other.example",
    }
    named.host.networks.create(NetworkSpec(name="custom", options=options))
    one = named.join("one", "custom")
    assert named.told("one", "x.apps.example") == "10.0.0.5"
    assert named.told("one", "www.example") == f"{one.ip_address} name-one."
    assert named.told("one", "far.example") == "192.0.2.9 other.example."
    assert [query.question[0].name.to_text() for query in outsider.asked] == ["other.example."]
    with pytest.raises(InvalidArgument, match="invalid DNS record"):
        named.host.networks.create(NetworkSpec(name="bad", options={"estiba.dns-record": "x"}))
