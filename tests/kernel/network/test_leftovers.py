"""Endpoints whose container does not exist any more."""

from __future__ import annotations

from typing import Any

import pytest
from tests.kernel.network.private_host import Host

from estiba.daemon.adapters.networks import NetworkAdapter
from estiba.model.errors import NotFound
from estiba.network.record import PortRequest

pytestmark = pytest.mark.kernel


class NoContainers:
    """An engine that has forgotten them all."""

    def find(self, reference: str) -> Any:
        raise NotFound(f"No such container: {reference}")


def test_they_are_taken_away_by_force(host: Host) -> None:
    ports = [PortRequest(container_port=80, host_port="8080")]
    by_name = host.attach("one", ports=ports)
    by_id = host.attach("two")
    engine: Any = NoContainers()
    adapter = NetworkAdapter(host.networks, engine)
    adapter._evict("bridge", by_name.container_name)
    adapter._evict("bridge", by_id.container_id)
    assert host.networks.endpoints(by_name.network_id) == []
    # Its port and its address are free.
    again = host.attach("three", ports=ports, before=by_name)
    assert again.ip_address == by_name.ip_address
    for reference in ("one", "nobody"):
        with pytest.raises(NotFound, match=f"endpoint {reference} not found"):
            adapter._evict("bridge", reference)
    with pytest.raises(NotFound, match="network nowhere not found"):
        adapter._evict("nowhere", "three")


async def test_without_force_they_stay(host: Host) -> None:
    endpoint = host.attach("one")
    engine: Any = NoContainers()
    adapter = NetworkAdapter(host.networks, engine)
    with pytest.raises(NotFound, match="No such container: name-one"):
        await adapter.disconnect("bridge", "name-one", force=False)
    assert host.networks.endpoints(endpoint.network_id) == [endpoint]
