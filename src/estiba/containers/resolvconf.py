"""The container's /etc/resolv.conf: written at each start, and while it runs when its networks
give it a name server of the engine's. A file that somebody else has changed stays theirs.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from estiba.containers.record import ContainerRecord
from estiba.kernel.files import edit_in_place, write_atomic
from estiba.model.container import HostConfig
from estiba.network.dns.upstream import Wishes
from estiba.network.resolv import INTERNAL_SERVER, parse_resolv_conf, render_resolv_conf

HOSTS_FILE = Path("/etc/resolv.conf")
NAME = "resolv.conf"
_WRITTEN = "resolv.conf.hash"
"""Of what the engine wrote last."""

_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Resolver:
    """`dns…` are the daemon's settings, for containers that set none. `has_names` says whether
    a container has a name server of the engine's in its network namespace.
    """

    dns: Sequence[str] = ()
    dns_options: Sequence[str] = ()
    dns_search: Sequence[str] = ()
    has_names: Callable[[str], bool] = lambda _container_id: False

    def wishes(self, host: HostConfig) -> Wishes:
        """What the engine's name server must know of a container."""
        servers, options = host.dns or self.dns, host.dns_options or self.dns_options
        return Wishes(tuple(servers), tuple(options))

    def write(self, state: Path, record: ContainerRecord, *, ipv6: bool = False) -> None:
        """Makes the file in the container's directory anew. Blocks.

        `ipv6` says whether the container has such an address.
        """
        text = self._text(record, ipv6)
        write_atomic(state / NAME, text, mode=0o644, durable=False)
        write_atomic(state / _WRITTEN, _hash(text), durable=False)

    def refresh(self, state: Path, record: ContainerRecord, *, ipv6: bool = False) -> None:
        """Writes the file over in place, for it is mounted, unless it is somebody else's.

        Blocks. Raises OSError.
        """
        text = self._text(record, ipv6)

        def edit(old: bytes) -> bytes:
            return text if _hash(old) == _read(state / _WRITTEN) else old

        with contextlib.suppress(FileNotFoundError):
            edit_in_place(state / NAME, edit, limit=_MAX_BYTES)
            if _read(state / NAME) == text:
                write_atomic(state / _WRITTEN, _hash(text), durable=False)

    def asks_here(self, state: Path) -> bool:
        """Whether the file, whoever wrote it, names the engine's server. Blocks."""
        conf = parse_resolv_conf(_read(state / NAME).decode(errors="replace"))
        return INTERNAL_SERVER in conf.nameservers

    def _text(self, record: ContainerRecord, ipv6: bool) -> bytes:
        host = record.host_config
        wishes = self.wishes(host)
        return render_resolv_conf(
            _read(HOSTS_FILE).decode(errors="replace"),
            dns=wishes.servers,
            search=host.dns_search or self.dns_search,
            options=wishes.options,
            shares_host=host.network_mode == "host",
            internal=self.has_names(record.id),
            ipv6=ipv6,
        ).encode()


def _hash(text: bytes) -> bytes:
    return f"sha256:{hashlib.sha256(text).hexdigest()}".encode()


def _read(path: Path) -> bytes:
    """As much as counts: a container writes as much as it likes."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except FileNotFoundError:
        return b""
