"""What other programs do to the engine's tables is noticed and made good within a second."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from tests.kernel.network.private_host import HOST_ADDRESS, OUTSIDE_ADDRESS, Host, run
from tests.support.daemon import wait_until

from estiba.kernel import nft
from estiba.kernel.nfelements import ElementChange, ElementSocket
from estiba.kernel.nft import Nft
from estiba.model.errors import Unavailable
from estiba.network.firewall.contents import Contents
from estiba.network.firewall.removal import remove
from estiba.network.firewall.table import Firewall
from estiba.network.networks import Networks
from estiba.network.record import IpamConfig, NetworkSpec, PortRequest

pytestmark = pytest.mark.kernel

TABLE = "estiba_estiba9"
PORTS = [PortRequest(container_port=80, host_port="8080")]
LIMIT_S = 1.0


@pytest.fixture
def web(host: Host) -> Iterator[Host]:
    host.networks.create(NetworkSpec(name="dual", enable_ipv6=True))
    host.networks.create(NetworkSpec(name="inner", internal=True))
    host.attach("web", "dual", ports=PORTS)
    host.serve(host.networks.sandbox_path("web"), 80)
    yield host


def tables() -> str:
    """Both tables without what the kernel numbers and counts."""
    return "\n".join(_table(family) for family in ("inet", "bridge"))


def _table(family: str) -> str:
    done = subprocess.run(
        ["nft", "-s", "list", "table", family, TABLE], capture_output=True, text=True, check=False
    )
    # The order within a set is the kernel's own.
    return "".join(sorted(done.stdout.replace(",", "\n").replace("{", "\n").split()))


def healed(before: str) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    wait_until(lambda: tables() == before, what="the tables to be whole")
    return time.monotonic() - began


def rule_handle(family: str, chain: str) -> str:
    text = run("nft", "-a", "list", "chain", family, TABLE, chain)
    return next(line.rpartition(" ")[2] for line in text.splitlines() if "drop # handle" in line)


DAMAGE = [
    "flush ruleset",
    f"delete table inet {TABLE}",
    f"delete table bridge {TABLE}",
    f"flush table inet {TABLE}",
    f"flush chain inet {TABLE} inbound",
    f"flush chain bridge {TABLE} arp-of",
    f"flush map inet {TABLE} published",
    f"delete element inet {TABLE} ports {{ tcp . 8080 }}",
    f"delete element inet {TABLE} published {{ tcp . 8080 }}",
    f"flush set inet {TABLE} own",
    f"flush set inet {TABLE} leaving6",
    f"flush set inet {TABLE} internal",
    f"flush set bridge {TABLE} macs",
    f"add element inet {TABLE} published {{ tcp . 9 : 192.0.2.1 . 9 }}",
    f"add element inet {TABLE} talking {{ up0 . up0 }}",
    f"insert rule inet {TABLE} forward accept",
    f"add chain inet {TABLE} stranger",
    f"add chain inet {TABLE} forward {{ policy drop; }}",
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_made_good(web: Host, damage: str) -> None:
    before = tables()
    took = []
    # A machine that stands still for a second does so once.
    for _ in range(2):
        run("nft", *damage.split())
        took.append(healed(before))
    assert min(took) < LIMIT_S
    assert web.ask(web.outside, HOST_ADDRESS, 8080) == OUTSIDE_ADDRESS


def test_a_single_rule_that_was_deleted_comes_back(web: Host) -> None:
    before = tables()
    took = []
    for family, chain in ("inet", "inbound"), ("bridge", "ipv4"):
        run("nft", "delete", "rule", family, TABLE, chain, "handle", rule_handle(family, chain))
        took.append(healed(before))
    assert min(took) < LIMIT_S


def test_all_is_as_before_when_nothing_was_damaged(
    web: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other programs' tables come and go without a rewrite."""
    looks: list[bool] = []
    intact = web.networks.firewall._writer.is_intact

    def watched(contents: Contents) -> bool:
        looks.append(intact(contents))
        return looks[-1]

    monkeypatch.setattr(web.networks.firewall._writer, "is_intact", watched)
    before = run("nft", "-a", "list", "table", "inet", TABLE)
    run("nft", "add", "table", "ip", "other")
    run("nft", "delete", "table", "ip", "other")
    run("nft", "add", "chain", "inet", TABLE, "user-own")
    web.attach("more", "dual")
    wait_until(lambda: bool(looks), what="a look")
    assert all(looks)
    after = run("nft", "-a", "list", "table", "inet", TABLE)
    handles = [line for line in before.splitlines() if "# handle" in line]
    assert [line for line in handles if line not in after] == []


def test_every_kind_of_element_is_known_again(web: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel lists is what was written, in whatever form it lists it."""
    bridge = "com.docker.network.bridge."
    options = [
        {f"{bridge}gateway_mode_ipv{n}": "routed" for n in (4, 6)},
        {f"{bridge}gateway_mode_ipv{n}": "nat-unprotected" for n in (4, 6)},
        {"com.docker.network.host_ipv4": HOST_ADDRESS},
        {f"{bridge}enable_icc": "false"},
    ]
    ports = [
        PortRequest(container_port=80, host_port="7001", protocol="sctp"),
        PortRequest(container_port=80, host_port="7002", protocol="udp", host_ip="127.0.0.1"),
        PortRequest(container_port=80, host_port="7003", host_ip="::1"),
    ]
    for number, each in enumerate(options):
        spec = NetworkSpec(name=f"n{number}", enable_ipv6=True, options=each)
        web.networks.create(spec)
        mine = [msgspec.structs.replace(p, host_port=f"7{number}{p.host_port[-2:]}") for p in ports]
        web.attach(f"c{number}", f"n{number}", ports=mine)
    subnets = [IpamConfig(subnet="10.8.0.0/30"), IpamConfig(subnet="10.8.0.4/30")]
    web.networks.create(NetworkSpec(name="small", pools=subnets))
    contents = web.networks.firewall._contents
    found = {name for _, name in contents.elements()}
    assert {"inner", "inner6", "unprotected", "unprotected6", "leaving_as", "ports6_at"} <= found
    assert web.networks.firewall._writer.is_intact(contents)
    with web.networks.firewall.lock:
        web.networks.firewall._rewrite()
    assert web.networks.firewall._writer.is_intact(contents)


def test_the_administrators_rules_stay(web: Host) -> None:
    """Over rewrites, restarts, and a flush of everything."""
    run("nft", "add", "set", "inet", TABLE, "user_guests", "{ type ipv4_addr; }")
    run("nft", "add", "element", "inet", TABLE, "user_guests", "{ 198.51.100.1 }")
    rule = 'iifname @bridges ip daddr @user_guests tcp dport 25 drop comment "no mail"'
    run("nft", "add", "rule", "inet", TABLE, "user-forward", *rule.split())
    run("nft", "add", "rule", "inet", TABLE, "user-published", "tcp", "dport", "99", "drop")

    def users() -> str:
        return "".join(
            run("nft", "list", kind, "inet", TABLE, name)
            for kind, name in (
                ("chain", "user-forward"),
                ("chain", "user-published"),
                ("set", "user_guests"),
            )
        )

    before, whole = users(), tables()
    assert "no mail" in before and "198.51.100.1" in before
    run("nft", "flush", "chain", "inet", TABLE, "inbound")
    healed(whole)
    assert users() == before
    endpoints = web.networks.endpoints(web.networks.network("dual").id)
    web.again().restore(endpoints)
    assert users() == before
    # A flushed chain of the administrator's is not a damage.
    run("nft", "flush", "chain", "inet", TABLE, "user-published")
    wait_until(lambda: "dport 99" not in users(), what="the rule to go")
    run("nft", "add", "rule", "inet", TABLE, "user-published", "tcp", "dport", "98", "drop")
    run("nft", "flush", "chain", "inet", TABLE, "user-forward")
    seen = web.networks.firewall._writer._users
    wait_until(
        lambda: not seen["user-forward"] and "98" in "".join(seen["user-published"]), what="a look"
    )
    run("nft", "flush", "ruleset")
    wait_until(
        lambda: "dport 98" in run("nft", "list", "ruleset"), what="the rule to be there again"
    )


def test_the_administrators_file_may_hold_the_chain(web: Host, tmp_path: Path) -> None:
    """/etc/nftables.conf begins with `flush ruleset`: what it says of the chain is kept."""
    before = tables()
    rules = tmp_path / "nftables.conf"
    rules.write_text(
        f"flush ruleset\ntable inet {TABLE} {{\n chain user-forward {{\n"
        "  ip saddr 203.0.113.0/24 drop\n }\n}\n"
    )
    run("nft", "-f", str(rules))
    wait_until(lambda: "8080" in tables(), what="the table to be whole")
    assert "203.0.113.0/24drop" in tables().replace("\n", "") or "203.0.113.0/24" in tables()
    run("nft", "flush", "chain", "inet", TABLE, "user-forward")
    healed(before)


def test_all_is_taken_away_on_request(web: Host) -> None:
    """`estibad --remove-firewall`, while containers run and the daemon does not."""
    stand_in = "fd65:7374:6962:61::1"
    assert stand_in in run("ip", "-6", "route", "show", "table", "local")
    endpoints = web.networks.endpoints(web.networks.network("dual").id)
    bridge = web.networks.network("dual").bridge
    web.networks.stop()
    nft = Nft()
    for _ in range(2):
        remove(nft, TABLE)
        assert "estiba_" not in run("nft", "list", "ruleset")
        assert stand_in not in run("ip", "-6", "route", "show", "table", "local")
        localnet = Path(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet")
        assert localnet.read_text().strip() == "0"
    nft.close()
    web.networks = Networks(web.config, web.store)
    web.networks.start()
    web.networks.restore(endpoints)
    assert web.ask(None, "127.0.0.1", 8080)


def test_a_host_without_nftables(monkeypatch: pytest.MonkeyPatch) -> None:
    nft._load.cache_clear()
    monkeypatch.setattr(nft, "_LIBRARY", "libnftables.so.none")
    with pytest.raises(Unavailable, match="install nftables"):
        Firewall("estiba_none")
    monkeypatch.undo()
    nft._load.cache_clear()


def test_a_link_is_admitted_before_it_is_there_and_dismissed_after(
    web: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []
    link = web.networks.endpoints(web.networks.network("dual").id)[0].host_interface
    real = ElementSocket.execute

    def watched(self: ElementSocket, changes: Sequence[ElementChange]) -> None:
        for change in changes:
            if change.set == "links":
                seen.append((change.is_new, link in run("ip", "-o", "link")))
        real(self, changes)

    monkeypatch.setattr(ElementSocket, "execute", watched)
    web.networks.close_sandbox("web")
    web.networks.drain()
    web.attach("web", "dual")
    assert seen == [(False, False), (True, False)]
