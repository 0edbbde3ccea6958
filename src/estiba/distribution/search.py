"""Finding repositories by name: Docker Hub's index, and the catalogues of other registries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import urlencode

from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import ANONYMOUS, Credentials
from estiba.distribution.refusals import printable, refusal
from estiba.distribution.registry import Registry
from estiba.distribution.settings import RegistrySettings
from estiba.distribution.transport import Request, Transport
from estiba.distribution.urls import parse_url
from estiba.model.errors import InvalidArgument, Unavailable
from estiba.model.reference import DEFAULT_DOMAIN

_INDEX = "https://index.docker.io/v1/search"
_MAX_ANSWER_BYTES = 4 << 20
_MAX_TERM_CHARS = 255


@dataclass(frozen=True, slots=True)
class Found:
    """OpenAPI, ImageSearch; a catalogue knows names only."""

    name: str
    description: str = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


def search(
    term: str, limit: int, settings: RegistrySettings, credentials: Credentials = ANONYMOUS
) -> list[Found]:
    """`term` may begin with a registry's host. Blocks.

    Raises InvalidArgument, Unavailable, NotFound for a registry without a catalogue.
    """
    if len(term) > _MAX_TERM_CHARS or "://" in term:
        raise InvalidArgument("invalid search term: write WORDS or HOST/WORDS, without a scheme")
    host, slash, words = term.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        with Registry(host, settings, credentials) as registry:
            names = registry.catalog()
        found = [f"{host}/{name}" for name in names if words.lower() in name.lower()]
        return [Found(name) for name in sorted(found)[:limit]]
    return _search_index(term, limit, settings)


def _search_index(term: str, limit: int, settings: RegistrySettings) -> list[Found]:
    query = urlencode({"q": term, "n": limit})
    transport = Transport(settings, CancelToken())
    try:
        request = Request(method="GET", url=parse_url(f"{_INDEX}?{query}"))
        with transport.request(request) as answer:
            if answer.status != 200:
                raise refusal(answer, f"search of {DEFAULT_DOMAIN}")
            body = answer.read(_MAX_ANSWER_BYTES)
    finally:
        transport.close()
    try:
        return [_found(one) for one in json.loads(body)["results"]][:limit]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unavailable(f"{DEFAULT_DOMAIN} answers a search with nonsense") from error


def _found(one: dict[str, object]) -> Found:
    stars = one.get("star_count")
    return Found(
        name=printable(str(one["name"])),
        description=printable(str(one.get("description") or "")),
        star_count=stars if isinstance(stars, int) else 0,
        is_official=bool(one.get("is_official")),
        is_automated=bool(one.get("is_automated")),
    )
