from __future__ import annotations

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
