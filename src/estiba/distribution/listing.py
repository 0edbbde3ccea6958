"""Lists that come in pages (distribution-spec 1.1, "Listing tags"; RFC 8288 for Link)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from estiba.distribution.auth import Scopes
from estiba.distribution.session import Session
from estiba.distribution.urls import Url, follow
from estiba.model.errors import LimitExceeded, Unavailable

PAGE_SIZE = 1000
MAX_ENTRIES = 100_000
_MAX_PAGE_BYTES = 4 << 20
_LINK = re.compile(r"\s*<([^<>\s]*)>([^,]*)")
_NEXT = re.compile(r';\s*rel\s*=\s*"?next"?', re.IGNORECASE)


def list_entries(
    session: Session,
    path: str,
    member: str,
    *,
    what: str,
    scopes: Scopes,
    headers: dict[str, str] | None = None,
) -> Iterator[Any]:
    """The entries of the array `member` in every page.

    Raises LimitExceeded beyond 100,000 of them, Unavailable for pages that are none.
    """
    url: Url | None = session.url(path)
    seen: set[Url] = set()
    count = 0
    while url is not None:
        if url in seen or url.origin != session.origin:
            raise Unavailable(f"{what}: the registry's pages lead in a circle or elsewhere")
        seen.add(url)
        answer = session.call("GET", url, what=what, scopes=scopes, headers=headers)
        links = answer.header_values("Link")
        entries = _entries(answer.read(_MAX_PAGE_BYTES), member, what)
        count += len(entries)
        if count > MAX_ENTRIES or len(seen) > MAX_ENTRIES // 10:
            raise LimitExceeded(f"{what}: the registry lists more than {MAX_ENTRIES} entries")
        yield from entries
        url = _next(url, links)


def _entries(body: bytes, member: str, what: str) -> list[Any]:
    try:
        entries = json.loads(body).get(member) or []
    except (ValueError, AttributeError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        raise Unavailable(f"{what}: the registry answers with something else than a list")
    return entries


def _next(url: Url, links: list[str]) -> Url | None:
    for header in links:
        for match in _LINK.finditer(header):
            if _NEXT.search(match[2]):
                return follow(url, match[1])
    return None
