"""Which servers outside are asked, and from where.

A container's own servers (`--dns`) are asked from its network namespace, where they may be
neighbours of it. The host's servers are asked from the host's: they may listen on its loopback
(systemd-resolved), have IPv6 addresses, or be out of the container's reach.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from estiba.network.resolv import INTERNAL_SERVER, is_ndots_set, parse_resolv_conf

MAX_SERVERS = 8
_LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server; `inside` means: asked from the container's namespace."""

    address: str
    inside: bool = False

    def __str__(self) -> str:
        return self.address if self.inside else f"host({self.address})"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a container was given: its own servers, and its options of resolv.conf."""

    servers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class HostResolver:
    """The host's resolv.conf, read again when it has changed."""

    def __init__(
        self, path: Path = Path("/etc/resolv.conf"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._clock = clock
        self._looked = float("-inf")
        self._seen: tuple[int, ...] = ()
        self._servers: tuple[Upstream, ...] = ()
        self._ndots_set = False

    @property
    def servers(self) -> tuple[Upstream, ...]:
        self._look()
        return self._servers

    @property
    def ndots_set(self) -> bool:
        self._look()
        return self._ndots_set

    def _look(self) -> None:
        """A file that cannot be read changes nothing: it may be in the middle of a change."""
        now = self._clock()
        if now - self._looked < _LOOK_AGAIN_S:
            return
        self._looked = now
        with contextlib.suppress(OSError):
            status = os.stat(self._path)
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            if seen == self._seen:
                return
            parsed = parse_resolv_conf(self._path.read_text(errors="replace"))
            self._seen = seen
            self._servers = upstreams(parsed.nameservers, inside=False)
            self._ndots_set = is_ndots_set(parsed.options)


@functools.lru_cache(maxsize=1024)
def own_servers(addresses: tuple[str, ...], *, inside: bool) -> tuple[Upstream, ...]:
    """A container's own servers; those on loopback are its own programs in any case.

    The engine's name server is not asked by itself.
    """
    found = upstreams((each for each in addresses if each != INTERNAL_SERVER), inside=inside)
    return tuple(Upstream(each.address, inside or _is_loopback(each.address)) for each in found)


def upstreams(addresses: Iterable[str], *, inside: bool) -> tuple[Upstream, ...]:
    """Those that are addresses."""
    found = (Upstream(each, inside) for each in dict.fromkeys(addresses) if _is_address(each))
    return tuple(found)[:MAX_SERVERS]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(address: str) -> bool:
    return ip_address(address).is_loopback
