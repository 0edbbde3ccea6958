"""Policies held to by real packets between real namespaces."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from tests.kernel.network.guarded_host import GuardedHost
from tests.kernel.network.private_host import HOST_ADDRESS, OUTSIDE_ADDRESS, Host

from estiba.network.networks import Networks
from estiba.network.policy.policies import Facts, Policies

pytestmark = pytest.mark.kernel


@pytest.fixture
def guarded(host: Host) -> Iterator[GuardedHost]:
    host.networks.stop()
    facts: dict[str, Facts] = {}
    policies = Policies(host.store, lambda name: facts.get(name, Facts()))
    networks = Networks(host.config, host.store, (policies,))
    policies.bind(networks.firewall)
    networks.start()
    networks.restore([])
    made = GuardedHost(
        host.root, host.outside, host.config, host.store, networks, host.stack,
        policies=policies, facts=facts,
    )  # fmt: skip
    yield made
    host.networks = made.networks
    host.stack.callback(lambda: made.policies.close())


def test_a_closed_network_lets_through_what_its_rules_name(guarded: GuardedHost) -> None:
    guarded.make("app")
    guarded.allow("app", "default closed\nallow from=name-web to=name-db port=5432,5432/udp")
    guarded.join("web", "app")
    db = guarded.join("db", "app")
    other = guarded.join("other", "app")
    web, udp = guarded.box("web"), socket.SOCK_DGRAM
    for port in (5432, 5433):
        guarded.listen(guarded.box("db"), port)
        guarded.listen(guarded.box("db"), port, udp)
    assert guarded.passes(web, db.ip_address, 5432)
    assert guarded.passes(web, db.ip_address, 5432, udp)
    assert not guarded.passes(web, db.ip_address, 5433)
    assert not guarded.passes(web, db.ip_address, 5433, udp)
    assert not guarded.passes(guarded.box("other"), db.ip_address, 5432)
    guarded.listen(guarded.box("other"), 80)
    assert not guarded.passes(guarded.box("db"), other.ip_address, 80)
    assert not guarded.passes(None, db.ip_address, 5432), "the host was not named"


def test_egress_none_leaves_the_network_alone(guarded: GuardedHost) -> None:
    guarded.make("app")
    guarded.facts["web"] = Facts(egress="none")
    web, db = guarded.join("web", "app"), guarded.join("db", "app")
    guarded.listen(guarded.box("db"), 80)
    guarded.listen(None, 81)
    guarded.listen(guarded.outside, 82)
    box = guarded.box("web")
    assert guarded.passes(box, db.ip_address, 80)
    assert not guarded.passes(box, web.gateway, 81)
    assert not guarded.passes(box, HOST_ADDRESS, 81)
    assert "No route to host" in guarded.refusal(box, OUTSIDE_ADDRESS, 82), "refused at once"
    assert guarded.passes(guarded.box("db"), OUTSIDE_ADDRESS, 82)
    guarded.listen(box, 83)
    assert guarded.passes(None, web.ip_address, 83), "answers are no egress"
    guarded.confine("web", "")
    assert guarded.passes(box, OUTSIDE_ADDRESS, 82)
