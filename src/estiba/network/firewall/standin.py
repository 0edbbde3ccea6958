"""The address that stands in for ::1 (see `layout`), routed to the host itself."""

from __future__ import annotations

import errno
from collections.abc import Callable
from ipaddress import IPv6Address

from estiba.kernel import rtnetlink, rtroutes
from estiba.kernel.netlink import NetlinkError, NetlinkSocket, Request
from estiba.network.firewall.layout import STAND_IN

_NO_IPV6 = (
    errno.EACCES,
    errno.EAFNOSUPPORT,
    errno.EINVAL,
    errno.ENETDOWN,
    errno.ENODEV,
    errno.EOPNOTSUPP,
)


def add_route() -> None:
    """A host without IPv6, or whose loopback is down, has no ::1 either. Raises NetlinkError."""
    _execute(rtroutes.add_local_route, harmless=_NO_IPV6)


def delete_route() -> None:
    """None is no error."""
    _execute(rtroutes.delete_local_route, harmless=(*_NO_IPV6, errno.ESRCH))


def _execute(make: Callable[[int, IPv6Address], Request], *, harmless: tuple[int, ...]) -> None:
    with NetlinkSocket() as handle:
        loopback = rtnetlink.get_link(handle, "lo").index
        try:
            handle.execute(make(loopback, IPv6Address(STAND_IN)))
        except NetlinkError as error:
            if error.errno not in harmless:
                raise
