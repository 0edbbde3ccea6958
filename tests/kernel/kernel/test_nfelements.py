"""Elements straight to the kernel are those that nft would have written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.network.private_host import entered, run

from estiba.kernel.netns import ensure_netns, remove_netns
from estiba.kernel.nfelements import ElementChange, ElementSocket
from estiba.model.errors import Internal, NotFound

pytestmark = pytest.mark.kernel


@pytest.fixture
def elements(tmp_path: Path) -> Iterator[ElementSocket]:
    """In a namespace of its own, with a table that has a set and a map."""
    ensure_netns(tmp_path / "ns")
    with entered(tmp_path / "ns"):
        run("nft", "add table inet t")
        run("nft", "add set inet t s { type inet_service; }")
        run("nft", "add map inet t m { type inet_service : ipv4_addr; }")
        run("nft", "add set inet t i { type ipv4_addr; flags interval; }")
        made = ElementSocket()
        yield made
        made.close()
    remove_netns(tmp_path / "ns")


def port(number: int, *, new: bool = True, table: str = "t", name: str = "s") -> ElementChange:
    return ElementChange(new, "inet", table, name, number.to_bytes(2, "big"))


def test_a_batch(elements: ElementSocket) -> None:
    elements.execute([port(80), port(81), port(82)])
    elements.execute([port(81, new=False), port(83)])
    assert "{ 80, 82, 83 }" in run("nft", "list set inet t s")
    address = ElementChange(True, "inet", "t", "m", b"\0\x50", b"\x7f\0\0\1")
    elements.execute([address])
    assert "{ 80 : 127.0.0.1 }" in run("nft", "list map inet t m")
    ten = [
        ElementChange(True, "inet", "t", "i", bytes([10, 0, 0, 0])),
        ElementChange(True, "inet", "t", "i", bytes([11, 0, 0, 0]), ends=True),
    ]
    elements.execute(ten)
    assert "{ 10.0.0.0/8 }" in run("nft", "list set inet t i")


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (port(9, new=False), NotFound),
        (port(9, table="none"), NotFound),
        (port(9, name="none"), NotFound),
        (ElementChange(True, "inet", "t", "s", b"far too long"), Internal),
    ],
)
def test_all_or_nothing(elements: ElementSocket, bad: ElementChange, error: type) -> None:
    for batch in ([port(80), bad], [bad, port(80)], [port(80), bad, port(81)]):
        with pytest.raises(error, match="nftables: "):
            elements.execute(batch)
    assert "elements" not in run("nft", "list set inet t s")
    elements.execute([port(80)])


def test_from_many_threads(elements: ElementSocket) -> None:
    def work(first: int) -> None:
        for number in range(first, first + 50):
            elements.execute([port(number)])

    threads = [threading.Thread(target=work, args=(n * 50 + 1,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run("nft", "list set inet t s").count(",") == 199
