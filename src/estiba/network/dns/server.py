"""The one loop that answers all containers: reads questions, decides, sends on, writes answers.

Who asks is known by the socket, never by anything in the packet. Reading goes round: a container
that floods gets a few answers a turn, as everyone does, and so many a second, for the rest of the
engine must run too; its kernel drops what is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from estiba.kernel.netns import NamespaceThread
from estiba.kernel.nft import heard_of_others
from estiba.network.dns.forward import Forwarder, Message
from estiba.network.dns.listener import PORT, Listener, write_rules
from estiba.network.dns.message import (
    MAX_MESSAGE,
    Answer,
    Malformed,
    Query,
    Rcode,
    Type,
    parse_query,
    render_query,
    render_question,
    render_reply,
)
from estiba.network.dns.names import Names, Outside
from estiba.network.dns.ports import NamePolicy
from estiba.network.dns.upstream import HostResolver, Upstream, Wishes, own_servers
from estiba.network.resolv import is_ndots_set

_log = logging.getLogger(__name__)

MAX_PENDING = 256
"""Questions of one container that are under way to servers outside."""

CROWD, MAX_PENDING_IN_CROWD = 1024, 16
"""So many of all containers together leave each no more than this: every one holds a socket."""

MAX_STREAMS = 64
WINDOW_S, MAX_IN_WINDOW = 0.05, 500
"""Answers to one container: 10,000 a second."""

MEND_AFTER_S = 0.5
"""So often at most the rules in a namespace are written anew."""

_IDLE_S = 10.0
_TURN = 16
_UDP_SIZE = 4096
_LENGTH = struct.Struct("!H")


@dataclass(slots=True)
class Client:
    """A container that asks: its sockets, and how its questions are sent on."""

    container_id: str
    sandbox: Path
    listener: Listener
    wishes: Wishes
    forwarder: Forwarder | None = None
    errands: int = 0
    window_end: float = 0.0
    left: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    streams: set[asyncio.StreamWriter] = field(default_factory=set)
    server: asyncio.Server | None = None


@dataclass(frozen=True, slots=True)
class _Errand:
    """A question that goes outside, for the name that it is about or leads to by `aliases`."""

    query: Query
    found: Outside
    servers: Sequence[Upstream]
    message: Message


class NameServer:
    """Everything here runs in the thread of its loop."""

    def __init__(self, names: Names, host: HostResolver, policy: NamePolicy | None) -> None:
        self._names = names
        self._host = host
        self._policy = policy
        self._loop = asyncio.get_running_loop()
        self._spaces = NamespaceThread()
        self._clients: dict[str, Client] = {}
        self._errands = 0

    def close(self) -> None:
        for container_id in list(self._clients):
            self.remove(container_id)
        self._spaces.close()

    def add(self, client: Client) -> None:
        self.remove(client.container_id)

        def open_socket(server: Upstream, kind: int) -> socket.socket:
            if server.inside:
                return self._spaces.inside(client.sandbox, lambda: _connecting(server, kind))
            return self._spaces.at_home(lambda: _connecting(server, kind))

        client.forwarder = Forwarder(open_socket)
        self._clients[client.container_id] = client
        self._loop.add_reader(client.listener.udp, self._read, client)
        self._loop.add_reader(client.listener.notices, self._heed, client)
        self._keep(client, self._listen(client))

    def remove(self, container_id: str) -> None:
        client = self._clients.pop(container_id, None)
        if client is None:
            return
        self._loop.remove_reader(client.listener.udp)
        self._loop.remove_reader(client.listener.notices)
        for task in client.tasks:
            task.cancel()
        if client.server is not None:
            client.server.close()
        for writer in list(client.streams):
            writer.transport.abort()
        # Closing what hears of rules may wait for a grace period of the kernel.
        self._loop.run_in_executor(None, client.listener.close)

    # -- rules that others change ----------------------------------------------------------

    def _heed(self, client: Client) -> None:
        """Somebody in the container's namespace has changed rules: the server's may be gone."""
        if heard_of_others(client.listener.notices):
            self._loop.remove_reader(client.listener.notices)
            self._keep(client, self._mend(client))

    async def _mend(self, client: Client) -> None:
        listener = client.listener
        is_changed = True
        try:
            while is_changed:
                await asyncio.sleep(MEND_AFTER_S)
                work = partial(write_rules, client.sandbox, listener)
                writer = await self._loop.run_in_executor(None, work)
                is_changed = heard_of_others(listener.notices, but=writer)
        except OSError as error:
            _log.warning("names of container %s: %s", client.container_id[:12], error)
        self._loop.add_reader(listener.notices, self._heed, client)

    # -- questions -------------------------------------------------------------------------

    def _read(self, client: Client) -> None:
        udp = client.listener.udp
        if self._wait_for_window(client):
            self._loop.remove_reader(udp)
            self._loop.call_at(client.window_end, self._resume, client)
            return
        for _ in range(_TURN):
            try:
                data, peer = udp.recvfrom(_UDP_SIZE)
            except OSError:
                return
            client.left -= 1
            reply = self._answer(client, data, tcp=False)
            if isinstance(reply, _Errand):
                task = self._keep(client, self._send_later(client, reply, peer))
                # One that is cancelled before it begins ends too.
                task.add_done_callback(lambda _: self._is_over(client))
            elif reply:
                _send(udp, reply, peer)

    def _wait_for_window(self, client: Client) -> float:
        """Seconds until the container is answered again; 0 while it has answers left."""
        now = self._loop.time()
        if now >= client.window_end:
            client.window_end, client.left = now + WINDOW_S, MAX_IN_WINDOW
        return client.window_end - now if client.left <= 0 else 0.0

    def _resume(self, client: Client) -> None:
        if self._clients.get(client.container_id) is client:
            self._loop.add_reader(client.listener.udp, self._read, client)

    async def _send_later(self, client: Client, errand: _Errand, peer: tuple[str, int]) -> None:
        _send(client.listener.udp, await self._run(client, errand), peer)

    def _answer(self, client: Client, data: bytes, *, tcp: bool) -> bytes | _Errand:
        """The answer, nothing for what deserves none, or what to ask outside first."""
        try:
            query = parse_query(data)
        except Malformed as error:
            return error.reply
        limit = MAX_MESSAGE if tcp else query.udp_size
        found = self._names.decide(client.container_id, query.name, query.type)
        if not isinstance(found, Outside):
            return render_reply(query, found.rcode, found.answers, limit=limit, authoritative=True)
        servers = self._servers(client)
        rcode = self._refusal(client, query, found, servers)
        if rcode is not None:
            return render_reply(query, rcode, found.aliases, limit=limit)
        question = query.question
        if found.aliases:
            question = render_question(found.name, query.type)
            data = render_query(question, udp_size=_UDP_SIZE)
        # Counted here, or all that one turn reads would pass.
        client.errands += 1
        self._errands += 1
        return _Errand(query, found, servers, Message(data, question, limit, tcp))

    def _servers(self, client: Client) -> Sequence[Upstream]:
        """An internal network has no way to the host's servers; its own may be neighbours.

        Of a container whose firewall lets through what it was told here only, its own servers are
        asked for it from outside, but for those that it runs itself: their answers let nothing
        through.
        """
        inside_only = self._names.is_inside_only(client.container_id)
        servers = client.wishes.servers
        if not servers:
            return () if inside_only else self._host.servers
        policy = self._policy
        outside = policy is not None and not inside_only and policy.watches(client.container_id)
        return own_servers(servers, inside=not outside)

    def _refusal(
        self, client: Client, query: Query, found: Outside, servers: Sequence[Upstream]
    ) -> Rcode | None:
        """Why a question is not sent on."""
        single = b"." not in found.name
        if single and query.type in (Type.A, Type.AAAA) and self._ndots_set(client):
            # The client is to try again with a search domain (as Docker has it).
            return Rcode.NOERROR
        if not servers:
            inside = self._names.is_inside_only(client.container_id)
            return Rcode.NXDOMAIN if inside else Rcode.SERVFAIL
        policy = self._policy
        if policy is not None and not policy.allows(client.container_id, _text(found.name)):
            return Rcode.NXDOMAIN
        crowded = self._errands >= CROWD
        limit = MAX_PENDING_IN_CROWD if crowded else MAX_PENDING
        return Rcode.REFUSED if client.errands >= limit else None

    def _ndots_set(self, client: Client) -> bool:
        options = client.wishes.options
        return is_ndots_set(options) if options else self._host.ndots_set

    # -- sent on ---------------------------------------------------------------------------

    async def _run(self, client: Client, errand: _Errand) -> bytes:
        """The answer to a question that goes outside; SERVFAIL when there is none.
        Whoever calls it says `_is_over` at the end.
        """
        query, message = errand.query, errand.message
        try:
            assert client.forwarder is not None
            found = await client.forwarder.ask(errand.servers, message)
            if found is not None:
                answer, server = found
                if not server.inside:
                    await self._tell(client, errand.found.name, answer)
                return _relay(errand, answer)
        except Exception as error:
            _log.warning("a name for container %s: %s", client.container_id[:12], error)
        return render_reply(query, Rcode.SERVFAIL, limit=message.limit)

    def _is_over(self, client: Client) -> None:
        client.errands -= 1
        self._errands -= 1

    async def _tell(self, client: Client, name: bytes, answer: Answer) -> None:
        """The policy hears of addresses before the container does; not of what a program in the
        container itself says, which could lead an allowed name anywhere.
        """
        addresses = answer.addresses
        if self._policy is None or not addresses:
            return
        tell = partial(self._policy.answered, client.container_id, _text(name), addresses)
        await self._loop.run_in_executor(None, tell, answer.ttl_s)

    def _keep(self, client: Client, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        client.tasks.add(task)
        task.add_done_callback(client.tasks.discard)
        return task

    # -- streams ---------------------------------------------------------------------------

    async def _listen(self, client: Client) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(client, reader, writer)

        client.server = await asyncio.start_server(serve, sock=client.listener.tcp)

    async def _serve(
        self, client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One question after another, as they come; the first long silence ends it."""
        if len(client.streams) >= MAX_STREAMS:
            writer.transport.abort()
            return
        client.streams.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                while True:
                    async with asyncio.timeout(_IDLE_S):
                        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                        data = await reader.readexactly(length)
                    await asyncio.sleep(self._wait_for_window(client))
                    client.left -= 1
                    reply = self._answer(client, data, tcp=True)
                    if isinstance(reply, _Errand):
                        try:
                            reply = await self._run(client, reply)
                        finally:
                            self._is_over(client)
                    if not reply:
                        return
                    writer.write(_LENGTH.pack(len(reply)) + reply)
                    async with asyncio.timeout(_IDLE_S):
                        await writer.drain()
        finally:
            client.streams.discard(writer)
            writer.transport.abort() if writer.is_closing() else writer.close()


def _text(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")


def _relay(errand: _Errand, answer: Answer) -> bytes:
    """What a server said, for the client: its own id, and the aliases that led there."""
    limit = errand.message.limit
    if errand.found.aliases:
        records = [*errand.found.aliases, *answer.rendered_records()]
        return render_reply(errand.query, answer.rcode, records, limit=limit)
    return errand.query.id.to_bytes(2, "big") + answer.data[2:]


def _connecting(server: Upstream, kind: int) -> socket.socket:
    """A socket in the namespace of the calling thread. Raises OSError."""
    found = socket.getaddrinfo(
        server.address, PORT, type=kind, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    )
    family, _, _, _, address = found[0]
    handle = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        handle.connect(address)
    except BlockingIOError:
        pass
    except BaseException:
        handle.close()
        raise
    return handle


def _send(udp: socket.socket, reply: bytes, peer: tuple[str, int]) -> None:
    """A client that is gone, or whose buffer is full, goes without."""
    with contextlib.suppress(OSError):
        udp.sendto(reply, peer)
