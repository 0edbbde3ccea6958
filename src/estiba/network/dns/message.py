"""DNS messages (RFC 1035, RFC 6891): questions read, answers written. Pure.

Only what a name server of containers needs. Every byte that comes in is hostile: reading never
loops (a pointer of compression only leads back), never goes past the end, and raises nothing but
`Malformed`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

CLASS_IN = 1
CLASS_ANY = 255
MIN_UDP_SIZE = 512
MAX_MESSAGE = 65535

_HEADER = struct.Struct("!HHHHHH")
_QUESTION_TAIL = struct.Struct("!HH")
_RECORD_TAIL = struct.Struct("!HHIH")
_QR, _AA, _TC, _RD, _RA, _CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010
_OPCODE = 0x7800
_DNSSEC_OK = 0x8000
_BADVERS = 16
_MAX_NAME = 255
_MAX_RECORDS = 4096
_MAX_ADDITIONAL = 8
_QUESTION_NAME = b"\xc0\x0c"
"""A pointer to the name of the question, which always stands behind the header."""


class Type(IntEnum):
    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    MX = 15
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    IXFR = 251
    AXFR = 252
    ANY = 255


class Rcode(IntEnum):
    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5


class Malformed(Exception):
    """A message that cannot be answered as it should; `reply` may be sent, if there is one."""

    def __init__(self, reply: bytes = b"") -> None:
        super().__init__("malformed DNS message")
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Query:
    """A question that can be answered. `name` is in lower case, without the dot at the end."""

    id: int
    flags: int
    name: bytes
    type: int
    question: bytes
    """The question section as it came."""

    udp_size: int = MIN_UDP_SIZE
    edns: bool = False
    dnssec_ok: bool = False


def parse_query(data: bytes) -> Query:
    """Raises Malformed."""
    if len(data) < _HEADER.size:
        raise Malformed
    identity, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & _QR:
        raise Malformed
    if flags & _OPCODE:
        raise Malformed(_bare_reply(identity, flags, Rcode.NOTIMP))
    refusal = _bare_reply(identity, flags, Rcode.FORMERR)
    if questions != 1 or answers or authorities or additional > _MAX_ADDITIONAL:
        raise Malformed(refusal)
    try:
        name, offset = _read_plain_name(data, _HEADER.size)
        kind, family = _QUESTION_TAIL.unpack_from(data, offset)
    except (IndexError, struct.error):
        raise Malformed(refusal) from None
    offset += _QUESTION_TAIL.size
    query = Query(identity, flags, name, kind, data[_HEADER.size : offset])
    if additional:
        query = _with_edns(query, data, offset, additional, refusal)
    if family not in (CLASS_IN, CLASS_ANY) or kind in (Type.AXFR, Type.IXFR, Type.OPT):
        raise Malformed(render_reply(query, Rcode.REFUSED, limit=MIN_UDP_SIZE))
    return query


def _with_edns(query: Query, data: bytes, offset: int, count: int, refusal: bytes) -> Query:
    try:
        options = [record for record in _records(data, offset, count) if record.type == Type.OPT]
    except Malformed:
        raise Malformed(refusal) from None
    if not options:
        return query
    if len(options) > 1:
        raise Malformed(refusal)
    option = options[0]
    query = Query(
        query.id,
        query.flags,
        query.name,
        query.type,
        query.question,
        max(option.family, MIN_UDP_SIZE),
        True,
        bool(option.ttl & _DNSSEC_OK),
    )
    if option.ttl >> 16 & 0xFF:
        raise Malformed(render_reply(query, _BADVERS, limit=MIN_UDP_SIZE))
    return query


def render_reply(
    query: Query,
    rcode: int = Rcode.NOERROR,
    answers: Sequence[bytes] = (),
    additional: Sequence[bytes] = (),
    *,
    limit: int,
    authoritative: bool = False,
) -> bytes:
    """The answer in at most `limit` bytes; what does not fit is left out and marked (TC)."""
    flags = _QR | _RA | (query.flags & (_RD | _CD)) | (rcode & 0xF)
    if authoritative:
        flags |= _AA
    option = b""
    if query.edns:
        ttl = (rcode >> 4) << 24 | (_DNSSEC_OK if query.dnssec_ok else 0)
        option = b"\0" + _RECORD_TAIL.pack(Type.OPT, 4096, ttl, 0)
    size = _HEADER.size + len(query.question) + len(option)
    if size + sum(map(len, answers)) > limit:
        answers, additional = _fitting(answers, limit - size), ()
        flags |= _TC
    size += sum(map(len, answers))
    if additional:
        additional = _fitting(additional, limit - size)
    header = _HEADER.pack(
        query.id, flags, 1, len(answers), 0, len(additional) + (1 if query.edns else 0)
    )
    return b"".join((header, query.question, *answers, *additional, option))


def _fitting(records: Sequence[bytes], room: int) -> list[bytes]:
    kept: list[bytes] = []
    for record in records:
        room -= len(record)
        if room < 0:
            break
        kept.append(record)
    return kept


def _bare_reply(identity: int, flags: int, rcode: Rcode) -> bytes:
    return _HEADER.pack(identity, _QR | _RA | (flags & (_OPCODE | _RD)) | rcode, 0, 0, 0, 0)


def render_question(name: bytes, kind: int) -> bytes:
    """The question section of a question of our own."""
    return encode_name(name) + _QUESTION_TAIL.pack(kind, CLASS_IN)


def render_query(question: bytes, *, udp_size: int) -> bytes:
    """A question of our own; its id is 0."""
    header = _HEADER.pack(0, _RD, 1, 0, 0, 1)
    return header + question + b"\0" + _RECORD_TAIL.pack(Type.OPT, udp_size, 0, 0)


def render_record(kind: int, ttl_s: int, data: bytes, owner: bytes = _QUESTION_NAME) -> bytes:
    """A record of the name of the question, or of `owner`, a name as it goes on the wire."""
    return owner + _RECORD_TAIL.pack(kind, CLASS_IN, ttl_s, len(data)) + data


# -- names ---------------------------------------------------------------------------------


def _read_plain_name(data: bytes, offset: int) -> tuple[bytes, int]:
    """A name without compression, and where it ends. Raises IndexError when it is none."""
    start = offset
    labels: list[bytes] = []
    while length := data[offset]:
        if length > 63 or offset - start + length > _MAX_NAME - 2:
            raise IndexError
        offset += 1 + length
        labels.append(data[offset - length : offset])
    return _join(labels), offset + 1


def _join(labels: list[bytes]) -> bytes:
    """Lower case, with dots between. A dot inside a label must not look like one between them."""
    name = b".".join(labels).lower()
    if b"\\" in name or name.count(b".") >= max(len(labels), 1):
        escaped = (label.replace(b"\\", b"\\092").replace(b".", b"\\046") for label in labels)
        name = b".".join(escaped).lower()
    return name


def _read_name(data: bytes, offset: int) -> tuple[list[bytes], int]:
    """Labels and the end of a name. Raises IndexError or Malformed."""
    labels: list[bytes] = []
    end = -1
    limit = offset
    size = 0
    while length := data[offset]:
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | data[offset + 1]
            if end < 0:
                end = offset + 2
            if target >= limit:
                raise Malformed
            offset = limit = target
            continue
        size += 1 + length
        if length > 63 or size > _MAX_NAME - 1:
            raise Malformed
        label = data[offset + 1 : offset + 1 + length]
        labels.append(label)
        offset += 1 + length
    return labels, end if end >= 0 else offset + 1


def encode_name(name: bytes) -> bytes:
    """On the wire, without compression. Raises ValueError for what is no name."""
    if not name:
        return b"\0"
    labels = name.split(b".")
    if any(not 0 < len(label) < 64 for label in labels) or len(name) > _MAX_NAME - 2:
        raise ValueError(f"not a domain name: {name[:80]!r}")
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


# -- what other servers say -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """One record of an answer; `start` and `end` say where its data stands."""

    labels: list[bytes]
    type: int
    family: int
    ttl: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to a question of ours."""

    data: bytes
    rcode: int
    truncated: bool
    records: list[Record]

    @property
    def addresses(self) -> list[IPv4Address | IPv6Address]:
        found: list[IPv4Address | IPv6Address] = []
        for record in self.records:
            raw = self.data[record.start : record.end]
            if record.type == Type.A and len(raw) == 4:
                found.append(IPv4Address(raw))
            elif record.type == Type.AAAA and len(raw) == 16:
                found.append(IPv6Address(raw))
        return found

    @property
    def ttl_s(self) -> int:
        """The smallest of all records, 0 without any."""
        return min((record.ttl for record in self.records), default=0)

    def rendered_records(self) -> list[bytes]:
        """The records by themselves, to stand in another message. Raises Malformed."""
        return [
            render_record(
                record.type, record.ttl, _plain_data(self.data, record), _wire(record.labels)
            )
            for record in self.records
            if record.family == CLASS_IN
        ]


def parse_answer(data: bytes, question: bytes) -> Answer:
    """Reads the answer to the question section `question`.

    Raises Malformed when it is none, or the answer to another question: names are compared
    without regard to case.
    """
    if len(data) < _HEADER.size + len(question):
        raise Malformed
    _, flags, questions, answers, _, _ = _HEADER.unpack_from(data)
    offset = _HEADER.size + len(question)
    asked = data[_HEADER.size : offset]
    tail = -_QUESTION_TAIL.size
    if (
        not flags & _QR
        or flags & _OPCODE
        or questions != 1
        or asked[tail:] != question[tail:]
        or asked[:tail].lower() != question[:tail].lower()
    ):
        raise Malformed
    truncated = bool(flags & _TC)
    try:
        records = list(_records(data, offset, answers))
    except Malformed:
        if not truncated:
            raise
        records = []
    return Answer(data, flags & 0xF, truncated, records)


def is_fitting_error(data: bytes) -> int:
    """The code of a refusal without a question section (FORMERR and its like), or 0."""
    if len(data) < _HEADER.size:
        return 0
    _, flags, questions, *_ = _HEADER.unpack_from(data)
    return flags & 0xF if flags & _QR and not questions else 0


def _records(data: bytes, offset: int, count: int) -> Iterator[Record]:
    """`count` records from `offset` on. Raises Malformed."""
    if count > _MAX_RECORDS:
        raise Malformed
    for _ in range(count):
        try:
            labels, offset = _read_name(data, offset)
            kind, family, ttl, length = _RECORD_TAIL.unpack_from(data, offset)
        except (IndexError, struct.error):
            raise Malformed from None
        start = offset + _RECORD_TAIL.size
        offset = start + length
        if offset > len(data):
            raise Malformed
        yield Record(labels, kind, family, ttl, start, offset)


_NAME_AT = {Type.NS: 0, Type.CNAME: 0, Type.PTR: 0, Type.MX: 2, Type.SRV: 6}
"""Where the data of a record holds a name that may be compressed."""


def _plain_data(data: bytes, record: Record) -> bytes:
    at = _NAME_AT.get(record.type)  # type: ignore[call-overload]
    if at is None:
        return data[record.start : record.end]
    try:
        labels, end = _read_name(data, record.start + at)
    except IndexError:
        raise Malformed from None
    if end > record.end:
        raise Malformed
    return data[record.start : record.start + at] + _wire(labels)


def _wire(labels: list[bytes]) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
