"""Tables made by hand, as nft reads them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from estiba.kernel import nft_batch
from estiba.kernel.netlink import NetlinkError
from estiba.kernel.netns import NamespaceThread, ensure_netns, remove_netns, run_in_netns
from estiba.kernel.nft_batch import FilterChain
from estiba.network.dns.listener import TABLE, redirection

pytestmark = pytest.mark.kernel


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "netns"
    ensure_netns(path)
    yield path
    remove_netns(path)


def ruleset(space: Path) -> str:
    command = ["nsenter", f"--net={space}", "nft", "list", "ruleset"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_what_is_written_is_what_nft_reads(space: Path) -> None:
    run_in_netns(space, lambda: nft_batch.write_table(TABLE, redirection(40001, 40002)))
    text = ruleset(space)
    for line in (
        "type filter hook output priority -400; policy accept;",
        'oif != "lo" accept',
        "ip daddr 127.0.0.11 udp dport 53 udp dport set 40001",
        "ip daddr 127.0.0.11 tcp dport 53 tcp dport set 40002",
        "ip saddr 127.0.0.11 udp sport 40001 udp sport set 53",
        "ip saddr 127.0.0.11 tcp sport 40002 tcp sport set 53",
    ):
        assert line in text


def test_writing_again_takes_the_place_of_what_was_there(space: Path) -> None:
    for ports in ((1, 2), (3, 4)):
        run_in_netns(space, lambda ports=ports: nft_batch.write_table(TABLE, redirection(*ports)))
    text = ruleset(space)
    assert "set 3\n" in text
    assert "set 1\n" not in text
    assert text.count("chain ") == 2


def test_a_refusal_changes_nothing(space: Path) -> None:
    run_in_netns(space, lambda: nft_batch.write_table(TABLE, redirection(40001, 40002)))
    before = ruleset(space)
    too_long = nft_batch.network_header(0, bytes(64))
    bad = [FilterChain("questions", nft_batch.HOOK_LOCAL_OUT, -400, [too_long])]
    with pytest.raises(NetlinkError, match=f"write table {TABLE}"):
        run_in_netns(space, lambda: nft_batch.write_table(TABLE, bad))
    assert ruleset(space) == before


def inode(path: str = "/proc/thread-self/ns/net") -> int:
    return Path(path).stat().st_ino


def test_a_thread_that_makes_sockets_elsewhere_comes_back(space: Path) -> None:
    home = inode()
    spaces = NamespaceThread()
    assert spaces.inside(space, inode) == space.stat().st_ino
    assert inode() == home

    def fail() -> None:
        raise RuntimeError("in there")

    with pytest.raises(RuntimeError, match="in there"):
        spaces.inside(space, fail)
    assert inode() == home
    with pytest.raises(FileNotFoundError):
        spaces.inside(space.with_name("gone"), inode)
    assert spaces.at_home(inode) == home
    # What is made there stays there.
    made = spaces.inside(space, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with made, pytest.raises(OSError, match="unreachable"):
        made.connect(("198.51.100.1", 9))
    spaces.close()
