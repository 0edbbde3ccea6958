"""The page on policies says what is true of the languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from estiba.model.errors import InvalidArgument
from estiba.network.policy.denials import BURST, REFILL_PER_S
from estiba.network.policy.egress import MAX_ENTRIES, parse_egress
from estiba.network.policy.learn import FLOOR_S, MAX_ADDRESSES
from estiba.network.policy.rules import MAX_RULES, parse_policy

PAGE = Path(__file__).parents[3] / "docs" / "policies.md"


def first_column(title: str) -> list[str]:
    """The code in the first column of the table with that title."""
    table = PAGE.read_text().partition(f"| {title} |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines()[2:]]
    return [code for row in rows for code in re.findall(r"`([^`]+)`", row)]


def test_the_policy_in_the_page() -> None:
    text = re.search(r"```\n(default closed\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert text is not None
    policy = parse_policy(text[1])
    assert policy.closed
    assert len(policy.rules) == 4


@pytest.mark.parametrize("entry", first_column("entry"))
def test_entries_of_lists(entry: str) -> None:
    assert (parse_egress(entry) is None) == (entry == "open")


@pytest.mark.parametrize("peer", first_column("peer"))
def test_peers(peer: str) -> None:
    written = peer.replace("NAME", "other")
    assert parse_policy(f"allow from={written}").rules
    if peer[0].isdigit() or peer in ("host", "outside"):
        with pytest.raises(InvalidArgument):
            parse_policy(f"allow to={written}")


def test_figures() -> None:
    text = PAGE.read_text()
    assert f"{MAX_RULES} rules a policy" in text
    assert f"{MAX_ENTRIES} entries a list; {MAX_ADDRESSES} addresses" in text
    assert FLOOR_S == 300
    assert "five minutes at least" in text
    assert (BURST, REFILL_PER_S * 60) == (10, 12)
    assert "twelve a minute for each container after the first ten" in text
