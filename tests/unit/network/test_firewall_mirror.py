"""The copy of the host's firewall, line by line."""

from __future__ import annotations

import pytest

from estiba.network.firewall.legacy import parse_translated
from estiba.network.firewall.listing import parse
from estiba.network.firewall.mirror import Mirror, mirror
from estiba.network.firewall.verdicts import take_apart


def copy_of(*rules: str, policy: str = "accept", more: str = "") -> Mirror:
    lines = "\n".join(f"\t\t{rule}" for rule in rules)
    text = f"""table inet filter {{
{more}\tchain input {{
\t\ttype filter hook input priority filter; policy {policy};
{lines}
\t}}
}}
"""
    return mirror(parse(text))


def first(made: Mirror) -> list[str]:
    return [line.text for line in made.chains["host0_0_input"]]


@pytest.mark.parametrize(
    ("rule", "copy"),
    [
        ("tcp dport 22 accept", "tcp dport 22 goto host1"),
        ("tcp dport 22 counter packets 7 bytes 9 accept", "tcp dport 22 goto host1"),
        ('tcp dport 22 accept comment "accept; jump x"', "tcp dport 22 goto host1"),
        ('log prefix "accept counter " drop', 'log prefix "accept counter " drop'),
        ("reject with icmpx admin-prohibited", "reject with icmpx admin-prohibited"),
        ("tcp dport vmap { 2 : accept, 3 : drop }", "tcp dport vmap { 2 : goto host1, 3 : drop }"),
        ("tcp dport 1 jump other", "tcp dport 1 jump host0_1_other"),
        ("goto other", "goto host0_1_other"),
        ("@th,16,16 22 accept", "@th,16,16 22 goto host1"),
        ("ip saddr @set accept", "ip saddr @host0_set goto host1"),
        ("tcp dport 1 meta mark set 0x1 accept", "tcp dport 1 goto host1"),
        ("tcp dport 1 meta mark set 0x1", "tcp dport 1"),
        ("update @seen { ip saddr limit rate over 1/second } drop",
         "update @host0_seen { ip saddr limit rate over 1/second } drop"),
    ],
)  # fmt: skip
def test_what_is_understood_is_copied(rule: str, copy: str) -> None:
    made = copy_of(rule)
    assert first(made) == [copy]
    assert not made.notes


@pytest.mark.parametrize(
    ("rule", "copy"),
    [
        ("tcp dport 1 xt match string accept", ""),
        ("tcp dport 1 xt match string drop", "tcp dport 1 drop"),
        ("tcp dport 1 xt match string jump other", "tcp dport 1 jump host0_1_other"),
        ("tcp dport 1 xt match string goto other", "tcp dport 1 jump host0_1_other"),
        ("tcp dport 1 meta mark set meta mark & 0x1 accept", ""),
        ("tcp dport 1 ct mark set ct mark | 0x1 drop", "tcp dport 1 drop"),
        ("tcp dport 1 queue flags bypass to 0", "tcp dport 1 drop"),
        ("tcp dport 1 xt target TARPIT", "tcp dport 1 drop"),
    ],
)
def test_what_is_not_understood_counts_against_the_packet(rule: str, copy: str) -> None:
    made = copy_of(rule)
    assert first(made) == [copy]
    assert [note.partition(": ")[2] for note in made.notes] == [rule]


@pytest.mark.parametrize("rule", ["xt match recent", "xt target MARK", "meta l4proto icmp accept"])
def test_what_has_no_say_is_left_out_in_silence(rule: str) -> None:
    made = copy_of(rule)
    assert first(made) == [""] and not made.notes


def test_a_chain_that_may_have_been_entered_only_refuses() -> None:
    more = (
        "\tchain other {\n\t\ttcp dport 1 accept\n\t\ttcp dport 2 drop\n\t\tjump deep\n\t}\n"
        "\tchain deep {\n\t\taccept\n\t}\n"
    )
    made = copy_of("xt match string jump other", "jump other", more=more)
    assert first(made) == ["jump host0_1_other", "jump host0_2_other"]
    strict, plain = made.chains["host0_1_other"], made.chains["host0_2_other"]
    assert [line.text for line in strict] == [
        "tcp dport 1 continue",
        "tcp dport 2 drop",
        "jump host0_4_deep",
    ]
    assert plain[0].text == "tcp dport 1 goto host1"
    assert made.chains["host0_4_deep"][0].text == "continue"


def test_after_a_doubtful_return_a_chain_only_refuses() -> None:
    made = copy_of("tcp dport 1 accept", "xt match string return", "accept", "tcp dport 2 drop")
    assert first(made) == ["tcp dport 1 goto host1", "continue", "tcp dport 2 drop"]


def test_a_mark_that_the_copy_does_not_set_is_doubtful() -> None:
    made = copy_of("meta mark set 0x1", "meta mark 0x1 accept", "meta mark 0x2 drop")
    assert first(made) == ["", "", "drop"]


def test_verdict_maps_are_copied_with_their_chains() -> None:
    more = (
        "\tmap ports {\n\t\ttype inet_service : verdict\n"
        "\t\telements = { 22 : accept,\n\t\t\t     23 : jump other }\n\t}\n"
        "\tchain other {\n\t\tdrop\n\t}\n"
    )
    made = copy_of("tcp dport vmap @ports", "xt match string tcp dport vmap @ports", more=more)
    assert first(made) == ["tcp dport vmap @host0_ports", "tcp dport vmap @host0s_ports"]
    assert "22 : goto host1, 23 : jump host0_1_other" in made.sets["host0_ports"]
    assert "22 : continue, 23 : jump host0_2_other" in made.sets["host0s_ports"]


def test_every_base_chain_must_let_pass() -> None:
    tables = """table ip filter {
\tchain INPUT {
\t\ttype filter hook input priority filter; policy drop;
\t\ttcp dport 1 accept
\t}
\tchain nat {
\t\ttype nat hook input priority srcnat; policy accept;
\t}
}
table ip6 more {
\tchain in {
\t\ttype filter hook input priority 10; policy accept;
\t\tdrop
\t}
}
table inet estiba_other {
\tchain input {
\t\ttype filter hook input priority filter; policy drop;
\t}
}
"""
    made = mirror(parse(tables))
    chains = {name: [line.text for line in lines] for name, lines in made.chains.items()}
    assert chains["host"] == ["goto host0"]
    assert chains["host0"] == ["meta nfproto != ipv4 goto host1", "jump host0_0_INPUT", "drop"]
    assert chains["host1"] == ["meta nfproto != ipv6 goto host2", "jump host1_0_in", "goto host2"]
    assert chains["host2"] == ["accept"]
    assert set(chains) == {"host", "host0", "host0_0_INPUT", "host1", "host1_0_in", "host2"}


def test_no_firewall_is_no_copy() -> None:
    assert str(mirror([]).text()) == "  chain host {\n\n  }"


def test_a_replacement_deletes_what_was_there() -> None:
    old = copy_of("ip saddr @s accept", more="\tset s {\n\t\ttype ipv4_addr\n\t}\n").text()
    commands = old.replace("t", mirror([]).text()).splitlines()
    assert commands[:4] == [
        "flush chain inet t host",
        "flush chain inet t host0",
        "flush chain inet t host0_0_input",
        "flush chain inet t host1",
    ]
    assert "delete set inet t host0_s" in commands
    assert "delete chain inet t host0" in commands
    assert "delete chain inet t host" not in commands


def test_old_iptables_as_translated() -> None:
    text = """# Translated by iptables-restore-translate v1.8.9
add table ip filter
add chain ip filter INPUT { type filter hook input priority 0; policy drop; }
add chain ip filter guests
add rule ip filter INPUT tcp dport 22 counter accept
# -t filter -A INPUT -p tcp -m recent --rcheck --name x -j ACCEPT
# -t filter -A INPUT -m geoip --source-country AQ -j DROP
# -t filter -A INPUT -m geoip --source-country AQ -g guests
# -t filter -A INPUT -m recent --set
"""
    made = mirror(parse_translated("ip", text))
    texts = [line.text for line in made.chains["host0_0_INPUT"]]
    assert texts == ["tcp dport 22 goto host1", "", "drop", "jump host0_1_guests"]


def test_a_broken_listing_is_no_danger() -> None:
    for text in ("", "table", "table x y {", "table inet a {\n\tchain b {\n\t\t{{{", "}\n}\n"):
        mirror(parse(text))
    assert take_apart("", marks_change=True).kind == ""
