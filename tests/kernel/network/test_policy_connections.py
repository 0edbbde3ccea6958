"""Connections that go on when the policies of a network change."""

from __future__ import annotations

import socket

import pytest
from tests.kernel.network.guarded_host import QUIET_S, Conversation, GuardedHost
from tests.kernel.network.private_host import HOST_ADDRESS, OUTSIDE_ADDRESS, OUTSIDE_ADDRESS6
from tests.support.daemon import wait_until

from estiba.kernel.netns import run_in_netns
from estiba.model.container import EndpointIpamConfig, EndpointSettings
from estiba.network.policy.members import Facts
from estiba.network.record import PortRequest

pytestmark = pytest.mark.kernel


def test_a_rule_taken_away_cuts_a_connection_within_a_bridge(guarded: GuardedHost) -> None:
    guarded.make("app")
    db = guarded.join("db", "app")
    guarded.join("web", "app")
    guarded.allow("app", "default closed\nallow from=name-web to=name-db")
    with Conversation(guarded.box("web"), guarded.box("db"), db.ip_address) as talk:
        assert talk.goes_on()
        guarded.allow("app", "default closed\nallow from=name-web to=name-db port=7777")
        assert talk.goes_on(), "it fits the new rule too"
        guarded.allow("app", "default closed")
        assert talk.is_cut()


def test_a_list_that_is_shortened_ends_what_goes_on(guarded: GuardedHost) -> None:
    guarded.make("app")
    guarded.join("web", "app")
    guarded.join("other", "app")
    boxes = guarded.box("web"), guarded.box("other")
    with (
        Conversation(boxes[0], guarded.outside, OUTSIDE_ADDRESS) as mine,
        Conversation(boxes[1], guarded.outside, OUTSIDE_ADDRESS) as theirs,
    ):
        assert mine.goes_on()
        guarded.confine("web", f"allow={OUTSIDE_ADDRESS}:7777")
        assert mine.goes_on()
        guarded.confine("web", "allow=good.example")
        assert mine.is_cut()
        assert theirs.goes_on()


def test_a_connection_from_outside_ends_when_the_network_is_closed(guarded: GuardedHost) -> None:
    guarded.make("app")
    ports = [PortRequest(container_port=7777, host_port="7777")]
    guarded.join("web", "app", ports=ports)
    with Conversation(guarded.outside, guarded.box("web"), HOST_ADDRESS) as talk:
        assert talk.goes_on()
        guarded.allow("app", "default closed\nallow from=outside port=7777")
        assert talk.goes_on()
        guarded.allow("app", "default closed")
        assert talk.is_cut()


def test_what_a_container_may_not_go_on_with_ends(guarded: GuardedHost) -> None:
    """One that runs, and is met by rules by now: it was renamed, for example."""
    guarded.make("app")
    endpoint = guarded.join("web", "app")
    network = guarded.networks.network("app")
    with Conversation(guarded.box("web"), guarded.outside, OUTSIDE_ADDRESS) as talk:
        assert talk.goes_on()
        guarded.facts["web"] = Facts(egress="none", runs=True)
        guarded.policies.joined(network, endpoint)
        assert talk.is_cut()


def test_no_number_of_short_connections_is_too_many(guarded: GuardedHost) -> None:
    guarded.make("app")
    guarded.allow("app", "default closed\nallow from=network to=name-db")
    db, web = guarded.join("db", "app"), guarded.join("web", "app")
    guarded.listen(guarded.box("db"), 80)
    for _ in range(20):
        assert guarded.reaches(guarded.box("web"), db.ip_address, 80)
    name = f"policy_f4_{web.host_interface}"
    command = "nft", "list", "set", "bridge", guarded.networks.firewall.table, name
    assert guarded.command(None, *command).count("expires") == 1
    # Who is asked may answer, and no more than that.
    assert not guarded.passes(guarded.box("web"), db.ip_address, 90), "nobody listens there"
    guarded.listen(guarded.box("web"), 81)

    def begin_from_there() -> int:
        with socket.socket() as client:
            client.bind((db.ip_address, 90))
            client.settimeout(QUIET_S)
            return client.connect_ex((web.ip_address, 81))

    assert run_in_netns(guarded.box("db"), begin_from_there) != 0


@pytest.mark.parametrize("ipv6", [False, True])
def test_who_gets_an_address_does_not_go_on_with_its_connections(
    guarded: GuardedHost, ipv6: bool
) -> None:
    guarded.make("app", enable_ipv6=True)
    target = OUTSIDE_ADDRESS6 if ipv6 else OUTSIDE_ADDRESS
    guarded.serve(guarded.outside, 53, socket.SOCK_DGRAM, address="::" if ipv6 else "0.0.0.0")

    def ask_from_5353(name: str) -> bool:
        def call() -> bool:
            family = socket.AF_INET6 if ipv6 else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as client:
                client.bind(("", 5353))
                client.settimeout(QUIET_S)
                try:
                    client.connect((target, 53))
                    for _ in range(2):
                        client.send(b"x")
                        client.recv(100)
                except OSError:
                    return False
                return True

        return run_in_netns(guarded.box(name), call)

    first = guarded.join("first", "app")
    wait_until(lambda: ask_from_5353("first"), what="an answer")
    guarded.networks.disconnect("first", first)
    guarded.facts["second"] = Facts(egress="none")
    settings = EndpointSettings(
        ipam_config=EndpointIpamConfig(
            ipv4_address=first.ip_address, ipv6_address=first.ipv6_address
        )
    )
    second = guarded.join("second", "app", settings=settings)
    assert (second.ip_address, second.ipv6_address) == (first.ip_address, first.ipv6_address)
    assert not ask_from_5353("second")
