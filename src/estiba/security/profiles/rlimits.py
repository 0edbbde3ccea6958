"""Resource limits of a container's processes (getrlimit(2)). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from estiba.model.container import Ulimit
from estiba.model.errors import InvalidArgument

UNLIMITED = 2**64 - 1
_NAMES = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending "
    "stack".split()
)


def decide_rlimits(
    wanted: Iterable[Ulimit], defaults: Iterable[Ulimit], *, ceiling: Mapping[str, int] | None
) -> tuple[list[dict[str, object]], list[str]]:
    """(runtime-spec rlimits, warnings): `wanted` over the engine's `defaults`.

    `ceiling` holds the engine's own hard limits by name; without CAP_SYS_RESOURCE nothing above
    them can be given, so it is clamped with a warning. None means there is no ceiling.
    Raises InvalidArgument for an unknown name or a soft limit above the hard one.
    """
    chosen = {limit.name: limit for limit in [*defaults, *wanted]}
    rlimits: list[dict[str, object]] = []
    warnings = []
    for name, limit in sorted(chosen.items()):
        if name not in _NAMES:
            raise InvalidArgument(f"invalid ulimit type: {name[:64]}")
        soft, hard = _unsigned(limit.soft), _unsigned(limit.hard)
        if soft > hard:
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {name} "
                f"{limit.soft} > {limit.hard}"
            )
        highest = UNLIMITED if ceiling is None else ceiling.get(name, UNLIMITED)
        if hard > highest:
            warnings.append(
                f"ulimit {name} {hard if hard != UNLIMITED else 'unlimited'} is above the engine's "
                f"own hard limit and is lowered to {highest}"
            )
            soft, hard = min(soft, highest), highest
        rlimits.append({"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard})
    return rlimits, warnings


def _unsigned(value: int) -> int:
    return UNLIMITED if value < 0 else value
