"""What the name service asks of others: who may look up what outside, and who must hear of it."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol


class NamePolicy(Protocol):
    """Rules on names of the world outside. Names of containers and of a network's own records
    are answered without asking.

    Names are in lower case, without the dot at the end.
    """

    def watches(self, container_id: str) -> bool:
        """Whether this container's questions must pass the name service although it is on no
        network with names (the default bridge). Asked when it joins a network, and with each
        question of a container that has servers of its own: what it asks itself, its firewall
        might stop, so those are asked from the host's namespace then. From any thread.
        """

    def allows(self, container_id: str, name: str) -> bool:
        """Whether the question may be forwarded; otherwise the name does not exist (NXDOMAIN).

        Called on the thread that answers everybody: memory only, no I/O, no waiting.
        """

    def answered(
        self,
        container_id: str,
        name: str,
        addresses: Sequence[IPv4Address | IPv6Address],
        ttl_s: int,
    ) -> None:
        """The outside says that `name`, by way of aliases perhaps, has these addresses.

        Called before the container hears of it, in a worker thread, only for answers with
        addresses. It may block for some milliseconds. What it raises turns the answer into
        SERVFAIL: no container gets an address that its firewall does not let through.
        `ttl_s` is the smallest of the answer.
        """
