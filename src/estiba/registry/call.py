"""One request to the registry as a handler sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar
from urllib.parse import parse_qs

from estiba.http1 import HttpRequest
from estiba.kernel.blocking import run_blocking
from estiba.model.errors import InvalidArgument
from estiba.registry.auth.identity import Identity
from estiba.registry.routes import Route

P = ParamSpec("P")
T = TypeVar("T")

_MAX_PARAMETERS = 64


@dataclass(slots=True)
class Call:
    """`quick` is whether storage answers within microseconds, so that no thread is needed."""

    request: HttpRequest
    route: Route
    query: dict[str, list[str]]
    identity: Identity
    address: str = ""
    quick: bool = False

    def text(self, name: str) -> str | None:
        """The first value of a parameter of the query."""
        values = self.query.get(name)
        return values[0] if values else None

    async def ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs one of the storage's short calls: here if that is quick, else in a thread."""
        if self.quick:
            return function(*args, **kwargs)
        return await run_blocking(function, *args, **kwargs)


def parse_query(query: str) -> dict[str, list[str]]:
    """Raises InvalidArgument when there is more than anybody needs."""
    if not query:
        return {}
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError as error:
        raise InvalidArgument(f"the query has over {_MAX_PARAMETERS} parameters") from error
