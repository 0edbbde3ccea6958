"""Named points at which a test lets the process die or an operation fail.

`ESTIBA_FAILPOINTS` holds `name=action` pairs joined by commas: `kill` is SIGKILL to the
process itself, `error` raises OSError(EIO) once. A name may end in `#N` to act at its N-th
hit only. With the variable unset a hit costs one dictionary test.
"""

from __future__ import annotations

import errno
import os
import signal

_VARIABLE = "ESTIBA_FAILPOINTS"


def _parse(text: str) -> dict[str, tuple[int, str]]:
    points: dict[str, tuple[int, str]] = {}
    for pair in filter(None, text.split(",")):
        target, _, action = pair.partition("=")
        name, _, count = target.partition("#")
        points[name] = (int(count or 1), action)
    return points


_points = _parse(os.environ.get(_VARIABLE, ""))
_hits: dict[str, int] = {}


def hit(name: str) -> None:
    """Marks the point `name`; acts only when a test asked for it.

    Raises OSError(EIO) for the action `error`.
    """
    if not _points:
        return
    _hits[name] = _hits.get(name, 0) + 1
    wanted = _points.get(name)
    if wanted is None or _hits[name] != wanted[0]:
        return
    if wanted[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(errno.EIO, f"failpoint {name}")
