"""The networks of one container: joined, left, and the ports that are published on them.

Connecting is undone on error, disconnecting only rolls forward; recovery does the same. A
container that is not up has the change in its record, and the kernel at its next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from estiba.containers.joining import plan_connection, plan_disconnection
from estiba.containers.journal import Journal
from estiba.containers.links import link_names
from estiba.containers.publishing import changed_bindings, check_publishing
from estiba.containers.record import AttachedNetwork, ContainerRecord
from estiba.containers.world import World
from estiba.kernel import failpoint
from estiba.model.container import EndpointSettings, PortBinding
from estiba.model.decoding import from_json
from estiba.model.errors import EstibaError, NotFound
from estiba.model.event import Event
from estiba.network.record import NetworkRecord, network_event
from estiba.store import Intent

VERB = "networks"
"""Of the one intent that a container has while its networks change."""

_log = logging.getLogger(__name__)

Bindings = Mapping[str, list[PortBinding]]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the intent: `verb` is connect, disconnect or publish."""

    verb: str
    network: str = ""


class Connections:
    """All but `rename` take the container's lock."""

    def __init__(self, journal: Journal, world: World, lock: asyncio.Lock) -> None:
        self._journal = journal
        self._world = world
        self._lock = lock

    async def connect(self, reference: str, settings: EndpointSettings) -> None:
        """Joins a network. Raises NotFound, InvalidArgument, Forbidden, Conflict, or what keeps
        it from being joined; nothing has changed then.
        """
        async with self._lock:
            record = self._journal.record
            connecting = self._world.connecting
            network = connecting.find(reference)
            net = plan_connection(record, network, settings, connecting.find)
            if net is None:
                return
            if not record.state.is_up:
                await self._journal.commit(_with(record, [*record.networks, net]), None)
                return
            await self._begin("connect", network.id)
            failpoint.hit("connect.begun")
            try:
                joined = await connecting.join(record, net)
                event = network_event(network, "connect", record.id)
                await self._journal.commit(_with(record, joined), None, ends=VERB, events=[event])
            except BaseException:
                await asyncio.shield(self._undo(record))
                raise

    async def disconnect(self, reference: str, *, force: bool) -> None:
        """Leaves a network. With `force` one that does not exist any more, too.

        Raises NotFound, InvalidArgument, Conflict, or Internal when it is not connected.
        """
        async with self._lock:
            record = self._journal.record
            network = self._find(reference)
            if network is None and record.state.is_up and not force:
                raise NotFound(f"network {reference} not found")
            net = plan_disconnection(record, network, reference)
            if record.state.is_up and net.endpoint is not None:
                await self._begin("disconnect", net.endpoint.network_id)
                failpoint.hit("disconnect.begun")
            await self._leave(record, net, network)

    async def _leave(
        self, record: ContainerRecord, net: AttachedNetwork, network: NetworkRecord | None
    ) -> None:
        rest = [other for other in record.networks if other is not net]
        if record.state.is_up and net.endpoint is not None:
            rest = await self._world.connecting.leave(record, net)
        events: list[Event] = []
        if network is not None:
            events = [network_event(network, "disconnect", record.id)]
        left = _with(record, rest)
        # True even if the database does not take it: the next start finds the intent then.
        self._journal.hold(left)
        await self._journal.commit(left, None, ends=VERB, events=events)

    async def publish(self, added: Bindings, removed: Bindings) -> None:
        """Publishes ports, and takes back others, of a container that may be up.

        Raises InvalidArgument, Conflict or FailedPrecondition; nothing has changed then.
        """
        async with self._lock:
            record = self._journal.record
            check_publishing(record)
            bindings = changed_bindings(record.host_config.port_bindings, added, removed)
            host = msgspec.structs.replace(record.host_config, port_bindings=bindings)
            wanted = msgspec.structs.replace(record, host_config=host)
            if not record.state.is_up:
                await self._journal.commit(wanted, "update")
                return
            await self._begin("publish")
            failpoint.hit("publish.begun")
            try:
                networks = await self._world.connecting.publish(wanted)
                failpoint.hit("publish.published")
                await self._journal.commit(_with(wanted, networks), "update", ends=VERB)
            except BaseException:
                await asyncio.shield(self._undo(record))
                raise

    async def rename(self, name: str) -> None:
        """The container's names on its networks follow that of its record.

        Called with the lock held, and fails for nobody: the next start has them anyway.
        """
        record = self._journal.record
        try:
            networks = await self._world.connecting.rename(record, name)
            await self._journal.commit(_with(record, networks), None)
        except (EstibaError, OSError):
            _log.exception("container %s: its networks know it by its old name", name)

    async def unlink(self, alias: str, child: ContainerRecord | None) -> None:
        """Takes a link away. Raises NotFound when there is none of that alias."""
        async with self._lock:
            record = self._journal.record
            links = {name: linked for name, linked in record.links.items() if name != alias}
            if len(links) == len(record.links):
                raise NotFound(f"No such link: /{record.name}/{alias}")
            unlinked = msgspec.structs.replace(record, links=links)
            await self._journal.commit(unlinked, None)
            if child is not None and record.state.is_up:
                await self._world.connecting.forget_link(unlinked, link_names(alias, child))

    async def settle(self, intent: Intent) -> None:
        """What recovery does with a change that a crash cut off."""
        change = from_json(intent.body, Change)
        async with self._lock:
            record = self._journal.record
            net = next((net for net in record.networks if _is_on(net, change.network)), None)
            if change.verb == "disconnect" and net is not None:
                await self._leave(record, net, self._find(change.network))
            elif record.state.is_up:
                await self._undo(record)
            else:
                await self._journal.commit(record, None, ends=VERB)

    async def _begin(self, verb: str, network: str = "") -> None:
        body = msgspec.json.encode(Change(verb=verb, network=network))
        await self._journal.begin(VERB, body)

    async def _undo(self, record: ContainerRecord) -> None:
        """As if it had not begun. What of that fails is tried again at the engine's next start."""
        try:
            await self._world.connecting.restore(record)
            await self._journal.commit(record, None, ends=VERB)
        except (EstibaError, OSError):
            _log.exception("container %s: its networks are settled at the next start", record.name)

    def _find(self, reference: str) -> NetworkRecord | None:
        try:
            return self._world.connecting.find(reference)
        except NotFound:
            return None


def _with(record: ContainerRecord, networks: list[AttachedNetwork]) -> ContainerRecord:
    """The record with these networks, and with the ports that are published on them."""
    if not record.state.is_up:
        return msgspec.structs.replace(record, networks=networks)
    ports = bound_ports(networks)
    return msgspec.structs.replace(record, networks=networks, ports=ports)


def bound_ports(networks: list[AttachedNetwork]) -> dict[str, list[PortBinding]]:
    """What is published where, over all networks."""
    bound: dict[str, list[PortBinding]] = {}
    for net in networks:
        if net.endpoint is not None:
            bound.update(net.endpoint.ports)
    return bound


def _is_on(net: AttachedNetwork, network_id: str) -> bool:
    endpoint = net.endpoint or net.before
    return endpoint is not None and endpoint.network_id == network_id
