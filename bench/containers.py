"""The table of containers: our engine beside a genuine Docker Engine and Podman."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench import material, works
from bench.peers import Engine, docker_engine, estiba, podman
from bench.rows import Table, at_most

_BIN = Path(sys.executable).parent
NAME = "containers"
COLUMNS = ("estiba", "Docker Engine 20.10", "Podman 4.3")


def measure(table: Table, run: Path) -> dict[str, str]:
    """Fills the table; what there is to say about the peers."""
    ours, docker, other = estiba(_BIN / "estibad", run), docker_engine(run), podman(run)
    notes = {
        "docker": "Docker Engine 20.10 (Debian's docker.io), the same docker client for all",
        "podman": "podman is not installed",
    }
    started = [engine for engine in (ours, docker, other) if engine is not None]
    try:
        for engine in (ours, docker):
            prepare(engine)
        if other is not None:
            try:
                prepare(other)
                words = "Podman 4.3 (Debian's podman) behind its own service of the Docker API"
            except (RuntimeError, subprocess.CalledProcessError) as error:
                other, words = None, f"podman cannot run a container here: {error}"
            notes["podman"] = words
        _rows(table, ours, docker, other)
    finally:
        for engine in started:
            engine.close()
    return notes


def prepare(engine: Engine) -> None:
    """Starts it, with the image busybox and a container that idles."""
    engine.start()
    material.import_busybox(engine)
    works.with_container(engine, "idle", "sleep", "100000")


def _rows(table: Table, ours: Engine, docker: Engine, other: Engine | None) -> None:
    all_of_them = (ours, docker, other)
    engines = [engine for engine in all_of_them if engine is not None]
    archives = material.debian_roots()[: material.ROUNDS]

    def row(name: str, title: str, ratio: float, rounds: int,
            work: Callable[[Engine], float]) -> None:  # fmt: skip
        table.row(name, title, at_most(ratio), rounds, lambda e, _: work(e), all_of_them)

    table.header()
    row("run", "docker run --rm busybox true", 0.25, 15, works.run_rm)
    row("lifecycles", "40 lifecycles by 8 clients, API", 0.15, 3, works.lifecycles)
    row("starts", "30 starts by 8 clients, API", 0.2, 3, works.starts)
    row("exec", "docker exec true", 0.6, 15, works.exec_true)
    row("write", "writing 1,000,000 log lines", 0.3, 3, works.write_lines)
    row("logs", "docker logs of 1,000,000 lines", 0.1, 3, works.read_lines)
    table.row(
        "import", "import of a Debian root, 200 MB", at_most(0.3), len(archives),
        lambda e, number: works.import_root(e, archives, number), all_of_them,
    )  # fmt: skip
    if table.wants("memory", "list"):
        for engine in engines:
            engine.docker("rm", "-f", "lines")
        works.fill(engines, running=29, made=0)
    table.row(
        "memory", "memory with 30 containers (PSS)", at_most(0.6), 3,
        lambda e, _: e.pss_bytes(), all_of_them, unit="B",
    )  # fmt: skip
    if table.wants("list"):
        works.fill(engines, running=0, made=20)
    row("list", "GET /containers/json, 50 containers", 0.5, 30, works.list_containers)
    mine = str(_BIN / "estiba")
    table.row(
        "ps", "estiba ps against docker ps, whole process", at_most(3.0), 15,
        lambda e, _: works.ps_process(e, mine), (ours, ours),
        theirs=lambda e, _: works.ps_process(e, "docker"),
    )  # fmt: skip
