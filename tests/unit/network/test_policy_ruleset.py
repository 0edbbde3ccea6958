"""From policies to the content of tables, and from one content to another."""

from __future__ import annotations

import subprocess

import pytest
from tests.unit.network.policy_sample import CLOSED, DB, NETWORKS, WEB, member, network

from estiba.network.policy.compile import Compiled, compile_state
from estiba.network.policy.members import State
from estiba.network.policy.ruleset import difference, render

GROUP = 7


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
