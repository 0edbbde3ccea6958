"""A host of its own for every test: a namespace with an uplink to an `outside` namespace.

The test's thread, and every thread that it starts, lives in the host namespace meanwhile.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import TypeVar

from tests.support.daemon import wait_until

from estiba.kernel import rtnetlink, rtroutes
from estiba.kernel.libc import check, libc
from estiba.kernel.netlink import NetlinkSocket
from estiba.kernel.netns import ensure_netns, remove_netns, run_in_netns
from estiba.kernel.nft import Nft
from estiba.network.driver import EndpointObserver
from estiba.network.networks import Networks
from estiba.network.plan import NetworkConfig
from estiba.network.record import Endpoint
from estiba.store import Store

HOST_ADDRESS = "198.51.100.2"
OUTSIDE_ADDRESS = "198.51.100.1"
NEIGHBOUR_ADDRESS = "198.51.100.3"
HOST_ADDRESS6 = "2001:db8:64::2"
OUTSIDE_ADDRESS6 = "2001:db8:64::1"
NEIGHBOUR_ADDRESS6 = "2001:db8:64::3"
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
    observers: list[EndpointObserver] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)

    def again(self, **changes: object) -> Networks:
        """Another engine over the same state, as after a restart."""
        self.networks.stop()
        config = replace(self.config, **changes)  # type: ignore[arg-type]
        self.networks = Networks(config, self.store, self.observers)
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

    def serve(
        self,
        where: Path | None,
        port: int,
        kind: int = socket.SOCK_STREAM,
        address: str = "0.0.0.0",
    ) -> None:
        """Answers every connection or datagram with the address that it came from."""

        def listen() -> socket.socket:
            server = socket.socket(_family(address), kind)
            if ":" in address:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.bind((address, port))
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
            with socket.socket(_family(address), kind) as client:
                client.settimeout(timeout_s)
                client.connect((address, port))
                client.send(b"who am I?")
                return client.recv(100).decode()

        return self._from(where, call)

    def reaches(
        self, where: Path | None, address: str, port: int, kind: int = socket.SOCK_STREAM
    ) -> bool:
        """Whether a server at `address` answers: it has time for it on a busy machine too."""
        try:
            self.ask(where, address, port, kind)
        except OSError:
            return False
        return True

    def is_blocked(
        self, where: Path | None, address: str, port: int, timeout_s: float = 0.4
    ) -> bool:
        try:
            self.ask(where, address, port, timeout_s=timeout_s)
        except OSError:
            return True
        return False

    def neighbour(self) -> Path:
        """Another machine on the host's wire, made when it is asked for."""
        place = self.root / "neighbour"
        if not place.exists():
            ensure_netns(place)
            self.stack.callback(remove_netns, place)
            join_uplink(place, "up2", "02:00:00:00:00:03")
            addresses = f"{NEIGHBOUR_ADDRESS}/24", f"{NEIGHBOUR_ADDRESS6}/64"
            run_in_netns(place, lambda: configure_outside(*addresses))
            # The kernel is told of a new carrier in its own time, and lets packets pass then.
            wait_until(
                lambda: "state forwarding" in run("bridge", "link", "show", "dev", "up2"),
                what="the neighbour's wire",
            )
        return place

    def command(self, where: Path | None, *words: str) -> str:
        """Runs a program there; raises CalledProcessError when it fails."""
        return self._from(where, lambda: run(*words))

    def _from(self, where: Path | None, function: Callable[[], T]) -> T:
        return function() if where is None else run_in_netns(where, function)


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _answer_stream(server: socket.socket) -> None:
    try:
        while True:
            client, peer = server.accept()
            with client:
                client.settimeout(5)
                client.recv(100)
                client.sendall(peer[0].encode())
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
    """The host's own part of the wire: `up0`, a bridge, with the outside as its neighbour."""
    _use_addresses_at_once()
    with NetlinkSocket() as handle:
        handle.execute(
            rtnetlink.set_link("lo", up=True),
            rtnetlink.add_bridge("up0", mac="02:00:00:00:00:01", mtu=1500),
        )
        index = rtnetlink.get_link(handle, "up0").index
        handle.execute(
            rtnetlink.set_link("up0", up=True),
            rtroutes.add_address(index, ip_interface(f"{HOST_ADDRESS}/24")),
            rtroutes.add_address(index, ip_interface(f"{HOST_ADDRESS6}/64")),
            rtroutes.set_default_route(index, ip_address(OUTSIDE_ADDRESS)),
            rtroutes.set_default_route(index, ip_address(OUTSIDE_ADDRESS6)),
        )
    join_uplink(outside, "up1", "02:00:00:00:00:02")


def join_uplink(namespace: Path, link: str, mac: str) -> None:
    """Another machine on the same wire; the caller is in the host's namespace."""
    with NetlinkSocket() as handle:
        there = os.open(namespace, os.O_RDONLY)
        handle.execute(
            rtnetlink.add_veth(
                link,
                master=rtnetlink.get_link(handle, "up0").index,
                mtu=1500,
                peer="out0",
                peer_mac=mac,
                peer_netns_fd=there,
            ),
            rtnetlink.set_link(link, up=True),
        )
        os.close(there)


def configure_outside(*addresses: str) -> None:
    """What the other machine sets for itself."""
    _use_addresses_at_once()
    with NetlinkSocket() as handle:
        index = rtnetlink.get_link(handle, "out0").index
        handle.execute(
            rtnetlink.set_link("lo", up=True),
            rtnetlink.set_link("out0", up=True),
            *(
                rtroutes.add_address(index, ip_interface(address))
                for address in addresses or (f"{OUTSIDE_ADDRESS}/24", f"{OUTSIDE_ADDRESS6}/64")
            ),
        )
        rtnetlink.settle_carrier(handle, "out0")


def _use_addresses_at_once() -> None:
    """Without duplicate address detection, which takes a second."""
    for scope in "default", "all":
        Path(f"/proc/sys/net/ipv6/conf/{scope}/accept_dad").write_text("0")


def traces(root: Path) -> tuple[list[str], list[object], list[str]]:
    """Links, tables and mounts of the namespace that the caller is in."""
    with NetlinkSocket() as handle:
        links = sorted(link.name for link in rtnetlink.list_links(handle))
    nft = Nft()
    tables = [entry["table"]["name"] for entry in nft.list_json("list tables")]
    nft.close()
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return links, tables, [line for line in mounts if f" {root}" in line]
