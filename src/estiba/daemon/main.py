"""`estibad`: reads its settings, starts the engine, serves until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from estiba import __version__
from estiba.daemon.config import DaemonConfig, load
from estiba.daemon.flags import parser
from estiba.kernel.allocator import limit_arenas
from estiba.model.errors import EstibaError, FailedPrecondition

_log = logging.getLogger("estibad")

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_SWITCH_INTERVAL_S = 0.001
_ARENAS = 2
_GC_THRESHOLD = (10_000, 50, 50)


def main() -> None:
    """The console script. Exits 1 with one line that says what is wrong."""
    arguments = parser().parse_args()
    if vars(arguments).pop("version", False):
        print(f"estibad {__version__}")
        return
    if vars(arguments).pop("api_coverage", False):
        _print_coverage()
        return
    removing = vars(arguments).pop("remove_firewall", False)
    # A fault in a library says in the log where every thread was.
    faulthandler.enable()
    # A script's shell ignores it for what runs with "&", and containers would inherit that.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    try:
        config = load(arguments)
        _set_up_logging(config)
        if os.geteuid() != 0:
            raise FailedPrecondition("estibad needs root: it makes namespaces and mounts")
        _raise_descriptor_limit()
        limit_arenas(_ARENAS)
        # A thread that unpacks must not keep the event loop waiting for the default 5 ms.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        if removing:
            _remove_firewall(config)
            return
        with _locked(config.data_root), _pidfile(config.pidfile):
            asyncio.run(_serve(config))
    except (EstibaError, OSError) as error:
        print(f"estibad: {error}", file=sys.stderr)
        sys.exit(1)


async def _serve(config: DaemonConfig) -> None:
    from estiba.daemon.wiring import build

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    daemon = build(config)
    try:
        await daemon.start()
        # What is alive now lives as long as the process: keep the collector off it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLD)
        _log.info("serving the Engine API on %s", ", ".join(config.hosts))
        await stop.wait()
        _log.info("stopping; containers run on")
    finally:
        await daemon.close()


def _remove_firewall(config: DaemonConfig) -> None:
    """Raises FailedPrecondition while the daemon runs, for it would write its rules again."""
    from estiba.kernel.nft import Nft
    from estiba.network.firewall.removal import remove
    from estiba.network.firewall.rules import table_name

    with _locked(config.data_root):
        remove(Nft(), table_name(config.bridge))


def _raise_descriptor_limit() -> None:
    """Published ports, execs and clients each hold descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _print_coverage() -> None:
    from estiba.api.ports import Backends
    from estiba.api.routes import build_router

    nothing: Any = None
    backends = Backends(*[nothing] * len(Backends.__dataclass_fields__))
    served, whole, missing = build_router(backends).coverage()
    print(f"{served}/{whole} operations of the Engine API are served")
    for name in missing:
        print(f"  missing: {name}")


def _set_up_logging(config: DaemonConfig) -> None:
    logging.basicConfig(
        level=_LEVELS[config.log_level],
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)


@contextmanager
def _locked(data_root: Path) -> Iterator[None]:
    """One daemon a data root. Raises FailedPrecondition when another has it."""
    data_root.mkdir(mode=0o710, parents=True, exist_ok=True)
    fd = os.open(data_root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FailedPrecondition(
                f"another daemon uses the data root {data_root}: stop it, or choose another "
                "with --data-root"
            ) from None
        yield
    finally:
        os.close(fd)


@contextmanager
def _pidfile(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(os.getpid()))
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


if __name__ == "__main__":
    main()
