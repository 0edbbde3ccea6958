"""The codec, beside an independent one (dnspython), and against hostile bytes."""

from __future__ import annotations

import random
import struct
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estiba.network.dns.message import (
    Malformed,
    Query,
    Rcode,
    Type,
    encode_name,
    parse_answer,
    parse_query,
    render_question,
    render_record,
    render_reply,
)


def asked(name: str = "web.", kind: str = "A", **more: Any) -> Query:
    return parse_query(dns.message.make_query(name, kind, **more).to_wire())


def refused(data: bytes) -> dns.message.Message:
    with pytest.raises(Malformed) as caught:
        parse_query(data)
    return dns.message.from_wire(caught.value.reply)


def test_a_question_is_read() -> None:
    query = asked("Web.Example.", "AAAA", use_edns=0, payload=1232, want_dnssec=True)
    assert (query.name, query.type, query.udp_size) == (b"web.example", Type.AAAA, 1232)
    assert query.edns
    assert query.dnssec_ok


def test_without_edns_an_answer_has_512_bytes() -> None:
    assert asked().udp_size == 512
    assert asked(use_edns=0, payload=100).udp_size == 512


def test_an_answer_is_what_others_understand() -> None:
    query = asked("WEB.", use_edns=0)
    records = [render_record(Type.A, 10, bytes([10, 0, 0, last])) for last in (1, 2)]
    reply = dns.message.from_wire(render_reply(query, answers=records, limit=512))
    assert [str(record) for record in reply.answer[0]] == ["10.0.0.1", "10.0.0.2"]
    assert reply.answer[0].name.to_text() == "WEB."
    assert reply.flags & dns.flags.RA
    assert reply.edns == 0


def test_what_does_not_fit_is_left_out_and_marked() -> None:
    records = [render_record(Type.A, 10, bytes([10, 0, 0, last])) for last in range(60)]
    short = dns.message.from_wire(render_reply(asked(), answers=records, limit=512))
    assert short.flags & dns.flags.TC
    assert 20 < len(short.answer[0]) < 31
    whole = dns.message.from_wire(render_reply(asked(), answers=records, limit=65535))
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 60


def test_answers_are_not_answered() -> None:
    query = dns.message.make_query("web.", "A")
    query.flags |= dns.flags.QR
    with pytest.raises(Malformed) as caught:
        parse_query(query.to_wire())
    assert caught.value.reply == b""


@pytest.mark.parametrize("data", [b"", b"\0" * 11, b"\x12\x34\x80\0"])
def test_what_is_no_message_is_not_answered(data: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        parse_query(data)
    assert caught.value.reply == b""


def test_an_update_is_not_implemented() -> None:
    assert refused(struct.pack("!6H", 7, 5 << 11, 1, 0, 0, 0) + b"\0\0\1\0\1").rcode() == 4


@pytest.mark.parametrize("count", [0, 2, 65535])
def test_one_question_at_a_time(count: int) -> None:
    wire = bytearray(dns.message.make_query("web.", "A").to_wire())
    wire[4:6] = count.to_bytes(2, "big")
    assert refused(bytes(wire)).rcode() == Rcode.FORMERR


def test_a_version_of_edns_to_come_is_refused_as_it_should() -> None:
    query = dns.message.make_query("web.", "A", use_edns=0)
    query.use_edns(1, 0, 1232)
    assert refused(query.to_wire()).rcode() == 16


@pytest.mark.parametrize("kind", ["AXFR", "IXFR"])
def test_whole_zones_are_not_given_out(kind: str) -> None:
    wire = dns.message.make_query("web.", "A").to_wire()
    number = dns.rdatatype.from_text(kind)
    assert refused(wire[:-4] + struct.pack("!HH", number, 1)).rcode() == Rcode.REFUSED


def test_a_dot_inside_a_label_is_none_between_labels() -> None:
    wire = struct.pack("!6H", 1, 0, 1, 0, 0, 0) + b"\x07a.b\\.cd\0\0\1\0\1"
    assert parse_query(wire).name == b"a\\046b\\092\\046cd"


@pytest.mark.parametrize(
    "name",
    [
        b"\x3f" + b"a" * 63 + b"\x40" + b"a" * 64 + b"\0",
        (b"\x3f" + b"a" * 63) * 4 + b"\0",
        b"\xc0\x0c",
        b"\x80web\0",
        b"\x05web\0",
    ],
)
def test_names_that_are_none(name: bytes) -> None:
    wire = struct.pack("!6H", 1, 0, 1, 0, 0, 0) + name + b"\0\1\0\1"
    assert refused(wire).rcode() == Rcode.FORMERR


def test_the_longest_name_is_one() -> None:
    name = b".".join([b"a" * 63] * 3 + [b"b" * 61])
    wire = struct.pack("!6H", 1, 0, 1, 0, 0, 0) + encode_name(name) + b"\0\1\0\1"
    assert parse_query(wire).name == name


# -- answers of others ---------------------------------------------------------------------


def answer_to(query: dns.message.Message, *lines: str) -> bytes:
    text = query.to_text().replace("flags RD", "flags QR RD RA")
    return dns.message.from_text(text.replace(";ANSWER", ";ANSWER\n" + "\n".join(lines))).to_wire()


def test_addresses_and_the_smallest_time_to_live() -> None:
    query = dns.message.make_query("www.example.", "A")
    wire = answer_to(
        query,
        "www.example. 300 IN CNAME cdn.example.",
        "cdn.example. 20 IN A 192.0.2.1",
        "cdn.example. 30 IN A 192.0.2.2",
    )
    answer = parse_answer(wire, render_question(b"WWW.example", Type.A))
    assert sorted(map(str, answer.addresses)) == ["192.0.2.1", "192.0.2.2"]
    assert answer.ttl_s == 20


def test_an_answer_to_another_question_is_none() -> None:
    wire = answer_to(dns.message.make_query("www.example.", "A"))
    for name, kind in ((b"www.examplf", Type.A), (b"www.example", Type.AAAA), (b"w", Type.A)):
        with pytest.raises(Malformed):
            parse_answer(wire, render_question(name, kind))


def test_records_stand_in_another_message() -> None:
    query = dns.message.make_query("long.example.", "ANY")
    lines = [
        "long.example. 5 IN CNAME cdn.long.example.",
        "long.example. 5 IN MX 10 mail.long.example.",
        "long.example. 5 IN SRV 1 2 80 a.long.example.",
        'long.example. 5 IN TXT "some text"',
        "long.example. 5 IN AAAA 2001:db8::1",
    ]
    answer = parse_answer(answer_to(query, *lines), render_question(b"long.example", Type.ANY))
    reply = render_reply(asked("x."), answers=answer.rendered_records(), limit=4096)
    found = [
        line
        for rrset in dns.message.from_wire(reply).answer
        for line in rrset.to_text().split("\n")
    ]
    assert sorted(found) == sorted(lines)


# -- hostile bytes -------------------------------------------------------------------------


@settings(max_examples=2000, deadline=None)
@given(st.binary(max_size=600))
def test_random_bytes_are_refused_or_read(data: bytes) -> None:
    try:
        query = parse_query(data)
    except Malformed as error:
        assert not error.reply or error.reply[:2] == data[:2]
        return
    assert len(render_reply(query, limit=512)) <= 512


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_damaged_answers_are_refused_or_read(seed: int, bites: int) -> None:
    chance = random.Random(seed)
    query = dns.message.make_query("www.example.", "A")
    wire = bytearray(
        answer_to(query, "www.example. 9 IN CNAME a.example.", "a.example. 9 IN A 192.0.2.1")
    )
    for _ in range(bites):
        wire[chance.randrange(len(wire))] = chance.choice([0, 0xC0, 0xFF, chance.randrange(256)])
    cut = bytes(wire[: chance.randrange(len(wire) + 1)])
    try:
        answer = parse_answer(cut, render_question(b"www.example", Type.A))
        answer.rendered_records()
        assert len(answer.addresses) <= 4
    except Malformed:
        pass


def test_pointers_that_lead_in_a_circle() -> None:
    question = render_question(b"a", Type.A)
    header = struct.pack("!6H", 1, 0x8180, 1, 1, 0, 0)
    at = len(header) + len(question)
    for pointer in (at, at + 2, 0x3FFF):
        name = struct.pack("!H", 0xC000 | pointer)
        wire = header + question + name + struct.pack("!HHIH", 1, 1, 0, 4) + bytes(4)
        with pytest.raises(Malformed):
            parse_answer(wire, question)
