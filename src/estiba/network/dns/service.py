"""`NameService`: hears of every endpoint, and opens a name server in each sandbox that has names.

Its thread begins with the first container that needs it: an engine without user-defined networks
pays nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from estiba.model.errors import Internal
from estiba.network.dns.listener import open_listener
from estiba.network.dns.names import Names
from estiba.network.dns.ports import NamePolicy
from estiba.network.dns.server import Client, NameServer
from estiba.network.dns.upstream import HostResolver, Wishes
from estiba.network.record import Endpoint, NetworkRecord
from estiba.network.resolv import INTERNAL_SERVER

_log = logging.getLogger(__name__)

_OPENED_AT_ONCE = 16
_WITHOUT_SANDBOX = ("host", "null")
"""Networks whose containers have the host's namespace, or nobody to talk to."""


class NameService:
    """An `EndpointObserver`. `sandbox` gives a container's namespace, `wishes` what it was given
    for its resolv.conf, `asks_here` says whether that file names this server. All methods may be
    called from any thread.
    """

    def __init__(
        self,
        sandbox: Callable[[str], Path],
        wishes: Callable[[str], Wishes],
        *,
        asks_here: Callable[[str], bool] = lambda _container_id: False,
        policy: NamePolicy | None = None,
        host: HostResolver | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._wishes = wishes
        self._asks_here = asks_here
        self._policy = policy
        self._names = Names()
        self._thread = _ServerThread(self._names, host or HostResolver(), policy)
        self._lock = threading.Lock()
        self._served: set[str] = set()

    def serves(self, container_id: str) -> bool:
        """Whether the container is to ask at 127.0.0.11."""
        with self._lock:
            return container_id in self._served

    def close(self) -> None:
        """Stops answering; containers are answered again by the next engine."""
        self._thread.close()
        with self._lock:
            self._served.clear()

    # -- EndpointObserver ------------------------------------------------------------------

    def joining(self, network: NetworkRecord, endpoint: Endpoint) -> None:
        pass

    def joined(self, network: NetworkRecord, endpoint: Endpoint) -> None:
        """Raises Internal when no name server can be opened in the sandbox."""
        self._names.join(network, endpoint)
        if self._needs_server(network, endpoint):
            self._open(endpoint.container_id)

    def left(self, endpoint: Endpoint) -> None:
        """A container that is left with networks without names is served on: its resolv.conf
        names no other server.
        """
        if self._names.leave(endpoint):
            return
        with self._lock:
            if endpoint.container_id not in self._served:
                return
            self._served.discard(endpoint.container_id)
        self._thread.call(lambda server: server.remove(endpoint.container_id))

    def adopted(self, endpoints: Sequence[tuple[NetworkRecord, Endpoint]]) -> None:
        wanted: dict[str, None] = {}
        for network, endpoint in endpoints:
            self._names.join(network, endpoint)
            if network.driver in _WITHOUT_SANDBOX:
                continue
            # One that has left its last network with names asks here all the same.
            if self._needs_server(network, endpoint) or self._asks_here(endpoint.container_id):
                wanted[endpoint.container_id] = None
        if not wanted:
            return
        with ThreadPoolExecutor(_OPENED_AT_ONCE, thread_name_prefix="dns-adopt") as pool:
            _report(zip(wanted, [pool.submit(self._open, each) for each in wanted], strict=True))

    def removed(self, network: NetworkRecord) -> None:
        self._names.forget(network.id)

    # -- sandboxes -------------------------------------------------------------------------

    def _needs_server(self, network: NetworkRecord, endpoint: Endpoint) -> bool:
        if network.driver in _WITHOUT_SANDBOX:
            return False
        watched = self._policy is not None and self._policy.watches(endpoint.container_id)
        return network.has_names or watched

    def _open(self, container_id: str) -> None:
        with self._lock:
            if container_id in self._served:
                return
            self._served.add(container_id)
        sandbox = self._sandbox(container_id)
        try:
            listener = open_listener(sandbox)
        except BaseException as error:
            with self._lock:
                self._served.discard(container_id)
            if isinstance(error, OSError):
                raise Internal(
                    f"the container's name server at {INTERNAL_SERVER} cannot be opened: {error}"
                ) from error
            raise
        client = Client(container_id, sandbox, listener, self._wishes(container_id))
        self._thread.call(lambda server: server.add(client))


class _ServerThread:
    """The thread of the name server, begun by the first call."""

    def __init__(self, names: Names, host: HostResolver, policy: NamePolicy | None) -> None:
        self._parts = names, host, policy
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: NameServer | None = None
        self._stopped: asyncio.Event | None = None

    def call(self, function: Callable[[NameServer], None]) -> None:
        """Lets `function` run in the thread, after all that was called before it."""
        with self._lock:
            if self._thread is None:
                self._begin()
            assert self._loop is not None
            self._loop.call_soon_threadsafe(lambda: function(self._known()))

    def close(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None:
                return
            assert self._loop is not None and self._stopped is not None
            self._loop.call_soon_threadsafe(self._stopped.set)
        thread.join()

    def _known(self) -> NameServer:
        assert self._server is not None
        return self._server

    def _begin(self) -> None:
        ready = threading.Event()

        def run() -> None:
            try:
                with asyncio.Runner() as runner:
                    runner.run(self._run(ready))
            finally:
                ready.set()  # a loop that cannot be made, for want of descriptors, is no server

        self._server = None
        self._thread = threading.Thread(target=run, name="names", daemon=True)
        self._thread.start()
        ready.wait()
        if self._server is None:
            self._thread = None
            raise Internal("the thread of the name server did not start: see the daemon's log")

    async def _run(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._server = NameServer(*self._parts)
        ready.set()
        try:
            await self._stopped.wait()
        finally:
            self._server.close()


def _report(opened: Iterable[tuple[str, Future[None]]]) -> None:
    """One sandbox that cannot be entered must not keep the engine from starting."""
    for container_id, future in opened:
        error = future.exception()
        if error is not None:
            _log.warning("no name server for container %s: %s", container_id[:12], error)
