"""ufw and firewalld themselves beside the engine, in a host of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kernel.network.private_host import (
    HOST_ADDRESS,
    HOST_ADDRESS6,
    OUTSIDE_ADDRESS,
    OUTSIDE_ADDRESS6,
    Host,
    run,
)
from tests.support.daemon import wait_until
from tests.support.firewallprograms import Firewalld, Ufw

from estiba.network.record import NetworkSpec, PortRequest

pytestmark = pytest.mark.kernel


@pytest.fixture
def web(host: Host) -> Iterator[Host]:
    """A container that answers at 8080 and 8081 of the host, in both families."""
    host.networks.create(NetworkSpec(name="dual", enable_ipv6=True))
    ports = [PortRequest(container_port=80, host_port=str(port)) for port in (8080, 8081)]
    host.attach("web", "dual", ports=ports)
    here = host.networks.sandbox_path("web")
    for place in here, host.outside:
        host.serve(place, 80)
        host.serve(place, 80, address="::")
    yield host
    for table in run("nft", "list", "tables").splitlines():
        if "estiba_" not in table:
            run("nft", "delete", *table.split())


def opens(host: Host, *ports: int) -> None:
    """Waits until another machine reaches just these ports, in both families."""
    for address in HOST_ADDRESS, HOST_ADDRESS6:
        for port in 8080, 8081:
            is_shut = port not in ports
            wait_until(
                lambda address=address, port=port, is_shut=is_shut: (
                    host.is_blocked(host.outside, address, port, 1.0) == is_shut
                ),
                what=f"{address} {port} to be {'shut' if is_shut else 'open'}",
            )


def reaches_outside(host: Host) -> bool:
    here = host.networks.sandbox_path("web")
    return host.ask(here, OUTSIDE_ADDRESS, 80) == HOST_ADDRESS and (
        host.ask(here, OUTSIDE_ADDRESS6, 80) == HOST_ADDRESS6
    )


@pytest.mark.skipif(not Ufw.is_installed(), reason="needs ufw")
def test_ufw(web: Host) -> None:
    bridge = web.networks.network("dual").bridge
    ufw = Ufw(web.root / "ufw")
    ufw("--force", "enable")
    try:
        opens(web)
        ufw("allow", "8080/tcp")
        ufw("route", "allow", "in", "on", bridge)
        ufw("route", "allow", "out", "on", bridge)
        opens(web, 8080)
        assert reaches_outside(web)
        ufw("reload")
        opens(web, 8080)
        assert reaches_outside(web)
        ufw("delete", "allow", "8080/tcp")
        ufw("allow", "from", OUTSIDE_ADDRESS, "to", "any", "port", "8081", "proto", "tcp")
        ufw("allow", "from", OUTSIDE_ADDRESS6, "to", "any", "port", "8081", "proto", "tcp")
        opens(web, 8081)
        assert web.is_blocked(web.neighbour(), HOST_ADDRESS, 8081)
    finally:
        ufw("disable")
    opens(web, 8080, 8081)


@pytest.mark.skipif(not Firewalld.is_installed(), reason="needs firewalld and dbus-daemon")
def test_firewalld(web: Host) -> None:
    bridge = web.networks.network("dual").bridge
    firewalld = Firewalld(web.root / "firewalld")
    try:
        firewalld.start()
        opens(web)
        firewalld("--permanent", "--add-port=8080/tcp")
        firewalld("--permanent", "--zone=trusted", f"--add-interface={bridge}")
        firewalld("--reload")
        opens(web, 8080)
        assert reaches_outside(web)
        firewalld("--complete-reload")
        opens(web, 8080)
        assert reaches_outside(web)
        rule = 'rule family="ipv4" source address="{}/32" port port="8081" protocol="tcp" accept'
        firewalld(f"--add-rich-rule={rule.format(OUTSIDE_ADDRESS)}")
        wait_until(
            lambda: not web.is_blocked(web.outside, HOST_ADDRESS, 8081, 1.0), what="8081 to be open"
        )
        assert web.is_blocked(web.neighbour(), HOST_ADDRESS, 8081)
    finally:
        firewalld.close()
    opens(web, 8080, 8081)
