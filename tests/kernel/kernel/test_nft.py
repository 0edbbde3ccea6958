from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from estiba.kernel.netns import ensure_netns, remove_netns, run_in_netns
from estiba.kernel.nft import Nft
from estiba.model.errors import Internal, NotFound

pytestmark = pytest.mark.kernel


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "netns"
    ensure_netns(path)
    yield path
    remove_netns(path)


def test_a_batch_is_done_wholly_or_not_at_all(namespace: Path) -> None:
    def inside() -> None:
        nft = Nft()
        nft.run("add table inet one\nadd set inet one s { type ifname; }")
        with pytest.raises(NotFound):
            nft.run('add element inet one s { "a" }\nadd element inet two s { "a" }')
        with pytest.raises(Internal, match="syntax error"):
            nft.run("add nonsense")
        tables = nft.list_json("list table inet one")
        assert [entry["table"]["name"] for entry in tables if "table" in entry] == ["one"]
        assert all("elem" not in entry["set"] for entry in tables if "set" in entry)
        nft.run("delete table inet one")
        assert nft.list_json("list tables") == []
        nft.close()

    run_in_netns(namespace, inside)


_MANY_AT_ONCE = """
from threading import Thread
from estiba.kernel.nft import Nft

def work():
    nft = Nft()
    for _ in range(3000):
        assert 'iif "lo" accept' in nft.list_text("list table inet host")
    nft.close()

Nft().run('add table inet host\\nadd chain inet host c\\nadd rule inet host c iif "lo" accept')
threads = [Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_several_threads_read_rules_that_name_a_link_by_its_number(namespace: Path) -> None:
    """As Debian's own /etc/nftables.conf does: the library has one list of links for all."""
    command = [sys.executable, "-c", _MANY_AT_ONCE]
    done = run_in_netns(namespace, lambda: subprocess.run(command, capture_output=True, text=True))
    assert (done.returncode, done.stderr) == (0, "")
