"""A limit on failed attempts to sign in, by address and by address and name.

Not by name alone: whoever knows a name could keep its owner out.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from estiba.registry.errors import TooManyRequests

WINDOW_S = 60.0
PER_NAME = 10
PER_ADDRESS = 50
_REMEMBERED = 10_000


class Throttle:
    """Remembers when attempts failed, within WINDOW_S."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def check(self, address: str, user: str) -> None:
        """Raises TooManyRequests with Retry-After once too many attempts have failed."""
        place = _network_of(address)
        for key, limit in (((place, user), PER_NAME), ((place, ""), PER_ADDRESS)):
            wait_s = self._wait_s(key, limit)
            if wait_s > 0:
                raise TooManyRequests(
                    f"too many failed attempts to sign in: try again in {wait_s:.0f} seconds",
                    headers={"Retry-After": f"{wait_s:.0f}"},
                )

    def failed(self, address: str, user: str) -> None:
        place = _network_of(address)
        for key in ((place, user), (place, "")):
            times = self._failures.setdefault(key, deque(maxlen=PER_ADDRESS))
            times.append(self._clock())
            self._failures.move_to_end(key)
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)

    def _wait_s(self, key: tuple[str, str], limit: int) -> float:
        times = self._failures.get(key)
        if times is None:
            return 0.0
        now = self._clock()
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        if not times:
            del self._failures[key]
        return 0.0 if len(times) < limit else max(times[-limit] + WINDOW_S - now, 1.0)


def _network_of(address: str) -> str:
    """An IPv6 client has a whole /64 to ask from."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
