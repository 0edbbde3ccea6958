"""From policies to the content of tables, and from one content to another."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address, ip_network

import pytest

from estiba.network.policy.compile import Compiled, compile_state
from estiba.network.policy.egress import parse_egress
from estiba.network.policy.members import Member, NetworkView, State
from estiba.network.policy.rules import parse_policy
from estiba.network.policy.ruleset import difference, render

GROUP = 7


def network(number: int, policy: str = "", egress: str = "") -> NetworkView:
    return NetworkView(
        id=f"{number}" * 64,
        name=f"n{number}",
        bridge=f"br{number}",
        subnets=(ip_network(f"10.{number}.0.0/16"), ip_network(f"fd00:{number}::/64")),
        gateways=(ip_address(f"10.{number}.0.1"), ip_address(f"fd00:{number}::1")),
        policy=parse_policy(policy),
        egress=parse_egress(egress),
    )


def member(
    name: str, number: int, host: int, egress: str = "", labels: dict[str, str] | None = None
) -> Member:
    return Member(
        container_id=name * 16,
        name=name,
        network_id=f"{number}" * 64,
        network_name=f"n{number}",
        link=f"es{host:012x}",
        bridge=f"br{number}",
        mac=f"02:00:00:00:0{number}:{host:02x}",
        addresses=(ip_address(f"10.{number}.0.{host}"), ip_address(f"fd00:{number}::{host:x}")),
        names=frozenset([name]),
        labels=labels or {},
        egress=parse_egress(egress),
    )


CLOSED = network(
    1,
    "default closed\n"
    "allow from=web,label:tier=api,10.9.0.0/16 to=db port=5432/tcp,53/udp,icmp\n"
    "deny from=outside to=web port=22\n"
    "allow to=web from=any\n"
    "allow from=host to=db",
)
LISTED = network(2, egress="allow=*.debian.org:443,allow=10.0.0.0/8,allow=*:53/udp,allow=fd00::/8")
NETWORKS = {view.id: view for view in (CLOSED, LISTED)}
WEB, DB = member("web", 1, 2), member("db", 1, 3)
STATES = [
    State(NETWORKS),
    State(NETWORKS, (WEB, DB, member("api", 2, 4, "none", {"tier": "api"}))),
    State(NETWORKS, (WEB, DB, member("pool", 1, 5, "allow=a.b:80", {"tier": "api"}))),
    State({**NETWORKS, CLOSED.id: network(1, "deny from=web to=db")}, (WEB, DB)),
]


def tables(content: Compiled) -> str:
    parts = []
    for family, ruleset in (("inet", content.inet), ("bridge", content.bridge)):
        own = "set bridges { type ifname; }" if family == "inet" else ""
        parts.append("\n".join([f"table {family} t {{", own, *render(ruleset, {}, {}), "}"]))
    return "\n".join(parts)


def changes(old: Compiled, new: Compiled) -> str:
    commands = difference(old.inet, new.inet, "inet t")
    return "\n".join(commands + difference(old.bridge, new.bridge, "bridge t"))


def test_nothing_said_is_no_rule() -> None:
    content = compile_state(State({"3" * 64: network(3)}, (member("web", 3, 2),)), GROUP)
    assert content.inet.chains["policies"].rules == ()
    assert content.bridge.chains["policies"].rules == ()
    assert (content.inet.sets, content.bridge.sets, content.points) == ({}, {}, {})


def test_a_member_more_changes_elements_and_nothing_that_counts() -> None:
    before = State(NETWORKS, (WEB, DB))
    after = State(NETWORKS, (WEB, DB, member("y", 1, 6, labels={"tier": "api"})))
    text = changes(compile_state(before, GROUP), compile_state(after, GROUP))
    assert "flush chain" not in text
    assert "add element bridge t policy_s_111111111111_" in text
    assert "delete counter" not in text


@pytest.mark.kernel
def test_a_change_leads_to_what_would_have_been_written_as_a_whole() -> None:
    """Through all pairs of states, on the kernel."""
    contents = [compile_state(state, GROUP) for state in STATES]
    script = ""
    for old, first in enumerate(contents):
        for new, second in enumerate(contents):
            script += (
                f"nft flush ruleset\nnft -f - <<'X'\n{tables(second)}\nX\n"
                f"nft -s list ruleset | sort > whole\n"
                f"nft flush ruleset\nnft -f - <<'X'\n{tables(first)}\nX\n"
                f"nft -f - <<'X'\n{changes(first, second)}\nX\n"
                f"nft -s list ruleset | sort > changed\ndiff whole changed || echo {old} {new}\n"
            )
    script = f"mount -t tmpfs x /mnt; cd /mnt\n{script}"
    command = ["unshare", "-nm", "sh", "-e"]
    done = subprocess.run(
        command, input=script, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
