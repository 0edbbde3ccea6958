"""Parts that answers share: JSON, links to the next page, conditions and ranges (RFC 9110)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from estiba.http1 import HttpResponse
from estiba.model.errors import InvalidArgument
from estiba.registry.errors import HttpError

JSON = "application/json"
_encode = msgspec.json.Encoder().encode
_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*")


class RangeInvalid(HttpError, InvalidArgument):
    """No byte of what was asked for exists."""

    code = "RANGE_INVALID"
    status = 416


def json_answer(value: object, *, kind: str = JSON, **headers: str) -> HttpResponse:
    """`value` as JSON; header names are given with underscores."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return HttpResponse(200, {"Content-Type": kind, **named}, _encode(value))


def next_link(path: str, parameters: Mapping[str, str]) -> str:
    """The value of a `Link` header (RFC 8288) to the next page."""
    query = "&".join(f"{name}={quote(text, safe='')}" for name, text in parameters.items())
    return f'<{path}?{query}>; rel="next"'


def matches(condition: str | None, digest: str) -> bool:
    """Whether an If-None-Match header names the digest (RFC 9110, section 13.1.2)."""
    if condition is None:
        return False
    tags = (tag.strip().removeprefix("W/").strip('"') for tag in condition.split(","))
    return any(tag in (digest, "*") for tag in tags)


def byte_range(headers: Mapping[str, str], size: int, digest: str) -> tuple[int, int] | None:
    """First byte and length of the one range asked for; None for the whole.

    What is malformed and what asks for several ranges counts as nothing, as RFC 9110, section
    14.2 allows. Raises RangeInvalid when no such byte exists.
    """
    text = headers.get("range")
    if text is None or ("if-range" in headers and not matches(headers["if-range"], digest)):
        return None
    found = _RANGE.fullmatch(text)
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        first, last = max(size - int(found[2]), 0), size - 1
    else:
        first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
        if found[2] and int(found[2]) < first:
            return None
    if first > last:
        raise RangeInvalid(
            f"no such range: the blob has {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return first, last - first + 1
