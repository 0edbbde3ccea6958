"""`estiba registry serve`: reads its settings, serves until a signal; and `gc`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from estiba.kernel.allocator import limit_arenas
from estiba.model.errors import EstibaError
from estiba.registry.config import RegistryConfig, load, parser
from estiba.registry.storage.opening import collect_once
from estiba.registry.storage.settings import storage_settings

_log = logging.getLogger("registry")

_SWITCH_INTERVAL_S = 0.001
_ARENAS = 2
_GC_THRESHOLD = (10_000, 50, 50)


def main() -> None:
    """Exits 1 with one line that says what is wrong."""
    arguments = parser().parse_args()
    try:
        if arguments.command == "gc":
            print(collect_once(storage_settings(arguments.root.absolute(), vars(arguments))))
            return
        config = load(arguments)
        logging.basicConfig(
            level=config.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        _raise_descriptor_limit()
        limit_arenas(_ARENAS)
        # A thread that hashes must not keep the event loop waiting for the default 5 ms.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        with _access_log(config.access_log) as fd:
            asyncio.run(_serve(config, fd))
    except (EstibaError, OSError) as error:
        print(f"estiba registry: {error}", file=sys.stderr)
        sys.exit(1)


async def _serve(config: RegistryConfig, access_log: int | None) -> None:
    from estiba.registry.wiring import build

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = build(config, access_log)
    try:
        addresses = await server.start()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLD)
        _log.info("serving %s on %s", config.root, ", ".join(map(str, addresses)))
        await stop.wait()
        _log.info("stopping; uploads under way can be resumed")
    finally:
        await server.close()


@contextmanager
def _access_log(place: str) -> Iterator[int | None]:
    if place == "none":
        yield None
    elif place == "-":
        yield 1
    else:
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        with contextlib.closing(os.fdopen(fd, "wb")):
            yield fd


def _raise_descriptor_limit() -> None:
    """Connections and open blobs each hold descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
