from __future__ import annotations

import pytest

from estiba.model.errors import InvalidArgument
from estiba.network.dns.message import Type
from estiba.network.dns.records import OPTION, parse_zone


def zone(*texts: str) -> dict[str, list[tuple[str, bytes]]]:
    parsed = parse_zone({f"{OPTION}.{number}": text for number, text in enumerate(texts)})
    both = {**parsed.exact, **{b"*." + name: found for name, found in parsed.wildcards.items()}}
    return {
        name.decode(): [(Type(record.type).name, record.data) for record in records]
        for name, records in both.items()
    }


def test_kinds_of_records() -> None:
    assert zone("Db.Example.=10.0.0.7", "db.example=2001:db8::7") == {
        "db.example": [
            ("A", bytes([10, 0, 0, 7])),
            ("AAAA", bytes.fromhex("20010db8" + "0" * 23 + "7")),
        ]
    }
    assert zone("www=web", "api=CNAME:Web.Other") == {
        "www": [("CNAME", b"\3web\0")],
        "api": [("CNAME", b"\3web\5other\0")],
    }
    assert zone("t=TXT:v=1, and more") == {"t": [("TXT", b"\x0dv=1, and more")]}
    assert zone("_http._tcp.web=SRV:1 2 80 web") == {
        "_http._tcp.web": [("SRV", b"\0\1\0\2\0\x50\3web\0")]
    }
    assert zone("*.apps.example=10.0.0.5") == {"*.apps.example": [("A", bytes([10, 0, 0, 5]))]}


def test_one_option_holds_several() -> None:
    parsed = parse_zone({OPTION: "a=10.0.0.1, b=10.0.0.2", f"{OPTION}.x": "a=10.0.0.3", "mtu": "9"})
    assert [len(parsed.exact[name]) for name in (b"a", b"b")] == [2, 1]


def test_the_longest_wildcard_covers_a_name() -> None:
    parsed = parse_zone({OPTION: "*=10.0.0.1,*.a.b=10.0.0.2"})
    found = {
        name: (parsed.wildcard(name.encode()) or [])[0].data[3] for name in ("x", "x.b", "y.x.a.b")
    }
    assert found == {"x": 1, "x.b": 1, "y.x.a.b": 2}
    assert parse_zone({OPTION: "*.a.b=10.0.0.2"}).wildcard(b"a.b") is None


@pytest.mark.parametrize(
    "text",
    [
        "", "web", "web=", "=10.0.0.1", "web=A:2001:db8::1", "web=AAAA:10.0.0.1", "a b=10.0.0.1",
        "a..b=10.0.0.1", "a.*.b=10.0.0.1", "*x=10.0.0.1", f"{'a' * 64}=10.0.0.1",
        f"{'a.' * 127}aa=10.0.0.1", "web=A:x", "web=CNAME:a b", "web=SRV:1 2 web",
        "web=SRV:1 2 70000 web", "web=SRV:1 2 80 -", "web=TXT:", f"web=TXT:{'x' * 4001}",
        "web=exa mple", "-a=10.0.0.1", "ä=10.0.0.1", "web=10.0.0.1/8",
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid DNS record"):
        parse_zone({f"{OPTION}.1": text})


def test_an_alias_stands_alone() -> None:
    for texts in (("a=b", "a=10.0.0.1"), ("a=10.0.0.1", "a=b"), ("a=b", "a=c")):
        with pytest.raises(InvalidArgument, match="alias"):
            zone(*texts)


def test_too_many_records() -> None:
    with pytest.raises(InvalidArgument, match="more than 1000"):
        parse_zone({OPTION: ",".join(["a=10.0.0.1"] * 1001)})
