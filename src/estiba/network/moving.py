"""Links that are made elsewhere, moved into a sandbox and back."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from estiba.kernel import rtnetlink, rtroutes
from estiba.kernel.netlink import NetlinkError, NetlinkSocket, Request
from estiba.kernel.netns import is_netns, run_in_netns
from estiba.kernel.rtnetlink import Link
from estiba.model.errors import Conflict, FailedPrecondition


def check_unused(source: str) -> None:
    """Raises FailedPrecondition for a link that the host itself uses: a plugin that names its way
    out, or another's link, would have that taken away, and deleted in the end.
    """
    with NetlinkSocket() as handle:
        link = _find(handle, source)
        if link is None:
            return
        addresses = rtroutes.list_addresses(handle)
    is_used = any(index == link.index and not one.is_link_local for index, one in addresses)
    if is_used or link.master or link.kind == "bridge":
        raise FailedPrecondition(
            f"the plugin names the interface {source[:32]!r}, which the host itself uses: it has "
            "an address, or is a bridge or a port of one"
        )


def move_in(source: str, sandbox: Path, name: str, mac: str) -> None:
    """The host's link `source` goes into the sandbox, as `name` and with the MAC if one is given.

    Raises FailedPrecondition when there is no such link, Conflict when the name is taken.
    """
    namespace = os.open(sandbox, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with NetlinkSocket() as handle:
            link = _find(handle, source)
            if link is None:
                raise FailedPrecondition(
                    f"the plugin names the interface {source[:32]!r}, which is not on this host"
                )
            try:
                handle.execute(rtnetlink.move_link(link.index, netns_fd=namespace, name=name))
            except NetlinkError as error:
                if error.errno == errno.EEXIST:
                    raise Conflict(f"interface name {name} is taken in the container") from error
                raise
    finally:
        os.close(namespace)
    if mac:
        run_in_netns(sandbox, lambda: _execute(rtnetlink.set_link(name, mac=mac)))


def move_out(sandbox: Path, name: str, source: str) -> None:
    """Back to the host, under the name that it had there; one that is gone is no error."""
    if not is_netns(sandbox):
        return
    host = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def inside() -> None:
        with NetlinkSocket() as handle:
            link = _find(handle, name)
            if link is None:
                return
            try:
                handle.execute(rtnetlink.move_link(link.index, netns_fd=host, name=source))
            except NetlinkError as error:
                # Somebody has the name on the host: a link that we cannot give back goes.
                if error.errno != errno.EEXIST:
                    raise
                handle.execute(rtnetlink.delete_link(link.index))

    try:
        run_in_netns(sandbox, inside)
    finally:
        os.close(host)


def discard(name: str) -> None:
    """Deletes a link of the host that a plugin does not fetch any more, if it is virtual."""
    with NetlinkSocket() as handle:
        link = _find(handle, name)
        if link is not None and link.kind:
            handle.execute(rtnetlink.delete_link(link.index))


def free_name(sandbox: Path, prefix: str) -> str:
    """The first name of that prefix that no link in the sandbox has."""
    used = run_in_netns(sandbox, lambda: {name for _, name in socket.if_nameindex()})
    return next(f"{prefix}{n}" for n in range(len(used) + 1) if f"{prefix}{n}" not in used)


def _find(handle: NetlinkSocket, name: str) -> Link | None:
    try:
        return rtnetlink.get_link(handle, name)
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise
        return None


def _execute(request: Request) -> None:
    with NetlinkSocket() as handle:
        handle.execute(request)
