"""What each worker of a run that is shared has for itself: ports that nobody listens at yet."""

from __future__ import annotations

import os
import random
import socket

# Below those that the kernel gives to whoever asks for any, so that nobody gets one by chance
# before the test comes to use it; above those that tests name themselves.
_FIRST, _LAST = 20_000, 32_000


def worker() -> tuple[int, int]:
    """The number of this process among those that share the run, and how many there are."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return number, max(number + 1, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _shuffled() -> list[int]:
    number, count = worker()
    own = list(range(_FIRST + number, _LAST, count))
    random.shuffle(own)
    return own


_own = _shuffled()


def free_port() -> int:
    """Another one with every call."""
    while True:
        port = _own.pop()
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port
