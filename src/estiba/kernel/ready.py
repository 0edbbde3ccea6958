"""Waiting until a descriptor can be read or written, from the event loop.

One waiter a descriptor and direction. Whoever closes a descriptor that is being waited for
first takes it out of the loop.
"""

from __future__ import annotations

import asyncio


def settle(future: asyncio.Future[None]) -> None:
    """Wakes whoever awaits `future`; harmless when it is done or cancelled."""
    if not future.done():
        future.set_result(None)


async def wait_readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
