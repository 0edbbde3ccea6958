"""All plugins that the engine knows: found by name, greeted once, asked for by what they do.

A plugin is made known by the first who asks for it by name (a process of its own, in one of the
`Places`), or by the engine that runs it itself (`register`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from estiba.model.errors import EstibaError, FailedPrecondition, NotFound, Unavailable
from estiba.plugins.client import Client, Patience
from estiba.plugins.places import Address, Places

VOLUME = "VolumeDriver"
NETWORK = "NetworkDriver"
IPAM = "IpamDriver"

_log = logging.getLogger(__name__)
_ACTIVATION_S = 30.0
_MAX_WAITING = 4


class Manifest(msgspec.Struct, frozen=True):
    """What a plugin says of itself in `Plugin.Activate`."""

    implements: list[str] = msgspec.field(default_factory=list, name="Implements")


@dataclass(frozen=True, slots=True)
class Plugin:
    """One that has been greeted. `find_path` makes a path of the host of one that it tells."""

    name: str
    client: Client
    implements: frozenset[str]
    find_path: Callable[[str], str] = str


@dataclass(slots=True)
class _Greeting:
    """Of one plugin: one at a time."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    turns: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(_MAX_WAITING)
    )
    failure: EstibaError | None = None
    failed_at: float = 0.0


class Registry:
    """Made once an engine; any thread."""

    def __init__(
        self,
        places: Places | None = None,
        patience: Patience | None = None,
        *,
        activation_s: float = _ACTIVATION_S,
    ) -> None:
        self._places = places or Places()
        self._patience = patience or Patience()
        self._activation_s = activation_s
        self._lock = threading.Lock()
        self._known: dict[str, Plugin] = {}
        self._managed: dict[str, Plugin] = {}
        self._ever_managed: set[str] = set()
        self._seen: set[str] = set()
        self._greetings: dict[str, _Greeting] = {}

    def get(self, name: str, kind: str, *, is_query: bool = False) -> Plugin:
        """The plugin, greeted: it is waited for as Docker does, unless for a query. Any `kind`
        will do if none is given.

        Raises NotFound when there is none, FailedPrecondition when it does something else,
        Unavailable when it does not answer.
        """
        with self._lock:
            found = self._find_managed(name) or self._known.get(name)
            if found is not None and found.client.is_away and self._has_moved(found):
                found = None
                del self._known[name]
            greeting = self._greetings.setdefault(name, _Greeting())
        if found is None:
            found = self._greet_once(name, greeting, is_query)
        if kind and kind not in found.implements:
            raise FailedPrecondition(
                f"plugin {name} does not implement the requested driver: it is no {kind}"
            )
        return found

    def active(self, kind: str) -> Mapping[str, Plugin]:
        """By name those that have been greeted already."""
        with self._lock:
            everyone = {**self._known, **self._managed}
        return {name: plugin for name, plugin in everyone.items() if kind in plugin.implements}

    def names(self, kind: str) -> list[str]:
        """Of those that have been greeted, for `info`."""
        return sorted(self.active(kind))

    def look_around(self) -> None:
        """Greets those that nobody has asked for yet, each once and with little patience."""
        for name in self._places.scan():
            with self._lock:
                is_new = name not in self._seen and name not in self._known
                self._seen.add(name)
            if is_new:
                try:
                    self.get(name, "", is_query=True)
                except EstibaError as error:
                    _log.debug("plugin %s: %s", name, error)

    def register(
        self,
        name: str,
        address: Address,
        implements: frozenset[str],
        find_path: Callable[[str], str] = str,
        *,
        timeout_s: float = 0,
    ) -> None:
        """A plugin that the engine runs itself; calls to it have the usual time, or their own."""
        patience = replace(self._patience, call_s=timeout_s) if timeout_s else self._patience
        client = Client(name, address, patience)
        with self._lock:
            self._ever_managed.add(name)
            self._managed[name] = Plugin(name, client, implements, find_path)

    def unregister(self, name: str) -> None:
        with self._lock:
            self._managed.pop(name, None)

    def exists(self, name: str) -> bool:
        """Whether there is a plugin of that name, or a file that says where it listens."""
        with self._lock:
            if self._find_managed(name) or name in self._known:
                return True
        try:
            self._places.find(name)
        except NotFound:
            return False
        return True

    def full_name(self, name: str) -> str:
        """With its tag, of one that the engine runs; any other name is itself."""
        with self._lock:
            tagged = f"{name}:latest"
            return tagged if name not in self._managed and tagged in self._managed else name

    def is_managed(self, name: str) -> bool:
        """Whether the engine runs it itself; of one that is switched off its name tells."""
        with self._lock:
            return bool({name, f"{name}:latest"} & self._ever_managed)

    def _has_moved(self, plugin: Plugin) -> bool:
        """Whether its file names another address by now; never of those the engine runs."""
        if self._known.get(plugin.name) is not plugin:
            return False
        try:
            return self._places.find(plugin.name) != plugin.client.address
        except EstibaError:
            return False

    def _find_managed(self, name: str) -> Plugin | None:
        """A tag that is not given is `latest`."""
        return self._managed.get(name) or self._managed.get(f"{name}:latest")

    def _greet_once(self, name: str, greeting: _Greeting, is_query: bool) -> Plugin:
        """Who waits for a greeting that fails has its failure, and few may wait."""
        if not greeting.turns.acquire(timeout=self._patience.turn_s):
            raise Unavailable(
                f"plugin {name} does not answer: {_MAX_WAITING} wait for its first word: is it "
                "running?"
            )
        try:
            began = time.monotonic()
            with greeting.lock:
                found = self._known.get(name)
                if found is not None:
                    return found
                if greeting.failure is not None and greeting.failed_at > began:
                    raise type(greeting.failure)(str(greeting.failure))
                try:
                    found = self._greet(name, is_query)
                except EstibaError as error:
                    greeting.failure, greeting.failed_at = error, time.monotonic()
                    raise
                with self._lock:
                    self._known[name] = found
                return found
        finally:
            greeting.turns.release()

    def _greet(self, name: str, is_query: bool) -> Plugin:
        client = Client(name, self._places.find(name), self._patience)
        away_s = 0.0 if is_query else self._activation_s
        manifest = client.call("Plugin.Activate", None, Manifest, away_s=away_s, is_query=is_query)
        return Plugin(name, client, frozenset(manifest.implements))
