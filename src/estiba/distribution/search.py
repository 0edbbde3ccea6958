"""Finding repositories by name: Docker Hub's index, and the catalogues of other registries."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

from estiba.distribution.credentials import ANONYMOUS, Credentials
from estiba.distribution.registry import Registry
from estiba.distribution.settings import RegistrySettings
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

    Raises InvalidArgument, Unavailable, NotImplemented for a registry without a catalogue.
    """
    if len(term) > _MAX_TERM_CHARS or "://" in term:
        raise InvalidArgument("invalid search term: write WORDS or HOST/WORDS, without a scheme")
    host, slash, words = term.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        names = Registry(host, settings, credentials).catalog()
        found = [f"{host}/{name}" for name in names if words.lower() in name.lower()]
        return [Found(name) for name in sorted(found)[:limit]]
    return _search_index(term, limit, settings)


def _search_index(term: str, limit: int, settings: RegistrySettings) -> list[Found]:
    query = urllib.parse.urlencode({"q": term, "n": limit})
    proxies = {"https": settings.proxies.https} if settings.proxies.https else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    try:
        with opener.open(f"{_INDEX}?{query}", timeout=settings.connect_timeout_s) as answer:
            body = json.loads(answer.read(_MAX_ANSWER_BYTES))
        return [
            Found(
                name=str(one["name"]),
                description=str(one.get("description") or ""),
                star_count=int(one.get("star_count") or 0),
                is_official=bool(one.get("is_official")),
                is_automated=bool(one.get("is_automated")),
            )
            for one in body["results"]
        ][:limit]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"cannot search {DEFAULT_DOMAIN}: {error}") from error
