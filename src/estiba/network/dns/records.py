"""Records that an administrator gives a network, with wildcards (`--dns-record`). Pure.

    NAME=ADDRESS            A or AAAA
    NAME=OTHER.NAME         CNAME; also NAME=CNAME:other.name
    NAME=TXT:any text       TXT
    NAME=SRV:10 5 80 host   SRV: priority, weight, port, target

A NAME that begins with `*.` stands for all names below the rest, `*` alone for all names. An
exact name wins over a wildcard, a longer wildcard over a shorter one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address

from estiba.model.errors import InvalidArgument
from estiba.network.dns.message import Type, encode_name

OPTION = "estiba.dns-record"
"""The driver option: several records joined by commas, or one in each `estiba.dns-record.ANY`."""

TTL_S = 60
MAX_RECORDS = 1000

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)
_KINDS = {"A", "AAAA", "CNAME", "TXT", "SRV"}


@dataclass(frozen=True, slots=True)
class CustomRecord:
    type: int
    data: bytes
    target: bytes = b""
    """Of a CNAME: the name that it stands for, in lower case."""


@dataclass(frozen=True, slots=True)
class Zone:
    """All records of one network, by name in lower case; wildcards by what stands behind `*`."""

    exact: dict[bytes, list[CustomRecord]] = field(default_factory=dict)
    wildcards: dict[bytes, list[CustomRecord]] = field(default_factory=dict)

    def wildcard(self, name: bytes) -> list[CustomRecord] | None:
        """The records of the longest wildcard that covers `name`."""
        if not self.wildcards:
            return None
        while name:
            name = name.partition(b".")[2]
            found = self.wildcards.get(name)
            if found is not None:
                return found
        return None


def parse_zone(options: Mapping[str, str]) -> Zone:
    """Raises InvalidArgument for a record that is none."""
    zone = Zone()
    count = 0
    for key, value in sorted(options.items()):
        if key == OPTION:
            texts = value.split(",")
        elif key.startswith(f"{OPTION}."):
            texts = [value]
        else:
            continue
        for text in texts:
            _add(zone, text.strip())
            count += 1
            if count > MAX_RECORDS:
                raise InvalidArgument(f"more than {MAX_RECORDS} DNS records for one network")
    return zone


def _add(zone: Zone, text: str) -> None:
    name, equals, value = text.partition("=")
    if not equals:
        raise _error(text, "use NAME=ADDRESS, NAME=OTHER.NAME, NAME=TXT:… or NAME=SRV:…")
    owner = name.strip().lower().removesuffix(".")
    record = _parse_value(text, value.strip())
    if owner == "*" or owner.startswith("*."):
        where, key = zone.wildcards, owner[2:]
    else:
        where, key = zone.exact, owner
    if key or where is zone.exact:
        _check_name(text, key)
    records = where.setdefault(key.encode(), [])
    if any(Type.CNAME in (other.type, record.type) for other in records):
        raise _error(text, "a name with an alias (CNAME) can have no other record")
    records.append(record)


def _parse_value(text: str, value: str) -> CustomRecord:
    kind, colon, rest = value.partition(":")
    if not colon or kind.upper() not in _KINDS:
        kind, rest = "", value
    match kind.upper():
        case "TXT":
            return CustomRecord(Type.TXT, _text_data(text, rest))
        case "SRV":
            return _service(text, rest)
        case "CNAME":
            return _alias(text, rest)
    try:
        address = ip_address(rest.strip())
    except ValueError:
        if kind:
            raise _error(text, f"{rest!r} is no IP address") from None
        return _alias(text, rest)
    found = Type.A if isinstance(address, IPv4Address) else Type.AAAA
    if kind and kind.upper() != found.name:
        raise _error(text, f"{rest!r} is no address of type {kind.upper()}")
    return CustomRecord(found, address.packed)


def _alias(text: str, value: str) -> CustomRecord:
    target = _check_name(text, value.strip().lower().removesuffix("."))
    return CustomRecord(Type.CNAME, encode_name(target), target)


def _text_data(text: str, value: str) -> bytes:
    raw = value.encode()
    if not raw or len(raw) > 4000:
        raise _error(text, "a text has 1 to 4000 bytes")
    parts = (raw[at : at + 255] for at in range(0, len(raw), 255))
    return b"".join(bytes((len(part),)) + part for part in parts)


def _service(text: str, value: str) -> CustomRecord:
    words = value.split()
    numbers = [int(word) for word in words[:3] if word.isascii() and word.isdecimal()]
    if len(words) != 4 or len(numbers) != 3 or max(numbers) > 0xFFFF:
        raise _error(text, "use NAME=SRV:PRIORITY WEIGHT PORT TARGET")
    target = _check_name(text, words[3].lower().removesuffix("."))
    return CustomRecord(Type.SRV, struct.pack("!HHH", *numbers) + encode_name(target))


def _check_name(text: str, name: str) -> bytes:
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _error(text, f"{name[:80]!r} is no domain name")
    return name.encode()


def _error(text: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"invalid DNS record {text[:128]!r}: {why}")
