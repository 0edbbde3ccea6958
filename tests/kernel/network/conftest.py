from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.kernel.network.guarded_host import GuardedHost
from tests.kernel.network.naming import Named
from tests.kernel.network.private_host import Host, configure_outside, entered, make_uplink, traces
from tests.support.daemon import wait_until

from estiba.kernel import rtnetlink
from estiba.kernel.netlink import NetlinkSocket
from estiba.kernel.netns import ensure_netns, remove_netns, run_in_netns
from estiba.network.networks import Networks
from estiba.network.plan import NetworkConfig
from estiba.network.policy.members import Facts
from estiba.network.policy.policies import Policies
from estiba.store import Store
from estiba.store.events import EventBus


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    here, outside = tmp_path / "host", tmp_path / "outside"
    ensure_netns(outside)
    ensure_netns(here)
    store = Store.open(tmp_path / "estiba.db", EventBus())
    with ExitStack() as stack:
        stack.callback(store.close)
        stack.callback(remove_netns, here)
        stack.callback(remove_netns, outside)
        stack.enter_context(entered(here))
        make_uplink(outside)
        run_in_netns(outside, configure_outside)
        with NetlinkSocket() as handle:
            rtnetlink.settle_carrier(handle, "up1", "up0")
        before = traces(tmp_path)
        config = NetworkConfig(netns_root=tmp_path / "netns", bridge="estiba9")
        networks = Networks(config, store)
        networks.start()
        networks.restore([])
        made = Host(tmp_path, outside, config, store, networks)
        try:
            yield made
        finally:
            made.stack.close()
            made.networks.sweep([])
            made.networks.drain()
            made.networks.remove_all_traces()
        # The kernel takes a veth away in its own time once its namespace is gone.
        wait_until(lambda: traces(tmp_path) == before, what="the host to be clean")


@pytest.fixture
def named(host: Host) -> Iterator[Named]:
    made = Named(host)
    try:
        yield made
    finally:
        made.close()


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
        host.root, host.outside, host.config, host.store, networks, stack=host.stack,
        policies=policies, facts=facts,
    )  # fmt: skip
    yield made
    host.networks = made.networks
    host.stack.callback(lambda: made.policies.close())
