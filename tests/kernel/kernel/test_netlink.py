from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from estiba.kernel import rtnetlink, rtroutes
from estiba.kernel.netlink import NetlinkError, NetlinkSocket
from estiba.kernel.netns import (
    ensure_netns,
    is_netns,
    open_netlink,
    remove_netns,
    run_in_netns,
)

pytestmark = pytest.mark.kernel

MAC = "02:00:00:00:00:11"


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "netns"
    ensure_netns(path)
    yield path
    remove_netns(path)


@pytest.fixture
def handle(namespace: Path) -> Iterator[NetlinkSocket]:
    with open_netlink(namespace) as handle:
        yield handle


def test_a_namespace_is_made_once_and_removed_twice(tmp_path: Path) -> None:
    path = tmp_path / "netns"
    calls: list[str] = []
    ensure_netns(path, lambda: calls.append("prepared"))
    inode = path.stat().st_ino
    ensure_netns(path, lambda: calls.append("prepared"))
    assert (path.stat().st_ino, calls) == (inode, ["prepared"])
    assert is_netns(path)
    remove_netns(path)
    remove_netns(path)
    assert not path.exists()
    assert not is_netns(path)


def test_a_file_that_a_crash_left_is_made_into_a_namespace(tmp_path: Path) -> None:
    path = tmp_path / "netns"
    path.touch()
    ensure_netns(path)
    assert is_netns(path)
    remove_netns(path)


def test_a_preparation_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "netns"

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ensure_netns(path, fail)
    assert not path.exists()


def test_the_calling_thread_stays_where_it_is(namespace: Path) -> None:
    def here() -> int:
        return Path(f"/proc/self/task/{threading.get_native_id()}/ns/net").stat().st_ino

    home = here()
    assert run_in_netns(namespace, here) == namespace.stat().st_ino != home
    assert here() == home


def test_links_addresses_and_routes(handle: NetlinkSocket) -> None:
    handle.execute(
        rtnetlink.set_link("lo", up=True),
        rtnetlink.add_bridge("br", mac=MAC, mtu=1400),
    )
    bridge = rtnetlink.get_link(handle, "br")
    assert (bridge.kind, bridge.mac, bridge.mtu, bridge.is_up) == ("bridge", MAC, 1400, True)
    for address in ("10.1.0.1/16", "fd00:1::1/64"):
        handle.execute(rtroutes.add_address(bridge.index, ip_interface(address)))
        handle.execute(rtroutes.add_address(bridge.index, ip_interface(address)))
    for gateway in ("10.1.0.2", "10.1.0.3", "fd00:1::2"):
        handle.execute(rtroutes.set_default_route(bridge.index, ip_address(gateway)))
    addresses = [str(one) for index, one in rtroutes.list_addresses(handle)]
    assert {"10.1.0.1/16", "fd00:1::1/64", "127.0.0.1/8", "::1/128"} <= set(addresses)
    routes = [str(r.network) for r in rtroutes.list_routes(handle) if r.index == bridge.index]
    assert routes.count("0.0.0.0/0") == 1
    assert {"10.1.0.0/16", "::/0", "fd00:1::/64"} <= set(routes)
    handle.execute(rtroutes.delete_address(bridge.index, ip_interface("10.1.0.1/16")))
    handle.execute(rtnetlink.delete_link(bridge.index))
    assert [link.name for link in rtnetlink.list_links(handle) if link.name == "br"] == []


def test_a_pair_is_born_in_two_namespaces(handle: NetlinkSocket, tmp_path: Path) -> None:
    other = tmp_path / "other"
    ensure_netns(other)
    handle.execute(rtnetlink.add_bridge("br", mac=MAC, mtu=1500))
    bridge = rtnetlink.get_link(handle, "br")
    fd = os.open(other, os.O_RDONLY)
    handle.execute(
        rtnetlink.add_veth(
            "one",
            master=bridge.index,
            mtu=1500,
            peer="eth0",
            peer_mac="02:00:00:00:00:22",
            peer_netns_fd=fd,
        ),
        rtnetlink.set_bridge_port("one", isolated=True, hairpin=True),
    )
    os.close(fd)
    one = rtnetlink.get_link(handle, "one")
    assert (one.kind, one.master, one.is_up) == ("veth", bridge.index, True)
    with open_netlink(other) as there:
        assert rtnetlink.get_link(there, "eth0").mac == "02:00:00:00:00:22"
    handle.execute(rtnetlink.set_link("one", master=0, mtu=1300, mac="02:00:00:00:00:33"))
    one = rtnetlink.get_link(handle, "one")
    assert (one.master, one.mtu, one.mac) == (0, 1300, "02:00:00:00:00:33")
    handle.execute(rtnetlink.delete_link("one"))
    remove_netns(other)


def test_an_error_names_the_request_and_keeps_errno(handle: NetlinkSocket) -> None:
    with pytest.raises(NetlinkError, match=r"set link nobody: .*No such device") as caught:
        handle.execute(rtnetlink.set_link("nobody", up=True))
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(NetlinkError, match="get link nobody"):
        rtnetlink.get_link(handle, "nobody")
    with pytest.raises(NetlinkError, match="gateway"):
        handle.execute(rtroutes.set_default_route(1, ip_address("10.9.9.9")))


def test_the_rest_of_a_batch_is_tried(handle: NetlinkSocket) -> None:
    with pytest.raises(NetlinkError, match="set link nobody"):
        handle.execute(
            rtnetlink.set_link("nobody", up=True), rtnetlink.add_bridge("br", mac=MAC, mtu=1500)
        )
    assert rtnetlink.get_link(handle, "br")


def test_a_dump_of_many_links(handle: NetlinkSocket) -> None:
    names = {f"br{number}" for number in range(200)}
    handle.execute(*(rtnetlink.add_bridge(name, mac=MAC, mtu=1500) for name in names))
    links = rtnetlink.list_links(handle, counters=True)
    assert names <= {link.name for link in links}
    assert all(link.counters is not None for link in links)


def test_one_socket_serves_many_threads(handle: NetlinkSocket) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(20):
                handle.execute(rtnetlink.add_bridge(f"br{number}", mac=MAC, mtu=1500))
                assert rtnetlink.get_link(handle, f"br{number}").name == f"br{number}"
                handle.execute(rtnetlink.delete_link(f"br{number}"))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
