"""The daemon's flags for the firewall, by the program itself in a network namespace of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon

pytestmark = pytest.mark.kernel


@pytest.fixture
def private(tmp_path: Path) -> Iterator[PrivateDaemon]:
    """A daemon whose network is not the host's: a program that enters a namespace starts it."""
    name = f"fw{tmp_path.name[-8:]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    daemon = PrivateDaemon(tmp_path)
    daemon.prefix = ["ip", "netns", "exec", name]
    try:
        yield daemon
    finally:
        daemon.close()
        subprocess.run(["ip", "netns", "del", name], check=True)


def ruleset(daemon: PrivateDaemon) -> str:
    command = [*daemon.prefix, "nft", "list", "ruleset"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_hosts_firewall_is_followed_unless_told_otherwise(private: PrivateDaemon) -> None:
    rule = (
        "add table inet f\nadd chain inet f i { type filter hook input priority 0; policy drop; }"
    )
    subprocess.run([*private.prefix, "nft", "-f", "-"], input=rule.encode(), check=True)
    private.start()
    assert "chain host0 {" in ruleset(private)
    private.stop()
    private.flags = ("--publish-policy", "open")
    private.start()
    assert "chain host0 {" not in ruleset(private)


def test_rules_are_removed_on_request_but_not_from_under_a_daemon(private: PrivateDaemon) -> None:
    private.start()
    command = [*private.command(), "--remove-firewall"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 1 and "in use" in done.stderr) or "another" in done.stderr
    assert f"estiba_{private.bridge}" in ruleset(private)
    private.stop()
    assert f"estiba_{private.bridge}" in ruleset(private)
    for _ in range(2):
        subprocess.run(command, check=True)
        assert "estiba_" not in ruleset(private)


def test_a_wrong_policy_is_refused(tmp_path: Path) -> None:
    command = [*PrivateDaemon(tmp_path).command(), "--publish-policy", "shut"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "use host or open" in done.stderr
