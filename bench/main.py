"""`scripts/bench`: takes the engines in turn, prints medians and ratios, writes JSON and a plot."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import works
from bench.peers import Engine, docker_engine, estiba, podman

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
_IMPORTS = 3
_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Row:
    """One line of the table; values are medians in seconds, or bytes for memory."""

    name: str
    title: str
    unit: str
    estiba: float
    docker: float
    podman: float | None
    target: float
    rounds: int

    @property
    def ratio(self) -> float:
        return self.estiba / self.docker

    @property
    def verdict(self) -> str:
        return "ok" if self.ratio <= self.target else "MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: noisier")
    parser.add_argument("--only", action="append", metavar="NAME", help="only these rows")
    given = parser.parse_args()
    docker = docker_engine()
    if docker is None:
        sys.exit("dockerd is not installed: scripts/bench installs Debian's docker.io")
    ours = estiba(_BIN / "estibad")
    other = podman()
    try:
        rows, note = run_all(ours, docker, other, given)
    finally:
        for engine in (ours, docker, other):
            if engine is not None:
                engine.close()
    report(rows, note, given)


def run_all(
    ours: Engine, docker: Engine, other: Engine | None, given: argparse.Namespace
) -> tuple[list[Row], str]:
    """The rows, and what there is to say about podman."""
    for engine in (ours, docker):
        prepare(engine)
    note = "podman is not installed"
    if other is not None:
        try:
            prepare(other)
            note = "Podman 4.3 (Debian's podman) behind its own service of the Docker API"
        except (RuntimeError, subprocess.CalledProcessError) as error:
            other, note = None, f"podman cannot run a container here: {error}"
    archives = debian_roots(_IMPORTS)
    rows: list[Row] = []

    def row(
        name: str, title: str, target: float, rounds: int, work: Callable[[Engine], float],
        theirs: Callable[[Engine], float] | None = None, unit: str = "s",
    ) -> None:  # fmt: skip
        if given.only and name not in given.only:
            return
        count = max(1, rounds // 3) if given.quick else rounds
        mine: list[float] = []
        dockers: list[float] = []
        podmans: list[float] = []
        for _ in range(count):
            dockers.append((theirs or work)(docker))
            mine.append(work(ours))
            if other is not None and theirs is None:
                podmans.append(work(other))
        made = Row(
            name, title, unit, statistics.median(mine), statistics.median(dockers),
            statistics.median(podmans) if podmans else None, target, count,
        )  # fmt: skip
        rows.append(made)
        print(text(made), flush=True)

    engines = [engine for engine in (ours, docker, other) if engine is not None]
    print(header(), flush=True)
    row("run", "docker run --rm busybox true", 0.25, 15, works.run_rm)
    row("lifecycles", "40 lifecycles by 8 clients, API", 0.15, 3, works.lifecycles)
    row("starts", "30 starts by 8 clients, API", 0.2, 3, works.starts)
    row("exec", "docker exec true", 0.6, 15, works.exec_true)
    row("write", "writing 1,000,000 log lines", 0.3, 3, works.write_lines)
    row("logs", "docker logs of 1,000,000 lines", 0.1, 3, works.read_lines)
    row(
        "import", "import of a Debian root, 200 MB", 0.3, _IMPORTS,
        lambda e: works.import_root(e, archives),
    )  # fmt: skip
    if not given.only or {"memory", "list"} & set(given.only):
        for engine in engines:
            engine.docker("rm", "-f", "lines")
        works.fill(engines, running=29, made=0)
    row("memory", "memory with 30 containers (PSS)", 0.6, 3, Engine.pss_bytes, unit="B")
    if not given.only or "list" in given.only:
        works.fill(engines, running=0, made=20)
    row("list", "GET /containers/json, 50 containers", 0.5, 30, works.list_containers)
    mine, theirs = str(_BIN / "estiba"), "docker"
    row(
        "ps", "estiba ps against docker ps, whole process", 3.0, 15,
        lambda e: works.ps_process(e, mine), lambda e: works.ps_process(ours, theirs),
    )  # fmt: skip
    return rows, note


def prepare(engine: Engine) -> None:
    """Starts it, with the image busybox and a container that idles."""
    engine.start()
    subprocess.run(
        ["docker", "import", "-c", 'CMD ["sh"]', "-", "busybox:latest"], input=busybox_root(),
        env=engine.environment(), capture_output=True, check=True,
    )  # fmt: skip
    works.with_container(engine, "idle", "sleep", "100000")


def busybox_root() -> bytes:
    from estiba.client.bootstrap import busybox

    return b"".join(busybox())


def debian_roots(count: int) -> list[Path]:
    """What debootstrap makes, some 200 MB, as tars of one file's difference; made once and kept."""
    folder = Path("/var/tmp/estiba-bench")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"debian-{number}.tar" for number in range(count)]
    if not all(path.exists() for path in paths):
        root = folder / "debian"
        quiet = {"check": True, "stdout": subprocess.DEVNULL}
        subprocess.run(["debootstrap", "--variant=minbase", "bookworm", root], **quiet)
        for path in paths:
            (root / "etc/number").write_text(path.stem)
            subprocess.run(["tar", "-C", root, "-cf", path, "."], **quiet)
        shutil.rmtree(root)
        os.sync()
    return paths


def header() -> str:
    return f"{'work':<44}{'estiba':>10}{'docker':>10}{'podman':>10}{'ratio':>8}{'target':>8}"


def text(row: Row) -> str:
    values = (shown(row, value) for value in (row.estiba, row.docker, row.podman))
    columns = "".join(f"{value:>10}" for value in values)
    return f"{row.title:<44}{columns}{row.ratio:>8.3f}{row.target:>8} {row.verdict}"


def report(rows: list[Row], note: str, given: argparse.Namespace) -> None:
    print(f"podman: {note}\nratio: estiba / docker")
    if given.only or given.quick:
        print("nothing was written: only a whole run is")
        return
    RESULTS.mkdir(exist_ok=True)
    facts = {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "docker": "Docker Engine 20.10 (Debian's docker.io), the same docker client for both",
        "podman": note,
        "rows": [{**asdict(row), "ratio": row.ratio, "verdict": row.verdict} for row in rows],
    }
    (RESULTS / "latest.json").write_text(json.dumps(facts, indent=2) + "\n")
    plot(rows)
    before, _, rest = README.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    README.write_text(f"{before}{_BEGIN}\n{table(rows)}\n{_END}{after}")


def table(rows: list[Row]) -> str:
    """As Markdown, for the README."""
    lines = [
        "| work | estiba | Docker Engine 20.10 | Podman 4.3 | estiba / Docker | target |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        values = " | ".join(shown(row, value) for value in (row.estiba, row.docker, row.podman))
        missed = "" if row.verdict == "ok" else " (missed)"
        lines.append(f"| {row.title} | {values} | {row.ratio:.2f}{missed} | {row.target} |")
    return "\n".join(lines)


def shown(row: Row, value: float | None) -> str:
    """A value with its unit; `-` where there is none."""
    if value is None:
        return "-"
    if row.unit == "B":
        return f"{value / 1e6:.0f} MB"
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


def plot(rows: list[Row]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.5 * len(rows) + 1))
    positions = range(len(rows))
    axes.barh(positions, [row.ratio for row in rows], color="#3b7ea1")
    axes.plot([row.target for row in rows], positions, "|", color="black", markersize=18)
    axes.set_yticks(list(positions), [row.title for row in rows])
    axes.invert_yaxis()
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel("estiba / Docker Engine 20.10 (shorter is better; | is the target)")
    figure.tight_layout()
    figure.savefig(RESULTS / "latest.svg")


if __name__ == "__main__":
    main()
