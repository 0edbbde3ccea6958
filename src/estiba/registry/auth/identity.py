"""Who asks, and what may be done to a repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """The actions of Docker's token scopes."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"


Grants = Mapping[str, frozenset[str]]
"""Actions by repository, as a token brings them; CATALOG stands for the list of all."""

CATALOG = "registry:catalog"


@dataclass(frozen=True, slots=True)
class Identity:
    """`user` is "" for somebody unknown; `grants` is set when a token says what is allowed."""

    user: str = ""
    grants: Grants | None = None


ANONYMOUS = Identity()
