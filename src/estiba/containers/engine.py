"""All containers of one engine: by id, by name, made, found, recovered.

Owns the index; every container's own state belongs to its actor.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from estiba.containers.actor import Actor
from estiba.containers.connections import VERB as CONNECTIONS
from estiba.containers.journal import container_event
from estiba.containers.record import KIND, ContainerRecord, decode, encode
from estiba.containers.restart import owes_start
from estiba.containers.world import World
from estiba.kernel import failpoint
from estiba.kernel.blocking import run_blocking
from estiba.model.errors import AlreadyExists, Conflict, EstibaError, InvalidArgument, NotFound
from estiba.model.ids import random_name
from estiba.model.state import ContainerState
from estiba.store import Intent, Record, Transaction

_log = logging.getLogger(__name__)

_NAME_ATTEMPTS = 12
_ENDS_TIMEOUT_S = 15.0
"""For recording what ended while the engine was away; the rest is recorded while it serves."""


@dataclass(slots=True)
class Engine:
    """Call `recover` once before anything else."""

    world: World
    actors: dict[str, Actor] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.world.forget = self._forget
        self.world.is_gone = lambda container_id: container_id not in self.actors
        self.world.linking = self._linking

    # -- finding ---------------------------------------------------------------------------

    def find(self, reference: str) -> Actor:
        """The container with that id, name or unambiguous beginning of an id.

        Raises NotFound, or InvalidArgument when several ids begin so.
        """
        actor = self.actors.get(reference)
        if actor is not None:
            return actor
        # A name that is held for a container under way leads to none yet.
        actor = self.actors.get(self._names.get(reference.removeprefix("/"), ""))
        if actor is not None:
            return actor
        child = self._by_link(reference)
        if child is not None:
            return child
        matches = [key for key in self.actors if key.startswith(reference)] if reference else []
        if len(matches) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {reference}")
        if not matches:
            raise NotFound(f"No such container: {reference[:128]}")
        return self.actors[matches[0]]

    def records(self) -> list[ContainerRecord]:
        """All containers, newest first. May be called from any thread."""
        # A copy in one step: the loop adds and removes meanwhile.
        found = [actor.record for actor in list(self.actors.values())]
        return sorted(found, key=lambda record: record.created_ns, reverse=True)

    def volume_users(self, name: str) -> list[str]:
        """Ids of the containers that have the volume."""
        return [
            record.id
            for record in self.records()
            if any(plan.type == "volume" and plan.name == name for plan in record.mounts)
        ]

    def volumes_in_use(self) -> dict[str, list[str]]:
        """By volume the ids of the containers that are up and have it."""
        used: dict[str, list[str]] = {}
        for record in self.records():
            for plan in record.mounts if record.state.is_up else ():
                if plan.type == "volume":
                    used.setdefault(plan.name, []).append(record.id)
        return used

    def linked(self, record: ContainerRecord) -> dict[str, ContainerRecord]:
        """The containers that one is linked to, by alias; those that are gone are left out."""
        found = ((alias, self.actors.get(child)) for alias, child in record.links.items())
        return {alias: actor.record for alias, actor in found if actor is not None}

    def aliases(self) -> dict[str, list[str]]:
        """By container all names that links give it: `/parent/alias`."""
        found: dict[str, list[str]] = {}
        for actor in self.actors.values():
            for alias, child in actor.record.links.items():
                found.setdefault(child, []).append(f"/{actor.record.name}/{alias}")
        return found

    def _by_link(self, reference: str) -> Actor | None:
        """The container that `parent/alias` means."""
        parent, slash, alias = reference.removeprefix("/").partition("/")
        actor = self.actors.get(self._names.get(parent, "")) if slash else None
        return self.actors.get(actor.record.links.get(alias, "")) if actor is not None else None

    async def unlink(self, reference: str) -> None:
        """Takes a link away that is named as `parent/alias`.

        Raises Conflict for a container's own name, NotFound for what is no link.
        """
        parent, slash, alias = reference.removeprefix("/").partition("/")
        if not slash:
            self.find(reference)
            raise Conflict("Conflict, cannot remove the default link name of the container")
        holder = self.actors.get(self._names.get(parent, ""))
        if holder is None:
            raise NotFound(f"Cannot get parent {parent} for link name {reference}")
        await holder.connections.unlink(alias, self.linked(holder.record).get(alias))

    def _linking(self, container_id: str) -> list[ContainerRecord]:
        """Containers that are up and linked to that one."""
        return [
            actor.record
            for actor in self.actors.values()
            if container_id in actor.record.links.values() and actor.record.state.is_up
        ]

    # -- making ----------------------------------------------------------------------------

    def _free_name(self) -> str:
        for attempt in range(_NAME_ATTEMPTS):
            name = random_name(attempt)
            if name not in self._names:
                return name
        raise Conflict("no free random name found: give the container a name")

    def check_free(self, name: str) -> None:
        """Raises AlreadyExists, in Docker's words, when the name is taken."""
        holder = self._names.get(name)
        if holder is not None:
            raise AlreadyExists(
                f'Conflict. The container name "/{name}" is already in use by container '
                f'"{holder}". You have to remove (or rename) that container to be able to '
                "reuse that name."
            )

    async def create(self, record: ContainerRecord) -> Actor:
        """Makes the container of `record`, which is in state created; unnamed ones get a name.

        Raises AlreadyExists when the name is taken; nothing is left then.
        """
        if not record.name:
            record = msgspec.structs.replace(record, name=self._free_name())
        self.check_free(record.name)
        self._names[record.name] = record.id
        try:
            actor = await self._create(record)
        except BaseException:
            self._names.pop(record.name, None)
            raise
        self.actors[record.id] = actor
        return actor

    async def _create(self, record: ContainerRecord) -> Actor:
        store = self.world.store
        intent = Intent(f"create {record.id}", KIND, record.id, "create", encode(record))
        await store.commit(lambda tx: tx.add_intent(intent))
        try:
            failpoint.hit("create.begun")
            await self.world.steps.prepare(record)
            failpoint.hit("create.prepared")

            def write(tx: Transaction) -> None:
                tx.put(KIND, record.id, encode(record), record.name)
                tx.delete_intent(intent.id)
                tx.add_event(container_event(record, "create"))

            await store.commit(write, durable=True)
        except BaseException:
            await asyncio.shield(self._undo_create(record, intent))
            raise
        return Actor(record, self.world)

    async def _undo_create(self, record: ContainerRecord, intent: Intent) -> None:
        await self.world.steps.discard(record)
        await self.world.remove_volumes(record)

        def write(tx: Transaction) -> None:
            tx.delete(KIND, record.id)
            tx.delete_intent(intent.id)

        await self.world.store.commit(write)

    async def rename(self, actor: Actor, name: str) -> None:
        """Raises AlreadyExists when the name is taken."""
        if name == actor.record.name:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        self.check_free(name)
        self._names[name] = actor.record.id
        try:
            old = await actor.rename(name)
        except BaseException:
            self._names.pop(name, None)
            raise
        self._names.pop(old, None)

    # -- recovery --------------------------------------------------------------------------

    async def recover(self) -> list[Actor]:
        """Makes the state true after a crash or a restart; returns containers that are up.

        Finishes or undoes open intents, re-adopts live monitors, and gives runs that ended
        meanwhile their exit code. Removal only rolls forward.
        """
        records = await run_blocking(self.world.store.load, KIND)
        for row in records:
            self._adopt(row)
        intents = await run_blocking(self.world.store.intents, KIND)
        for intent in intents:
            if intent.verb != CONNECTIONS:
                await self._settle_or_log(intent)
        up = [actor for actor in self.actors.values() if actor.record.state.is_up]
        watches = [actor.runs.watch() for actor in up]
        over = [
            watch for actor, watch in zip(up, watches, strict=True) if not actor.runs.is_watched
        ]
        if over:
            await asyncio.wait(over, timeout=_ENDS_TIMEOUT_S)
        return [actor for actor in up if actor.record.state.is_up]

    async def settle_connections(self) -> None:
        """Finishes or undoes changes of networks that a crash cut off, once those are restored."""
        for intent in await run_blocking(self.world.store.intents, KIND):
            if intent.verb == CONNECTIONS:
                await self._settle_or_log(intent)

    async def _settle_or_log(self, intent: Intent) -> None:
        try:
            await self._settle(intent)
        except (EstibaError, OSError, msgspec.DecodeError):
            _log.exception("recovery: %s is tried again at the next start", intent.id)

    def _adopt(self, row: Record) -> None:
        try:
            record = decode(row.body)
        except msgspec.DecodeError:
            _log.exception("container %s: its record cannot be read; it is left alone", row.id)
            return
        self.actors[record.id] = Actor(record, self.world)
        self._names[record.name] = record.id

    async def _settle(self, intent: Intent) -> None:
        _log.info("recovery: %s", intent.id)
        actor = self.actors.get(intent.object_id)
        if intent.verb == "create":
            await self._undo_create(decode(intent.body), intent)
            return
        if actor is None:
            await self.world.store.commit(lambda tx: tx.delete_intent(intent.id))
        elif intent.verb == "remove":
            await actor.finish_removal(volumes=bool(json.loads(intent.body).get("volumes")))
        elif intent.verb == "start":
            await actor.runs.undo_interrupted()
        elif intent.verb == "kill":
            await actor.endings.kill_frozen()
        elif intent.verb in ("pause", "unpause"):
            await actor.thaw(intent.verb)
        elif intent.verb == CONNECTIONS:
            await actor.connections.settle(intent)

    async def start_owed(
        self, ready: Callable[[ContainerRecord], Awaitable[None]] | None = None
    ) -> None:
        """Starts what restart policies owe, after the network is up; errors are logged. `ready`
        waits for what a container needs.

        From here on restarts and automatic removals happen as they are due.
        """
        self.world.is_quiet = False
        owed = [
            actor
            for actor in self.actors.values()
            if not actor.record.state.is_up and self._owed(actor.record)
        ]
        await asyncio.gather(*(self._start_quietly(actor, ready) for actor in owed))
        leftovers = [
            actor
            for actor in self.actors.values()
            if actor.record.state == ContainerState.EXITED and actor.record.host_config.auto_remove
        ]
        for actor in leftovers:
            try:
                await actor.remove(volumes=True)
            except (EstibaError, OSError):
                _log.exception("container %s: cannot remove it", actor.record.name)

    @staticmethod
    def _owed(record: ContainerRecord) -> bool:
        if record.state == ContainerState.RESTARTING:
            return True
        return record.state == ContainerState.EXITED and owes_start(record)

    @staticmethod
    async def _start_quietly(
        actor: Actor, ready: Callable[[ContainerRecord], Awaitable[None]] | None
    ) -> None:
        try:
            if ready is not None:
                await ready(actor.record)
            await actor.start()
        except (EstibaError, OSError):
            _log.exception("container %s: cannot start it again", actor.record.name)

    def _forget(self, container_id: str) -> None:
        actor = self.actors.pop(container_id, None)
        if actor is not None:
            self._names.pop(actor.record.name, None)

    # -- many at once ----------------------------------------------------------------------

    async def prune(self, candidates: Iterable[ContainerRecord]) -> list[str]:
        """Removes those of `candidates` that are not up; the ids removed."""
        removed = []
        for record in candidates:
            if record.state.is_up or record.id not in self.actors:
                continue
            try:
                await self.actors[record.id].remove()
            except (Conflict, NotFound):
                continue
            removed.append(record.id)
        return removed

    async def close(self) -> None:
        """Lets go of everything; containers run on."""
        self.world.is_quiet = True
        await self.world.tasks.close()
        await asyncio.gather(*(actor.runs.hub.close() for actor in self.actors.values()))
