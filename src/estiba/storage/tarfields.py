"""The fields of tar headers: numbers, times, records of extended headers. Pure."""

from __future__ import annotations

from functools import lru_cache
from zlib import adler32

from estiba.model.errors import InvalidArgument


def number(raw: bytes, what: str) -> int:
    """Octal, or base-256 when the first bit is set (GNU)."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw[1:], "big") + ((raw[0] & 0x3F) << 8 * (len(raw) - 1))
        if raw[0] & 0x40:
            value -= 1 << (8 * len(raw) - 2)
        if not (-(2**62) if what == "mtime" else 0) <= value < 2**62:
            raise InvalidArgument(f"tar: {what} out of range")
        return value
    text = raw.strip(b" \0")
    if not text:
        return 0
    try:
        # int() would take signs and underscores too.
        return int(text if text.isdigit() else b"", 8)
    except ValueError:
        raise InvalidArgument(f"tar: bad {what} in a header") from None


repeated = lru_cache(256)(number)
"""For fields that have the same few values all over an archive."""


def decimal(raw: bytes, what: str) -> int:
    if not raw.isdigit() or len(raw) > 19:
        raise InvalidArgument(f"tar: bad {what} in an extended header")
    return int(raw)


def mtime(block: bytes, pax: dict[bytes, bytes]) -> int:
    text = pax.get(b"mtime")
    if text is None:
        return number(block[136:148], "mtime") * 1_000_000_000
    sign = -1 if text.startswith(b"-") else 1
    whole, _, fraction = text.lstrip(b"-").partition(b".")
    if not whole.isdigit() or (fraction and not fraction.isdigit()) or len(whole) > 12:
        raise InvalidArgument("tar: bad mtime in an extended header")
    return sign * (int(whole) * 10**9 + int((fraction + b"0" * 9)[:9]))


def pax_records(data: bytes) -> dict[bytes, bytes]:
    """`length key=value\\n` records (POSIX.1-2001, pax Interchange Format)."""
    records: dict[bytes, bytes] = {}
    numbers: list[bytes] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 12)
        if space < 0:
            raise InvalidArgument("tar: a damaged extended header")
        length = decimal(data[position:space], "record length")
        end = position + length
        if length < 5 or end > len(data) or data[end - 1 : end] != b"\n":
            raise InvalidArgument("tar: a damaged extended header")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise InvalidArgument("tar: a damaged extended header")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            numbers.append(value)
        else:
            records[key] = value
        position = end
    if numbers:
        records[b"GNU.sparse.map"] = b",".join(numbers)
    return records


def checksum(data: bytes) -> int:
    """The sum of at most 512 bytes.

    Adler-32's low half is one plus the sum (RFC 1950, 8.2), modulo 65521, which 256 bytes
    cannot exceed; it takes a fiftieth of the time that `sum` takes.
    """
    halves = adler32(data[:256]) & 0xFFFF, adler32(data[256:]) & 0xFFFF
    return halves[0] + halves[1] - 2
