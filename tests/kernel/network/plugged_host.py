"""A private host whose engine knows a plugin of networks and addresses."""

from __future__ import annotations

import secrets
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.kernel.network.private_host import Host, configure_outside, entered, make_uplink, traces
from tests.support.daemon import wait_until
from tests.support.plugins import PluginProcess

from estiba.kernel.netns import ensure_netns, remove_netns, run_in_netns
from estiba.network.networks import Networks
from estiba.network.plan import NetworkConfig
from estiba.network.record import NetworkSpec
from estiba.plugins.client import Patience
from estiba.plugins.places import Places
from estiba.plugins.registry import Registry
from estiba.store import Store
from estiba.store.events import EventBus

PATIENT = Patience(
    call_s=30.0, query_s=30.0, away_s=1.0, turn_s=0.5, first_pause_s=0.05, silence_s=1.0
)
HASTY = replace(PATIENT, call_s=4.0, query_s=2.0)
"""With a plugin that hangs: of another a busy machine would think so too."""


@dataclass
class Plugged(Host):
    """A host whose engine knows plugins."""

    plugin: PluginProcess = None  # type: ignore[assignment]
    patience: Patience = PATIENT
    """Of the next engine."""

    def engine(self) -> Networks:
        return Networks(self.config, self.store, plugins=self.engine_registry())

    def engine_registry(self) -> Registry:
        return Registry(Places((self.root / "plugins",), ()), self.patience, activation_s=1.0)

    def restarted(self, live: list[str] | None = None) -> Networks:
        """Another engine, with these containers still up; the old one just died."""
        kept = [
            endpoint
            for network in self.networks.networks()
            for endpoint in self.networks.endpoints(network.id)
            if endpoint.container_id in (live or [])
        ]
        self.networks.stop()
        self.networks = self.engine()
        self.networks.start()
        self.networks.restore(kept)
        self.networks.sweep(live or [])
        return self.networks

    def links(self) -> set[str]:
        """Those of the plugin."""
        return {name for _, name in socket.if_nameindex() if name.startswith("pt")}


def plugged(root: Path) -> Iterator[Plugged]:
    """What a fixture yields; the plugin is asked at the end whether it has anything left."""
    here, outside = root / "host", root / "outside"
    ensure_netns(outside)
    ensure_netns(here)
    store = Store.open(root / "estiba.db", EventBus())
    try:
        with entered(here):
            yield from _made(root, outside, store)
    finally:
        store.close()
        remove_netns(here)
        remove_netns(outside)


def _made(root: Path, outside: Path, store: Store) -> Iterator[Plugged]:
    make_uplink(outside)
    run_in_netns(outside, configure_outside)
    before = traces(root)
    tag = f"pt{secrets.token_hex(1)}"
    plugin = PluginProcess(
        "network", root / "plugins/blue.sock", root / "blue", tag=tag, subnet="10.88"
    )
    plugin.start()
    config = NetworkConfig(netns_root=root / "netns", bridge="estiba9")
    made = Plugged(root, outside, config, store, None, plugin=plugin)  # type: ignore[arg-type]
    made.networks = made.engine()
    made.networks.start()
    made.networks.restore([])
    try:
        yield made
    finally:
        plugin.behave()
        if plugin.process is None:
            plugin.start()
        made.stack.close()
        made.networks.sweep([])
        for network in made.networks.networks():
            if not network.predefined:
                made.networks.remove(network.id)
        made.networks.drain()
        made.networks.remove_all_traces()
        state = plugin.state() if (plugin.root / "state").exists() else {}
        plugin.kill()
    assert not any(state.values()), f"the plugin still has {state}"
    wait_until(lambda: traces(root) == before, what="the host to be clean")


def spec(name: str = "net", **wanted: object) -> NetworkSpec:
    return NetworkSpec(name=name, driver="blue", **wanted)  # type: ignore[arg-type]


def inside(host: Plugged, container: str, *words: str) -> str:
    path = host.networks.sandbox_path(container)

    def run() -> str:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
        return done.stdout

    return run_in_netns(path, run)
