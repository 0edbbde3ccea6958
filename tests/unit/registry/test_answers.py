"""Conditions and ranges of GET."""

from __future__ import annotations

import pytest

from estiba.registry.answers import RangeInvalid, byte_range, matches, next_link

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("condition", "is_met"),
    [
        (None, False),
        ("", False),
        (f'"{DIGEST}"', True),
        (f'W/"{DIGEST}"', True),
        (f'"x", "{DIGEST}"', True),
        (DIGEST, True),
        ("*", True),
        ('"sha256:b"', False),
    ],
)
def test_conditions(condition: str | None, is_met: bool) -> None:
    assert matches(condition, DIGEST) is is_met


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 10)),
        ("bytes=10-1000", (10, 90)),
        ("bytes=99-99", (99, 1)),
        ("bytes=-10", (90, 10)),
        ("bytes=-1000", (0, 100)),
        ("bytes=-", None),
        ("bytes=20-10", None),
        ("bytes=0-1,5-6", None),
        ("bytes=a-b", None),
        ("lines=1-2", None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)
def test_ranges(text: str, expected: tuple[int, int] | None) -> None:
    assert byte_range({"range": text}, 100, DIGEST) == expected


@pytest.mark.parametrize("text", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_ranges_beyond_the_end(text: str) -> None:
    with pytest.raises(RangeInvalid) as raised:
        byte_range({"range": text}, 100, DIGEST)
    assert raised.value.headers == {"Content-Range": "bytes */100"}


def test_a_range_of_something_else() -> None:
    headers = {"range": "bytes=1-2", "if-range": '"sha256:b"'}
    assert byte_range(headers, 100, DIGEST) is None
    assert byte_range({**headers, "if-range": f'"{DIGEST}"'}, 100, DIGEST) == (1, 2)


def test_links_cannot_be_broken_out_of() -> None:
    link = next_link("/v2/a/tags/list", {"n": "2", "last": 'x>; rel="y"\r\n&n=9'})
    assert link == ('</v2/a/tags/list?n=2&last=x%3E%3B%20rel%3D%22y%22%0D%0A%26n%3D9>; rel="next"')
