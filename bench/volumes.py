"""The table of volumes: files in a volume, as a container reaches them, beside the same files in a
directory of the host on the same disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import files, material
from bench.peers import Engine, estiba
from bench.rows import Table, at_least

NAME = "volumes"
COLUMNS = ("in a volume", "on the host")

_BYTES = files.MEGABYTES << 20


@dataclass(frozen=True)
class Place:
    """A directory, and a process that sees it there."""

    directory: str
    pid: int


def measure(table: Table, run: Path) -> dict[str, str]:
    """Fills the table; what there is to say about it."""
    engine = estiba(Path(sys.executable).parent / "estibad", run)
    host = run / "host"
    host.mkdir(parents=True)
    table.header()
    try:
        places = (_volume(engine), Place(str(host), os.getpid()))
        _rows(table, places)
    finally:
        engine.close()
    return {
        "method": "the same program in both places; for the volume it joins the mount namespace of "
        "a container that has it; each round is the best of four or six, for reads and small files "
        "in the processor's time"
    }


def _volume(engine: Engine) -> Place:
    engine.start()
    material.import_busybox(engine)
    engine.docker("run", "-d", "--name", "files", "-v", "files:/files", "busybox", "sleep", "90000")
    (found,) = json.loads(engine.docker("inspect", "files"))
    return Place("/files", found["State"]["Pid"])


def _rows(table: Table, places: tuple[Place, Place]) -> None:
    def row(name: str, title: str, unit: str, work: Callable[[Place], float]) -> None:
        table.row(name, title, at_least(0.95), 15, lambda p, _: work(p), places, unit=unit)

    size = f"{files.MEGABYTES} MiB"
    row("write", f"{size} written and flushed", "B/s", lambda p: _BYTES / _seconds("write", p))
    row("read", f"{size} read, cached", "B/s", lambda p: _BYTES / _seconds("read", p))
    title = f"{files.FILES:,} small files made, read and listed"
    row("small", title, "1/s", lambda p: files.FILES / _seconds("small", p))


def _seconds(work: str, place: Place) -> float:
    done = subprocess.run(
        [sys.executable, files.__file__, work, str(place.pid), place.directory],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    return float(done.stdout)
