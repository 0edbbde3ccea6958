"""Which capabilities a container gets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from estiba.kernel.capabilities import NAMES
from estiba.model.errors import InvalidArgument

DEFAULT: tuple[str, ...] = tuple(
    f"CAP_{name}"
    for name in (
        # A package manager inside the container unpacks files of any owner and mode.
        "CHOWN DAC_OVERRIDE FOWNER FSETID MKNOD SETFCAP "
        # A server starts as root and becomes somebody else, perhaps in a chroot.
        "SETGID SETUID SETPCAP SYS_CHROOT KILL "
        # Its own network namespace makes low ports and ping harmless; su writes audit records.
        "NET_BIND_SERVICE NET_RAW AUDIT_WRITE"
    ).split()
)
"""Docker's fourteen."""

_ALL = "ALL"


def decide_capabilities(
    add: Sequence[str], drop: Sequence[str], *, privileged: bool, bounding: Iterable[str]
) -> tuple[list[str], list[str]]:
    """(capabilities in the order of their numbers, warnings).

    What was asked for but is not in the engine's own bounding set is left out with a warning:
    the runtime would refuse the container. Raises InvalidArgument for an unknown name.
    """
    added = _normalize(add, "CapAdd")
    dropped = _normalize(drop, "CapDrop")
    if privileged:
        wanted = set(NAMES)
    elif _ALL in added:
        wanted = set(NAMES) - dropped
    elif _ALL in dropped:
        wanted = added
    else:
        wanted = set(DEFAULT) - dropped | added
    wanted.discard(_ALL)
    held = set(bounding)
    missing = [name for name in NAMES if name in wanted - held]
    warnings = []
    if missing:
        warnings.append(
            f"the engine itself lacks {', '.join(missing)}: the container runs without"
            f" {'it' if len(missing) == 1 else 'them'}"
        )
    return [name for name in NAMES if name in wanted & held], warnings


def _normalize(names: Sequence[str], field: str) -> set[str]:
    normalized = set()
    for given in names:
        name = given.upper()
        if name != _ALL and not name.startswith("CAP_"):
            name = f"CAP_{name}"
        if name in ("CAP_ALL", _ALL):
            name = _ALL
        elif name not in NAMES:
            raise InvalidArgument(f'invalid {field}: unknown capability: "{name[:64]}"')
        normalized.add(name)
    return normalized
