"""The engine's table beside those of others: a Docker Engine, another engine, an admin."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.kernel.network.private_host import HOST_ADDRESS, OUTSIDE_ADDRESS, Host

from estiba.network.networks import Networks
from estiba.network.record import PortRequest
from estiba.store import Store
from estiba.store.events import EventBus

pytestmark = pytest.mark.kernel

WEB = [PortRequest(container_port=80, host_port="8080")]


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def wait_until(condition: Callable[[], bool], timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start_docker_rules() -> None:
    """What dockerd 20.10 writes at its start, as far as forwarding goes."""
    for line in (
        "-P FORWARD DROP",
        "-N DOCKER-USER",
        "-A DOCKER-USER -j RETURN",
        "-I FORWARD -j DOCKER-USER",
        "-A FORWARD -o docker0 -j ACCEPT",
    ):
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
    wait_until(lambda: "estiba9" in accepted())
    works(host, "web")
    remove_docker_rules()


def test_a_firewall_that_drops_is_pointed_out(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    run("iptables-nft", "-P", "FORWARD", "DROP")
    wait_until(lambda: "iptables -I FORWARD" in caplog.text)
    remove_docker_rules()


def test_a_flush_of_the_whole_ruleset_is_healed(host: Host) -> None:
    host.attach("web", ports=WEB)
    run("nft", "flush", "ruleset")
    wait_until(lambda: "estiba_estiba9" in run("nft", "list", "tables"))
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
