"""A host of its own for every test: a namespace with an uplink to an `outside` namespace.

The test's thread, and every thread that it starts, lives in the host namespace meanwhile.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import TypeVar

from estiba.kernel import rtnetlink
from estiba.kernel.libc import check, libc
from estiba.kernel.netlink import NetlinkSocket
from estiba.kernel.netns import run_in_netns
from estiba.kernel.nft import Nft
from estiba.network.networks import Networks
from estiba.network.plan import NetworkConfig
from estiba.network.record import Endpoint
from estiba.store import Store

HOST_ADDRESS = "198.51.100.2"
OUTSIDE_ADDRESS = "198.51.100.1"
_CLONE_NEWNET = 0x40000000
T = TypeVar("T")


@dataclass
class Host:
    """The host's parts, and sockets on all sides of it."""

    root: Path
    outside: Path
    config: NetworkConfig
    store: Store
    networks: Networks
    stack: ExitStack = field(default_factory=ExitStack)

    def again(self, **changes: object) -> Networks:
        """Another engine over the same state, as after a restart."""
        self.networks.stop()
        self.networks = Networks(replace(self.config, **changes), self.store)  # type: ignore[arg-type]
        self.networks.start()
        return self.networks

    def attach(self, container_id: str, network: str = "bridge", **wanted: object) -> Endpoint:
        self.networks.open_sandbox(container_id)
        return self.networks.connect(
            container_id,
            container_name=f"name-{container_id}",
            network=network,
            **wanted,  # type: ignore[arg-type]
        )

    def serve(self, where: Path | None, port: int, kind: int = socket.SOCK_STREAM) -> None:
        """Answers every connection or datagram with the address that it came from."""

        def listen() -> socket.socket:
            server = socket.socket(socket.AF_INET, kind)
            server.bind(("0.0.0.0", port))
            if kind == socket.SOCK_STREAM:
                server.listen()
            return server

        server = self._from(where, listen)
        answer = _answer_stream if kind == socket.SOCK_STREAM else _answer_datagram
        thread = threading.Thread(target=answer, args=(server,), daemon=True)
        thread.start()
        self.stack.callback(thread.join)
        self.stack.callback(server.close)
        self.stack.callback(_shut, server)

    def ask(
        self,
        where: Path | None,
        address: str,
        port: int,
        kind: int = socket.SOCK_STREAM,
        timeout_s: float = 5.0,
    ) -> str:
        """Who the server at `address` says that one is. Raises OSError when nobody answers."""

        def call() -> str:
            with socket.socket(socket.AF_INET, kind) as client:
                client.settimeout(timeout_s)
                client.connect((address, port))
                client.send(b"who am I?")
                return client.recv(100).decode()

        return self._from(where, call)

    def is_blocked(self, where: Path | None, address: str, port: int) -> bool:
        try:
            self.ask(where, address, port, timeout_s=0.4)
        except OSError:
            return True
        return False

    def _from(self, where: Path | None, function: Callable[[], T]) -> T:
        return function() if where is None else run_in_netns(where, function)


def _answer_stream(server: socket.socket) -> None:
    try:
        while True:
            client, (address, _) = server.accept()
            with client:
                client.settimeout(5)
                client.recv(100)
                client.sendall(address.encode())
    except OSError:
        return


def _answer_datagram(server: socket.socket) -> None:
    try:
        while True:
            data, peer = server.recvfrom(100)
            if not data:
                return
            server.sendto(peer[0].encode(), peer)
    except OSError:
        return


def _shut(server: socket.socket) -> None:
    try:
        server.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


@contextmanager
def entered(path: Path) -> Iterator[None]:
    """The calling thread in the namespace at `path`."""
    home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    there = os.open(path, os.O_RDONLY)
    try:
        check(libc.setns(there, _CLONE_NEWNET), "enter")
        yield
    finally:
        check(libc.setns(home, _CLONE_NEWNET), "leave")
        os.close(there)
        os.close(home)


def make_uplink(outside: Path) -> None:
    with NetlinkSocket() as handle:
        handle.execute(
            rtnetlink.set_link("lo", up=True),
            rtnetlink.add_bridge("up0", mac="02:00:00:00:00:01", mtu=1500),
        )
        index = rtnetlink.get_link(handle, "up0").index
        there = os.open(outside, os.O_RDONLY)
        handle.execute(
            rtnetlink.add_veth(
                "up1",
                master=index,
                mtu=1500,
                peer="out0",
                peer_mac="02:00:00:00:00:02",
                peer_netns_fd=there,
            ),
            rtnetlink.set_link("up1", up=True),
            rtnetlink.add_address(index, ip_interface(f"{HOST_ADDRESS}/24")),
            rtnetlink.set_default_route(index, ip_address(OUTSIDE_ADDRESS)),
        )
        os.close(there)


def configure_outside() -> None:
    with NetlinkSocket() as handle:
        index = rtnetlink.get_link(handle, "out0").index
        handle.execute(
            rtnetlink.set_link("lo", up=True),
            rtnetlink.set_link("out0", up=True),
            rtnetlink.add_address(index, ip_interface(f"{OUTSIDE_ADDRESS}/24")),
        )


def traces(root: Path) -> tuple[list[str], list[object], list[str]]:
    """Links, tables and mounts of the namespace that the caller is in."""
    with NetlinkSocket() as handle:
        links = sorted(link.name for link in rtnetlink.list_links(handle))
    nft = Nft()
    tables = [entry["table"]["name"] for entry in nft.list_json("list tables")]
    nft.close()
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return links, tables, [line for line in mounts if f" {root}" in line]
