"""What happens when a ruleset cannot be read, or its copy is not taken."""

from __future__ import annotations

from typing import Any

import pytest

from estiba.model.errors import Internal
from estiba.network.firewall.hostpolicy import HostPolicy

CHAIN = {"chain": {"family": "inet", "table": "filter", "name": "input", "hook": "input"}}
LISTING = """table inet filter {
\tset odd {
\t\ttype ipv4_addr
\t\telements = { 192.0.2.1 }
\t}
\tchain input {
\t\ttype filter hook input priority filter; policy drop;
\t\ttcp dport 1 accept
\t\tmagic 1 accept
\t\tmagic 2 drop
\t\tip saddr @odd accept
\t}
}
"""


class FakeNft:
    """A kernel that takes no rule with one of these words."""

    def __init__(self, listing: str, *refused: str) -> None:
        self.listing = listing
        self.refused = refused
        self.checks = 0

    def list_json(self, command: str) -> list[dict[str, Any]]:
        assert command == "list chains"
        return [CHAIN]

    def list_text(self, command: str) -> str:
        assert command == "list table inet filter"
        return self.listing

    def check(self, commands: str) -> None:
        self.checks += 1
        if any(word in commands for word in self.refused):
            raise Internal("refused")


def policy(nft: FakeNft) -> HostPolicy:
    made = HostPolicy("t", obey=True)
    made.close()
    made._nft = nft  # type: ignore[assignment]
    return made


def test_a_rule_that_the_kernel_refuses_counts_against_a_port(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nft = FakeNft(LISTING, "magic")
    made = policy(nft)
    text = made.read()
    assert text.chains["host0_0_input"].split("\n") == [
        "    tcp dport 1 goto host1",
        "    drop",
        "    ip saddr @host0_odd goto host1",
    ]
    assert caplog.text.count("magic 1 accept; inet filter input: magic 2 drop") == 1
    checks = nft.checks
    assert made.read() == text
    assert nft.checks == checks, "the same copy is not checked twice"
    assert caplog.text.count("magic 1 accept") == 1, "and not told twice"


def test_a_set_that_the_kernel_refuses_goes_with_its_rules() -> None:
    text = policy(FakeNft(LISTING, "192.0.2.1", "@host0_odd")).read()
    assert text.sets == {}
    assert "odd" not in str(text)


def test_a_ruleset_that_cannot_be_read_closes_all(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeNft):
        def list_text(self, command: str) -> str:
            raise Internal("no memory")

    text = policy(Broken("")).read()
    assert text.chains == {"host": "    drop"}
    assert "--publish-policy=open" in caplog.text and "user-published" in caplog.text


def test_a_copy_that_is_never_taken_closes_all() -> None:
    assert policy(FakeNft(LISTING, "hook prerouting")).read().chains == {"host": "    drop"}


def test_dockers_way_reads_nothing() -> None:
    made = HostPolicy("t", obey=False)
    made.close()
    assert made.read().chains == {}
    assert made.tick_s() is None
