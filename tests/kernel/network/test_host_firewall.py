"""The host's own firewall decides about published ports: real rulesets, real packets."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.kernel.network.private_host import (
    HOST_ADDRESS,
    HOST_ADDRESS6,
    OUTSIDE_ADDRESS,
    OUTSIDE_ADDRESS6,
    Host,
    run,
)
from tests.kernel.network.rulesets import CORPUS, TABLE, load, load_ufw, mirrored, restore
from tests.support.daemon import wait_until

from estiba.kernel.netns import run_in_netns
from estiba.network.firewall import hostpolicy
from estiba.network.networks import Networks
from estiba.network.record import NetworkSpec, PortRequest

pytestmark = pytest.mark.kernel

PORTS = (8080, 8081, 8082, 8083, 8084, 8085)


@pytest.fixture
def web(host: Host) -> Iterator[Host]:
    """A container that answers at all PORTS, in both families; nothing is left afterwards."""
    host.networks.create(NetworkSpec(name="dual", enable_ipv6=True))
    ports = [PortRequest(container_port=80, host_port=str(port)) for port in PORTS]
    host.attach("web", "dual", ports=ports)
    here = host.networks.sandbox_path("web")
    host.serve(here, 80)
    host.serve(here, 80, address="::")
    yield host
    for table in run("nft", "list", "tables").splitlines():
        if TABLE not in table:
            run("nft", "delete", *table.split())


def opened(host: Host, where: Path | None = None, *, ipv6: bool = False) -> list[int]:
    """The published ports that another machine reaches."""
    where = where or host.outside
    address = HOST_ADDRESS6 if ipv6 else HOST_ADDRESS

    def is_open(port: int) -> bool:
        # Long enough for a packet to be lost and sent again.
        return not host.is_blocked(where, address, port, timeout_s=1.5)

    with ThreadPoolExecutor(len(PORTS)) as pool:
        return [port for port, found in zip(PORTS, pool.map(is_open, PORTS), strict=True) if found]


def opened_in_both(host: Host) -> list[int]:
    """The same in both families at once; they must agree."""
    with ThreadPoolExecutor(1) as pool:
        ipv6 = pool.submit(opened, host, ipv6=True)
        ipv4 = opened(host)
        assert ipv4 == ipv6.result()
    return ipv4


def reached_by_own(host: Host) -> bool:
    """The host itself and its containers are not other machines."""
    here = host.networks.sandbox_path("web")
    return all(
        host.ask(place, address, 8080) != ""
        for place in (None, here)
        for address in (HOST_ADDRESS, HOST_ADDRESS6)
    )


def test_a_host_without_a_firewall_refuses_nothing(web: Host) -> None:
    assert opened_in_both(web) == list(PORTS)


def test_a_workstation_lets_ssh_in_and_nothing_else(web: Host) -> None:
    load("workstation.nft", "admin-prohibited")
    assert opened_in_both(web) == []
    assert reached_by_own(web)
    run("nft", "insert", "rule", "inet", "filter", "input", "tcp", "dport", "8080", "accept")
    mirrored("dport 8080 goto")
    assert opened_in_both(web) == [8080]
    assert web.ask(web.outside, HOST_ADDRESS, 8080) == OUTSIDE_ADDRESS
    run("nft", "delete", "table", "inet", "filter")
    wait_until(lambda: opened(web) == list(PORTS), what="the ports to be open again")


def test_rules_by_source_sets_maps_and_chains_keep_their_meaning(web: Host) -> None:
    neighbour = web.neighbour()
    load("server.nft", "dport 8085 reject")
    views = ((None, False), (neighbour, False), (None, True), (neighbour, True))
    with ThreadPoolExecutor(len(views)) as pool:
        found = list(pool.map(lambda view: opened(web, view[0], ipv6=view[1]), views))
    assert found == [[8083, 8084], [8081, 8084], [8084], [8084]]
    assert reached_by_own(web)
    run("nft", "add", "element", "inet", "filter", "admins", "{ 198.51.100.1 }")
    mirrored("198.51.100.1")
    assert opened(web) == [8081, 8083, 8084]
    run("nft", "add", "element", "inet", "filter", "blocked", "{ 198.51.100.1 }")
    mirrored("expires")
    assert opened(web) == []


def test_one_port_for_one_network_only(web: Host) -> None:
    rules = """
    table ip filter {
      chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        ip saddr 198.51.100.0/31 tcp dport 8080 accept
      }
    }"""
    (web.root / "rules").write_text(rules)
    run("nft", "-f", str(web.root / "rules"))
    mirrored("198.51.100.0/31")
    assert opened(web) == [8080]
    assert opened(web, web.neighbour()) == []
    assert opened(web, ipv6=True) == list(PORTS), "the host's firewall is for IPv4 only"


def test_what_firewalld_writes(web: Host) -> None:
    """Its rule for translated packets is not meant for ports that nobody opened."""
    load("firewalld.nft", "filter_IN_public_allow")
    assert opened_in_both(web) == [8081]
    assert reached_by_own(web)


def test_a_refusal_is_the_hosts_own(web: Host) -> None:
    load("server.nft", "dport 8085 reject")
    run("nft", "flush", "chain", "inet", "filter", "input")
    run("nft", "add", "rule", "inet", "filter", "input", "tcp", "dport", "8085", "accept")
    mirrored("dport 8085 goto")
    with pytest.raises(ConnectionRefusedError):
        web.ask(web.outside, HOST_ADDRESS, 8085)


def test_ufw(web: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The rules that ufw loads: Debian's files, port 22 allowed, then 8081."""
    load_ufw(tmp_path, allow=(22,))
    mirrored("ufw_before_input", "ufw_user_input", "dport 22 goto")
    assert opened_in_both(web) == []
    assert reached_by_own(web)
    assert "not understood" not in caplog.text
    load_ufw(tmp_path, allow=(22, 8081), anew=False)
    mirrored("dport 8081 goto")
    assert opened_in_both(web) == [8081]


def test_rules_that_cannot_be_understood_count_against_a_port(
    web: Host, caplog: pytest.LogCaptureFixture
) -> None:
    rules = """*filter
:INPUT ACCEPT
:guests -
-A INPUT -p tcp --dport 8080 -m string --algo bm --string x -j ACCEPT
-A INPUT -p tcp --dport 8081 -m string --algo bm --string x -j DROP
-A INPUT -p tcp --dport 8082:8083 -m string --algo bm --string x -j guests
-A guests -p tcp --dport 8082 -j DROP
-A guests -j ACCEPT
-A INPUT -p tcp --dport 8083 -j DROP
-A INPUT -p tcp --dport 8084 -j DROP
COMMIT
"""
    (web.root / "rules").write_text(rules)
    run("iptables-nft-restore", str(web.root / "rules"))
    mirrored("dport 8084")
    assert opened(web) == [8080, 8085]
    wait_until(lambda: "not understood" in caplog.text, what="the warning")
    told = [line for line in caplog.text.splitlines() if "not understood" in line]
    assert "xt match string" in told[-1] and "user-published tcp dport" in told[-1]
    run("nft", "add", "rule", "inet", TABLE, "user-published", "tcp", "dport", "8081", "accept")
    assert opened(web) == [8080, 8081, 8085]


def test_a_rate_limit_of_ufw_is_not_understood_and_refuses(
    web: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`ufw limit` counts connections in a list that nftables cannot see."""
    load_ufw(tmp_path, allow=(8081,))
    new = "-A ufw-user-input -p tcp --dport 8082 -m conntrack --ctstate NEW -m recent"
    rules = [
        "*filter",
        ":ufw-user-limit -",
        "-A ufw-user-limit -j REJECT",
        f"{new} --set",
        f"{new} --update --seconds 30 --hitcount 6 -j ufw-user-limit",
        "-A ufw-user-input -p tcp --dport 8082 -j ACCEPT",
        "COMMIT",
    ]
    restore(tmp_path, "iptables-nft-restore", rules)
    mirrored("dport 8082 goto")
    assert opened(web) == [8081]
    wait_until(lambda: "recent" in caplog.text, what="the warning")


def test_dockers_way(web: Host) -> None:
    """`--publish-policy=open`: what is published is open."""
    load("workstation.nft", "admin-prohibited")
    assert opened(web) == []
    endpoints = web.networks.endpoints(web.networks.network("dual").id)
    web.again(publish_policy="open").restore(endpoints)
    assert opened_in_both(web) == list(PORTS)
    web.again(publish_policy="host").restore(endpoints)
    assert opened_in_both(web) == []


def test_the_administrators_chain_has_the_first_word(web: Host) -> None:
    load("workstation.nft", "admin-prohibited")
    rule = "tcp dport 8080 ip saddr 198.51.100.1 accept"
    run("nft", "add", "rule", "inet", TABLE, "user-published", *rule.split())
    assert opened(web) == [8080]
    assert opened(web, web.neighbour()) == []
    run("nft", "delete", "table", "inet", "filter")
    wait_until(lambda: len(opened(web)) == len(PORTS), what="the ports to be open")
    run("nft", "insert", "rule", "inet", TABLE, "user-published", "tcp", "dport", "8081", "drop")
    assert 8081 not in opened(web)
    assert 8081 not in opened(web, ipv6=True)


def test_changes_in_quick_succession_cost_one_reading(
    web: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("server.nft", "dport 8085 reject")
    host_policy = web.networks.firewall._host
    readings: list[int] = []
    read, go = host_policy.read, threading.Event()

    def counted() -> object:
        readings.append(1)
        assert go.wait(30)
        return read()

    monkeypatch.setattr(host_policy, "read", counted)
    rules = "\n".join(f"add rule inet filter input tcp dport {n} accept" for n in range(9000, 9040))
    (web.root / "rules").write_text(rules)
    run("nft", "-f", str(web.root / "rules"))
    wait_until(lambda: readings, what="a reading")
    for _ in range(4):
        run("nft", "-f", str(web.root / "rules"))
    go.set()
    mirrored("9039")
    # One that was under way, and one for all that came meanwhile.
    wait_until(lambda: len(readings) == 2, what="another reading")
    # Our own changes cost none, from whichever thread.
    settled = len(readings)
    done, end = threading.Event(), threading.Event()

    def work() -> None:
        web.attach("other", "dual")
        web.networks.create(NetworkSpec(name="more"))
        web.networks.remove("more")
        web.networks.close_sandbox("other")
        web.networks.drain()
        done.set()
        end.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    assert done.wait(10)
    try:
        with pytest.raises(AssertionError):
            wait_until(lambda: len(readings) > settled, what="a reading", deadline_s=0.5)
    finally:
        end.set()
        thread.join()


def test_a_firewall_too_deep_to_be_copied_closes_all(
    web: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel follows 16 jumps; the copy stands two deeper than the original."""
    deep = [f"chain c{n} {{ jump c{n + 1}; }}" for n in range(14)]
    lines = ["chain c14 { accept; }", *reversed(deep)]
    hook = "chain input { type filter hook input priority 0; jump c0; }"
    (web.root / "rules").write_text("table inet deep {\n" + "\n".join([*lines, hook]) + "\n}\n")
    run("nft", "-f", str(web.root / "rules"))
    wait_until(lambda: "cannot be understood" in caplog.text, what="the warning")
    wait_until(lambda: opened(web) == opened(web, ipv6=True) == [], what="the ports to be closed")
    assert reached_by_own(web)


def test_a_change_while_the_engine_starts_takes_no_port(web: Host) -> None:
    """The tables of the engine before stay as they are until its containers are known."""
    endpoints = web.networks.endpoints(web.networks.network("dual").id)
    web.networks.stop()
    run("nft", "-f", str(CORPUS / "firewalld.nft"))
    web.networks = Networks(web.config, web.store)
    web.networks.start()
    run("nft", "-f", str(CORPUS / "server.nft"))
    web.networks.firewall._settle()
    assert web.ask(None, HOST_ADDRESS, 8080) == HOST_ADDRESS
    web.networks.restore(endpoints)
    assert opened(web, web.neighbour()) == [8081]


def test_the_source_is_the_clients_own(web: Host) -> None:
    load("server.nft", "dport 8085 reject")
    assert web.ask(web.outside, HOST_ADDRESS, 8083) == OUTSIDE_ADDRESS
    assert web.ask(web.outside, HOST_ADDRESS6, 8084) == OUTSIDE_ADDRESS6


def test_old_iptables_tables_are_read_too(web: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel does not say when they change: they are looked at every few seconds."""
    monkeypatch.setattr(hostpolicy, "_POLL_S", 0.2)
    for program in "iptables-legacy", "ip6tables-legacy":
        run(program, "-P", "INPUT", "DROP")
        run(program, "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT")
        run(program, "-A", "INPUT", "-p", "tcp", "--dport", "8081", "-j", "ACCEPT")
    run("ip6tables-legacy", "-A", "INPUT", "-p", "icmpv6", "-j", "ACCEPT")
    run("nft", "add", "table", "ip", "wake")
    mirrored("dport 8081 goto")
    assert opened_in_both(web) == [8081]
    run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "8082", "-j", "ACCEPT")
    mirrored("dport 8082 goto")
    assert opened(web) == [8081, 8082]


def documented() -> list[str]:
    """The examples of docs/firewall.md, for the table of the tests' engine."""
    page = Path(__file__).parents[3] / "docs" / "firewall.md"
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for line in "".join(blocks).splitlines() if not line.startswith("#")]
    return [line.replace("estiba_estiba0", TABLE) for line in lines]


def test_the_examples_of_the_documentation(web: Host) -> None:
    neighbour = web.neighbour()
    endpoint = web.networks.endpoints(web.networks.network("dual").id)[0]
    subnet = web.networks.network("dual").pools[0].subnet
    here = web.networks.sandbox_path("web")
    for command in documented():
        small = command.replace("198.51.100.0/24", "198.51.100.0/31").replace("over 1000", "over 9")
        run("sh", "-c", small)
    # Port 8080 for one network only.
    assert web.reaches(web.outside, HOST_ADDRESS, 8080)
    assert web.is_blocked(neighbour, HOST_ADDRESS, 8080)
    assert web.reaches(neighbour, HOST_ADDRESS, 8081)
    # No mail.
    for port in 25, 26:
        web.serve(web.outside, port)
    assert web.is_blocked(here, OUTSIDE_ADDRESS, 25)
    assert web.reaches(here, OUTSIDE_ADDRESS, 26)
    # A machine that routes to containers, and only that.
    for place, address in (neighbour, "198.51.100.7/24"), (web.outside, "198.51.100.9/24"):
        web.command(place, "ip", "route", "add", subnet, "via", HOST_ADDRESS)
        assert web.is_blocked(place, endpoint.ip_address, 80)
        web.command(place, "ip", "addr", "add", address, "dev", "out0")
        plain = address.partition("/")[0]
        web.command(place, "ip", "route", "change", subnet, "via", HOST_ADDRESS, "src", plain)
    assert web.reaches(neighbour, endpoint.ip_address, 80)
    assert web.is_blocked(web.outside, endpoint.ip_address, 80)
    # Addresses that are banned.
    web.command(neighbour, "ip", "addr", "add", "203.0.113.5/32", "dev", "out0")
    source = [subnet, "via", HOST_ADDRESS, "src", "203.0.113.5"]
    web.command(neighbour, "ip", "route", "change", *source)
    assert web.is_blocked(neighbour, endpoint.ip_address, 80)
    # A bound for the connections of one container.
    with ExitStack() as stack:

        def connect() -> None:
            client = stack.enter_context(socket.socket())
            client.settimeout(0.4)
            client.connect((OUTSIDE_ADDRESS, 26))

        with pytest.raises(TimeoutError):
            for _ in range(50):
                run_in_netns(here, connect)
        assert web.reaches(None, OUTSIDE_ADDRESS, 25), "the host is not counted"
