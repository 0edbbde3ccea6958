"""Engines that die, or fail, in the middle of a step of a network."""

from __future__ import annotations

import signal
import textwrap
from pathlib import Path

import pytest
from tests.kernel.network.private_host import Host
from tests.kernel.network.probes import run_child

from estiba.kernel import rtnetlink
from estiba.kernel.netlink import NetlinkSocket
from estiba.network.networks import Networks
from estiba.store import Store
from estiba.store.events import EventBus

pytestmark = pytest.mark.kernel


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
    networks.open_sandbox("one")
    ports = [PortRequest(container_port=80, host_port="8080")]
    """
)


POINTS = (
    "network.sandbox-open",
    "network.veth-made",
    "network.veth-configured",
    "network.ports-held",
    "network.ports-released",
)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_step_and_started_again(host: Host, point: str, tmp_path: Path) -> None:
    """A process dies in the middle; the next engine sweeps, and the same request works."""
    host.networks.stop()
    script = CHILD + textwrap.dedent(
        """
        made = networks.connect("one", container_name="one", network="bridge", ports=ports)
        networks.disconnect("one", made)
        """
    )
    child = run_child(script, tmp_path, f"{point}=kill")
    assert child.returncode == -signal.SIGKILL
    host.networks = Networks(host.config, host.store)
    host.networks.start()
    host.networks.restore([])
    host.networks.sweep([])
    host.networks.drain()
    assert not host.networks.sandbox_path("one").exists()
    with NetlinkSocket() as handle:
        assert not [one for one in rtnetlink.list_links(handle) if one.name.startswith("es5")]
    assert host.attach("one").ip_address


@pytest.mark.parametrize("point", ["network.bridge-made#2", "network.bridge-removed"])
def test_killed_while_a_network_is_made_or_removed(host: Host, point: str, tmp_path: Path) -> None:
    """The record comes first and goes last, so that no bridge is ever left without one."""
    host.networks.remove_all_traces()
    script = CHILD + textwrap.dedent(
        """
        networks.create(NetworkSpec(name="blue"))
        networks.remove("blue")
        """
    )
    child = run_child(script, tmp_path, f"{point}=kill")
    assert child.returncode == -signal.SIGKILL
    store = Store.open(tmp_path / "child.db", EventBus())
    networks = Networks(host.config, store)
    networks.start()
    networks.restore([])
    assert networks.remove("blue").owns_bridge
    networks.remove_all_traces()
    store.close()
    host.networks = Networks(host.config, host.store)
    host.networks.start()


@pytest.mark.parametrize("point", POINTS[1:4])
def test_a_step_that_fails_leaves_nothing(host: Host, point: str, tmp_path: Path) -> None:
    script = CHILD + textwrap.dedent(
        """
        try:
            networks.connect("one", container_name="one", network="bridge", ports=ports)
        except OSError as error:
            print(error)
        assert networks.endpoints(networks.network("bridge").id) == []
        assert networks.interface_statistics("one") == {}
        networks.drain()
        made = networks.connect("one", container_name="one", network="bridge", ports=ports)
        networks.disconnect("one", made)
        networks.close_sandbox("one")
        networks.stop()
        store.close()
        """
    )
    child = run_child(script, tmp_path, f"{point}=error")
    assert (child.returncode, child.stderr) == (0, "")
    assert f"failpoint {point}" in child.stdout


REMOVAL = CHILD + textwrap.dedent(
    """
    from estiba.model.errors import EstibaError
    def twice(step, *arguments):
        try:
            step(*arguments)
        except OSError as error:
            print(error)
            step(*arguments)
    networks.create(NetworkSpec(name="blue"))
    made = networks.connect("one", container_name="one", network="blue", ports=ports)
    twice(networks.disconnect, "one", made)
    twice(networks.remove, "blue")
    again = networks.create(NetworkSpec(name="blue"))
    networks.remove("blue")
    networks.close_sandbox("one")
    networks.drain()
    networks.stop()
    networks = Networks(NetworkConfig(netns_root=root / "netns", bridge="estiba9"), store)
    networks.start()
    assert [one.name for one in networks.networks() if not one.predefined] == []
    networks.remove_all_traces()
    store.close()
    """
)


@pytest.mark.parametrize(
    "step", ["ports-released", "veth-removed", "bridge-dismissed", "bridge-removed"]
)
def test_a_removal_that_failed_is_done_when_it_is_asked_for_again(
    host: Host, step: str, tmp_path: Path
) -> None:
    host.networks.remove_all_traces()
    child = run_child(REMOVAL, tmp_path, f"network.{step}=error")
    assert (child.returncode, child.stderr) == (0, "")
    assert f"failpoint network.{step}" in child.stdout
    host.networks = Networks(host.config, host.store)
    host.networks.start()
