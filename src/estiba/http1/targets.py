"""Targets of requests (RFC 9112, section 3.2): host, path and query."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from estiba.model.errors import InvalidArgument

_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2}).{0,2}")
_SLASHES = re.compile(r"/{2,}")


def split_target(target: str) -> tuple[str, str, str]:
    """The host of an absolute form or "", the decoded path, and the query as it stands.

    Raises InvalidArgument for an escape that is none.
    """
    host = ""
    absolute = _ABSOLUTE.match(target)
    if absolute is not None:
        host, target = absolute[1], target[absolute.end() :]
    path, _, query = target.partition("?")
    for part in (path, query):
        bad = _BAD_ESCAPE.search(part)
        if bad is not None:
            raise InvalidArgument(f"invalid URL escape {bad[0]!r}")
    decoded = unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "replace")
    return host, _SLASHES.sub("/", decoded) or "/", query
