"""The engine's table beside those of others: a Docker Engine, another engine, an admin."""

from __future__ import annotations

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tests.kernel.network.private_host import (
    HOST_ADDRESS,
    HOST_ADDRESS6,
    OUTSIDE_ADDRESS,
    OUTSIDE_ADDRESS6,
    Host,
)
from tests.support.daemon import wait_until
from tests.support.dockerd import GenuineDockerd

from estiba.kernel.netns import alone_in_netns
from estiba.network.networks import Networks
from estiba.network.record import NetworkSpec, PortRequest
from estiba.store import Store
from estiba.store.events import EventBus

pytestmark = pytest.mark.kernel

WEB = [PortRequest(container_port=80, host_port="8080")]


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


# What dockerd 20.10 writes at its start, as far as forwarding goes.
DOCKER_RULES = (
    "-P FORWARD DROP",
    "-N DOCKER-USER",
    "-A DOCKER-USER -j RETURN",
    "-I FORWARD -j DOCKER-USER",
    "-A FORWARD -o docker0 -j ACCEPT",
)


def start_docker_rules() -> None:
    for line in DOCKER_RULES:
        run("iptables-nft", *line.split())


def accepted() -> str:
    return run("iptables-nft", "-S", "DOCKER-USER")


def works(host: Host, container_id: str) -> None:
    here = host.networks.sandbox_path(container_id)
    host.serve(host.outside, 7000)
    assert host.ask(here, OUTSIDE_ADDRESS, 7000) == HOST_ADDRESS
    host.serve(here, 80)
    assert host.ask(host.outside, HOST_ADDRESS, 8080) == OUTSIDE_ADDRESS


def remove_docker_rules() -> None:
    run("nft", "delete", "table", "ip", "filter")


def test_a_docker_engine_that_was_there_before(host: Host) -> None:
    start_docker_rules()
    host.again().restore([])
    host.attach("web", ports=WEB)
    works(host, "web")
    rules = [line.split(" -m comment")[0] for line in accepted().splitlines()]
    assert rules == [
        "-N DOCKER-USER",
        "-A DOCKER-USER -o estiba9",
        "-A DOCKER-USER -i estiba9 -o docker+",
        "-A DOCKER-USER -i estiba9 -o br-+",
        "-A DOCKER-USER -i estiba9",
        "-A DOCKER-USER -j RETURN",
    ]
    before = accepted()
    host.again().restore([])
    assert accepted() == before
    host.networks.remove_all_traces()
    assert "estiba9" not in accepted()
    remove_docker_rules()
    host.networks = Networks(host.config, host.store)
    host.networks.start()


def test_rules_for_bridges_that_are_no_more_go(host: Host) -> None:
    """Those of an engine that was taken away, not those of one that merely does not run."""
    start_docker_rules()
    for owner, bridge in ("estiba_gone0", "gone0"), ("estiba_lo", "lo"):
        comment = f'"{owner} {bridge}"'
        run("nft", f"insert rule ip filter DOCKER-USER oifname {bridge} accept comment {comment}")
    host.again().restore([])
    assert "gone0" not in accepted()
    assert "estiba_lo lo" in accepted() and "estiba9" in accepted()
    remove_docker_rules()


def test_a_docker_engine_that_comes_later(host: Host) -> None:
    host.attach("web", ports=WEB)
    start_docker_rules()
    wait_until(lambda: "estiba9" in accepted(), what="rules for the bridge")
    works(host, "web")
    remove_docker_rules()


@pytest.mark.skipif(not GenuineDockerd.is_installed(), reason="needs dockerd and its client")
def test_a_genuine_docker_engine(host: Host, tmp_path: Path) -> None:
    """dockerd in the same host: both engines' containers work, and neither reaches into the
    other's networks but by published ports.
    """
    ours = host.attach("web", ports=WEB)
    here = host.networks.sandbox_path("web")
    (tmp_path / "dockerd").mkdir()
    dockerd = GenuineDockerd(tmp_path / "dockerd", ("--bip", "10.77.0.1/24"))
    try:
        dockerd.start()
        wait_until(lambda: "estiba9" in accepted(), what="rules for the bridge")
        # dockerd does this itself where it is the first to let the host forward.
        run("iptables-nft", "-P", "FORWARD", "DROP")
        works(host, "web")
        dockerd.docker("run", "-d", "--name", "theirs", "-p", "9090:80", "busybox", "sleep", "600")
        for port in "80", "81":
            listen = "nc", "-ll", "-p", port, "-e", "echo", "theirs"
            dockerd.docker("exec", "-d", "theirs", *listen)
        ask = "echo | nc -w 2"

        def theirs(address: str, port: int) -> str:
            command = f"{ask} {address} {port} || true"
            return dockerd.docker("exec", "theirs", "sh", "-c", command).decode().strip()

        inside = dockerd.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "theirs")
        address = inside.decode().strip()
        # `exec -d` does not wait until its program listens.
        for port in 80, 81:
            wait_until(
                lambda port=port: host.reaches(None, address, port), what=f"their port {port}"
            )
        assert host.ask(host.outside, HOST_ADDRESS, 9090).strip() == "theirs"
        assert theirs(OUTSIDE_ADDRESS, 7000) == HOST_ADDRESS
        assert theirs(HOST_ADDRESS, 8080), "our published port"
        assert host.ask(here, HOST_ADDRESS, 9090).strip() == "theirs"
        assert theirs(ours.ip_address, 80) == ""
        assert host.ask(None, address, 81).strip() == "theirs"
        assert host.is_blocked(here, address, 81)
        # The host's firewall decides about Docker's containers as about other machines.
        run("iptables-nft", "-A", "INPUT", "-p", "tcp", "--dport", "8080", "-j", "DROP")
        wait_until(lambda: theirs(HOST_ADDRESS, 8080) == "", what="the host's rule to count")
        assert host.is_blocked(host.outside, HOST_ADDRESS, 8080)
        assert host.ask(None, "127.0.0.1", 8080)
    finally:
        dockerd.close()
        subprocess.run(["ip", "link", "del", "docker0"], check=False)
        for table in "filter", "nat":
            subprocess.run(["nft", "delete", "table", "ip", table], check=False)


def test_docker_user_of_ipv6(host: Host) -> None:
    """dockerd with IPv6 drops what it does not know in the other family too."""
    spec = NetworkSpec(name="six", enable_ipv6=True)
    bridge = host.networks.create(spec).bridge
    host.attach("web", "six", ports=WEB)
    host.serve(host.networks.sandbox_path("web"), 80, address="::")
    for line in DOCKER_RULES:
        run("ip6tables-nft", *line.split())
    rules = ["-N", "DOCKER-USER"]
    wait_until(
        lambda: f"-i {bridge} " in run("ip6tables-nft", "-S", "DOCKER-USER"), what="its rules"
    )
    assert rules == run("ip6tables-nft", "-S", "DOCKER-USER").split()[:2]
    assert host.ask(host.outside, HOST_ADDRESS6, 8080) == OUTSIDE_ADDRESS6
    host.serve(host.outside, 7000, address="::")
    here = host.networks.sandbox_path("web")
    assert host.ask(here, OUTSIDE_ADDRESS6, 7000) == HOST_ADDRESS6
    host.networks.close_sandbox("web")
    host.networks.remove("six")
    assert bridge not in run("ip6tables-nft", "-S", "DOCKER-USER")
    run("nft", "delete", "table", "ip6", "filter")


@pytest.mark.parametrize("family", ["ip", "inet"])
def test_a_firewall_of_another_kind_that_drops_is_pointed_out(
    host: Host, caplog: pytest.LogCaptureFixture, family: str
) -> None:
    chain = "{ type filter hook forward priority filter; policy drop; }"
    run("nft", "add", "table", family, "mine")
    run("nft", "add", "chain", family, "mine", "passing", chain)
    wait_until(lambda: f"{family} mine passing, policy drop" in caplog.text, what="the warning")
    run("nft", "delete", "table", family, "mine")


def test_a_firewall_that_drops_is_pointed_out(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    run("iptables-nft", "-P", "FORWARD", "DROP")
    wait_until(lambda: "iptables -I FORWARD" in caplog.text, what="the warning")
    remove_docker_rules()


def test_a_flush_of_the_whole_ruleset_is_healed(host: Host) -> None:
    host.attach("web", ports=WEB)
    run("nft", "flush", "ruleset")
    wait_until(lambda: "estiba_estiba9" in run("nft", "list", "tables"), what="the tables")
    works(host, "web")


def test_two_engines_on_one_host(host: Host, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "second.db", EventBus())
    config = replace(host.config, bridge="estiba8", netns_root=tmp_path / "netns8")
    second = Networks(config, store)
    second.start()
    second.restore([])
    assert second.network("bridge").pools[0].subnet == "172.18.0.0/16"
    host.attach("web", ports=WEB)
    second.open_sandbox("web")
    other = second.connect(
        "web",
        container_name="web",
        network="bridge",
        ports=[PortRequest(container_port=80, host_port="8081")],
    )
    host.serve(second.sandbox_path("web"), 80)
    works(host, "web")
    assert host.ask(host.networks.sandbox_path("web"), HOST_ADDRESS, 8081)
    assert host.is_blocked(host.networks.sandbox_path("web"), other.ip_address, 80)
    host.networks.sweep(["web"])
    second.sweep([])
    second.drain()
    second.remove_all_traces()
    store.close()
    assert host.ask(None, "127.0.0.1", 8080)


def test_rules_of_many_networks_come_and_go_in_their_places(host: Host) -> None:
    """Into all bridges of ours first, however they were made, and whoever was at the chain."""

    def check(*bridges: str) -> None:
        shown = [line.split(" -m comment")[0].split()[2:] for line in accepted().splitlines()[1:]]
        into = [words[1] for words in shown if words[0] == "-o"]
        out = [words[1:] for words in shown if words[0] == "-i"]
        assert sorted(into) == sorted(bridges)
        assert [words[0] for words in shown] == ["-o"] * len(into) + ["-i"] * len(out) + ["-j"]
        for bridge in bridges:
            mine = [words[1:] for words in out if words[0] == bridge]
            assert mine == [["-o", "docker+"], ["-o", "br-+"], []]

    start_docker_rules()
    host.again().restore([])
    names = [f"n{number}" for number in range(4)]
    made = {name: host.networks.create(NetworkSpec(name=name)).bridge for name in names}
    check("estiba9", *made.values())
    for name in "n1", "n3":
        host.networks.remove(name)
    check("estiba9", made["n0"], made["n2"])
    host.again().restore([])
    # The rule that others are put before goes with its network.
    for name in "n0", "n2":
        host.networks.remove(name)
    made["n4"] = host.networks.create(NetworkSpec(name="n4")).bridge
    check("estiba9", made["n4"])
    run("iptables-nft", "-F", "DOCKER-USER")
    made["n5"] = host.networks.create(NetworkSpec(name="n5")).bridge
    run("iptables-nft", "-A", "DOCKER-USER", "-j", "RETURN")
    wait_until(lambda: len(accepted().splitlines()) == 14, what="all rules")
    check("estiba9", made["n4"], made["n5"])
    run("nft", "delete", "rule", "ip", "filter", "DOCKER-USER", "handle", last_of("estiba9"))
    wait_until(lambda: len(accepted().splitlines()) == 14, what="all rules")
    check("estiba9", made["n4"], made["n5"])
    host.networks.remove("n4")
    host.networks.remove("n5")
    check("estiba9")
    remove_docker_rules()


def last_of(bridge: str) -> str:
    listed = run("nft", "-a", "list", "chain", "ip", "filter", "DOCKER-USER").splitlines()
    return [line for line in listed if bridge in line][-1].split()[-1]


def test_rules_are_what_nft_would_have_written(host: Host) -> None:
    start_docker_rules()
    host.again().restore([])
    shown = run("nft", "-s", "list", "chain", "ip", "filter", "DOCKER-USER")
    end = 'comment "estiba_estiba9 estiba9"'
    for rule in (
        f'oifname "estiba9" counter accept {end}',
        f'iifname "estiba9" oifname "docker*" counter return {end}',
        f'iifname "estiba9" oifname "br-*" counter return {end}',
        f'iifname "estiba9" counter accept {end}',
    ):
        assert rule in shown
    remove_docker_rules()


def test_two_engines_that_make_networks_at_once_choose_other_subnets(
    host: Host, tmp_path: Path
) -> None:
    config = replace(host.config, bridge="estiba8", netns_root=tmp_path / "netns8")
    store = Store.open(tmp_path / "second.db", EventBus())
    second = Networks(config, store)
    second.start()
    second.restore([])
    both = threading.Barrier(2)

    def make(networks: Networks) -> list[str]:
        made = []
        for number in range(8):
            both.wait()
            made.append(networks.create(NetworkSpec(name=f"n{number}")).pools[0].subnet)
        return made

    with ThreadPoolExecutor(2) as pool:
        first, others = pool.map(make, (host.networks, second))
    second.remove_all_traces()
    store.close()
    assert len({*first, *others}) == 16


def test_an_engine_that_stands_still_holds_others_up_for_a_while_only(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("estiba.network.catalog._PATIENCE_S", 0.05)
    with alone_in_netns(0) as is_alone:
        assert is_alone
        host.networks.create(NetworkSpec(name="blue"))
    assert "another engine has been making a network" in caplog.text
