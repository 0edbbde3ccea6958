"""Signal names and numbers as users write them. Pure."""

from __future__ import annotations

import signal

from estiba.model.errors import InvalidArgument

SIGKILL = int(signal.SIGKILL)
_LAST = 64
_REALTIME = {
    **{f"RTMIN+{n}": signal.SIGRTMIN + n for n in range(16)},
    **{f"RTMAX-{n}": signal.SIGRTMAX - n for n in range(15)},
}


def parse_signal(text: str) -> int:
    """The number of `TERM`, `SIGTERM`, `15` or `RTMIN+1`.

    Raises InvalidArgument for anything else.
    """
    if text.isdecimal() and len(text) < 4 and 0 < int(text) <= _LAST:
        return int(text)
    name = text.upper().removeprefix("SIG")
    if name in _REALTIME:
        return _REALTIME[name]
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise InvalidArgument(
            f"invalid signal: {text[:32]}: use a name such as SIGTERM or a number up to {_LAST}"
        ) from None


def is_stop_signal(number: int, configured: str) -> bool:
    """Whether sending `number` is the user's way to stop the container."""
    return number in (SIGKILL, parse_signal(configured or "SIGTERM"))
