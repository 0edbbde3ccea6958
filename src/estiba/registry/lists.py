"""Lists of names in pages: the tags of a repository (end-8) and Docker's `_catalog`."""

from __future__ import annotations

import re

from estiba.http1 import HttpResponse
from estiba.registry.answers import json_answer, next_link
from estiba.registry.auth.identity import Identity
from estiba.registry.call import Call
from estiba.registry.errors import PageInvalid
from estiba.registry.service import Service

_CATALOG_PAGE = 100
_MAX_PAGE = 1000
_NUMBER = re.compile(r"[0-9]{1,9}")


async def list_tags(service: Service, call: Call) -> HttpResponse:
    """Raises NameUnknown, PageInvalid. All of them, unless the client says how many."""
    name = call.route.repository
    count, last = _count(call), call.text("last") or ""
    page = await service.work(service.registry.manifests.tags, name, limit=count, last=last)
    answer = json_answer({"name": name, "tags": page.names})
    if page.more and count:
        link = next_link(f"/v2/{name}/tags/list", {"n": str(count), "last": page.names[-1]})
        answer.headers["Link"] = link
    return answer


async def list_repositories(service: Service, call: Call) -> HttpResponse:
    """What the client may pull, at most 1000 a page. Raises PageInvalid."""
    count = _count(call)
    count = _CATALOG_PAGE if count is None else min(count, _MAX_PAGE)
    names, more = await visible_repositories(service, call.identity, count, call.text("last") or "")
    answer = json_answer({"repositories": names})
    if more and names:
        answer.headers["Link"] = next_link("/v2/_catalog", {"n": str(count), "last": names[-1]})
    return answer


async def visible_repositories(
    service: Service, identity: Identity, count: int, last: str
) -> tuple[list[str], bool]:
    """At most `count` names after `last` that the client may see, and whether there are more."""
    names: list[str] = []
    more = count > 0
    while more and len(names) <= count:
        page = await service.work(service.registry.catalog.repositories, limit=count + 1, last=last)
        names += [name for name in page.names if service.gate.may_see(identity, name)]
        more = page.more and bool(page.names)
        last = page.names[-1] if page.names else last
    return names[:count], more or len(names) > count


def _count(call: Call) -> int | None:
    text = call.text("n")
    if text is None or text == "":
        return None
    if not _NUMBER.fullmatch(text):
        raise PageInvalid(f"invalid number of results {text[:32]!r}: expected 0 or more")
    return int(text)
