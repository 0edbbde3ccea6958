"""Words of EXPOSE: ports, ranges, protocols, and what is none."""

from __future__ import annotations

import pytest

from estiba.build.exposed import parse_exposed
from estiba.model.errors import InvalidArgument


@pytest.mark.parametrize(
    ("word", "ports"),
    [
        ("80", "80/tcp"),
        ("80/", "80/tcp"),
        ("80/tcp", "80/tcp"),
        ("53/UDP", "53/udp"),
        ("9/sctp", "9/sctp"),
        ("0", "0/tcp"),
        ("65535", "65535/tcp"),
        ("0080", "80/tcp"),
        ("8000-8002/udp", "8000/udp 8001/udp 8002/udp"),
        ("7-7", "7/tcp"),
        ("8080:80", "80/tcp"),
        ("127.0.0.1:8080:80/udp", "80/udp"),
        ("[::1]:8080:80-81", "80/tcp 81/tcp"),
    ],
)
def test_ports(word: str, ports: str) -> None:
    assert parse_exposed(word) == ports.split()


def test_the_widest_range() -> None:
    assert len(parse_exposed("0-65535")) == 65536


@pytest.mark.parametrize(
    "word",
    ["", "/tcp", "a", "-1", "+1", " 80", "80 ", "1e3", "65536", "99999999999", "9" * 5000, "80-",
     "-80", "80-90-95", "90-80", "80-65536", "80/icmp", "80/tcp/udp", "80:", "٣", "²", "1_0"],
)  # fmt: skip
def test_what_is_none(word: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid containerPort: ") as caught:
        parse_exposed(word)
    assert len(str(caught.value)) < 200
