"""The table of builds: our builder beside the classic one of a genuine Docker Engine, both behind
the same docker client."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench import material
from bench.disk import settle
from bench.peers import Engine, docker_engine, estiba
from bench.rows import Table, at_most
from bench.works import timed

_BIN = Path(sys.executable).parent
_APPLICATION = Path(__file__).parent.parent / "docs/examples/python-web"
NAME = "builds"
COLUMNS = ("estiba", "Docker Engine 20.10, classic builder")

_STEPS = 10
_FILES = 5000
_IGNORED_BYTES = 1 << 30
_STAGES = 4
_STAGE_SECONDS = 5
_MOUNT = re.compile(r"--mount=\S+\s+(\\\n\s*)?")

Build = Callable[[Engine, int], float]


def measure(table: Table, run: Path) -> dict[str, str]:
    """Fills the table; what there is to say about the peer."""
    ours, docker = estiba(_BIN / "estibad", run), docker_engine(run)
    both = (ours, docker)
    contexts = run / "contexts"
    contexts.mkdir()
    table.header()
    try:
        for engine in both:
            _prepare(engine)
        _step_rows(table, both, contexts)
        _file_rows(table, both, contexts)
        table.row(
            "stages", f"{_STAGES} independent stages of {_STAGE_SECONDS} seconds", at_most(0.4), 3,
            _stages(contexts / "stages"), both,
        )  # fmt: skip
        if table.wants("rebuild"):
            _rebuild_row(table, both, contexts / "application")
    finally:
        for engine in both:
            engine.close()
    return {
        "docker": "Docker Engine 20.10 (Debian's docker.io), the same docker client for both, "
        "with DOCKER_BUILDKIT=0"
    }


def _prepare(engine: Engine) -> None:
    engine.start()
    material.import_busybox(engine)


def build(engine: Engine, context: Path, *words: str) -> float:
    """Seconds of a whole `docker build`; raises RuntimeError with its last words."""
    command = ["docker", "build", *words, "-t", f"bench-{context.name}", str(context)]
    environment = {**engine.environment(), "DOCKER_BUILDKIT": "0"}

    def whole() -> None:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stdout.decode(errors="replace")[-500:])

    return timed(whole)


def _step_rows(table: Table, both: tuple[Engine, Engine], contexts: Path) -> None:
    context = _context(
        contexts / "steps",
        "\n".join(["FROM busybox", *(f"RUN echo {n} > /step{n}" for n in range(_STEPS))]),
    )
    table.row(
        "steps", f"{_STEPS} RUN steps without cache", at_most(0.25), 5,
        lambda engine, _: build(engine, context, "--no-cache"), both,
    )  # fmt: skip
    if table.wants("cached"):
        for engine in both:
            build(engine, context)
    table.row(
        "cached", "the same, cached", at_most(0.6), 15,
        lambda engine, _: build(engine, context), both,
    )  # fmt: skip


def _file_rows(table: Table, both: tuple[Engine, Engine], contexts: Path) -> None:
    if table.wants("copy"):
        many = _context(contexts / "many", "FROM busybox\nCOPY . /many")
        _fill(many, _FILES, 2000)
    table.row(
        "copy", f"COPY of {_FILES:,} files", at_most(0.25), 5,
        lambda engine, _: _copy(engine, many), both,
    )  # fmt: skip
    if table.wants("ignored"):
        ignored = _context(contexts / "ignored", "FROM busybox\nCOPY . /kept")
        (ignored / ".dockerignore").write_text("data\n*.bin\n")
        _fill(ignored, 100, 10_000)
        _fill_with_ballast(ignored)
    table.row(
        "ignored", "a context of 1 GB, 1 MB after .dockerignore", at_most(0.3), 9,
        lambda engine, _: build(engine, ignored, "--no-cache"), both,
    )  # fmt: skip


def _copy(engine: Engine, context: Path) -> float:
    settle(path for path in context.rglob("*") if path.is_file())
    return build(engine, context, "--no-cache")


def _context(folder: Path, dockerfile: str) -> Path:
    folder.mkdir()
    (folder / "Dockerfile").write_text(dockerfile + "\n")
    return folder


def _fill(folder: Path, count: int, size: int) -> None:
    for number in range(count):
        part = folder / f"part{number // 100}"
        part.mkdir(exist_ok=True)
        (part / f"file{number}").write_text(f"{number}\n" * (size // len(f"{number}\n")))


def _fill_with_ballast(folder: Path) -> None:
    """Half in a folder that is left out as a whole, half in files that are found one by one."""
    data = bytes(range(256)) * 4096
    (folder / "data").mkdir()
    for number in range(_IGNORED_BYTES // len(data)):
        place = folder / "data" if number % 2 else folder
        (place / f"{number}.bin").write_bytes(data)


def _stages(context: Path) -> Build:
    lines = []
    for number in range(_STAGES):
        lines += [f"FROM busybox AS s{number}"]
        lines += [f"RUN sleep {_STAGE_SECONDS} && echo {number} > /made"]
    lines += ["FROM busybox", *(f"COPY --from=s{n} /made /made{n}" for n in range(_STAGES))]
    _context(context, "\n".join(lines))
    return lambda engine, _: build(engine, context, "--no-cache")


def _rebuild_row(table: Table, both: tuple[Engine, Engine], context: Path) -> None:
    """The Python application of the examples, without the mounts that the peer has not."""
    from tests.support.bases import make_debian

    shutil.copytree(_APPLICATION, context)
    dockerfile, source = context / "Dockerfile", context / "app.py"
    dockerfile.write_text(_MOUNT.sub("", dockerfile.read_text()))
    text = source.read_text()
    root = make_debian(context.parent)
    for engine in both:
        engine.docker("import", str(root), "debian:bookworm")
        build(engine, context)

    def rebuild(engine: Engine, number: int) -> float:
        # A line that this engine has not seen.
        source.write_text(text.replace("hello", f"hello {engine.name} {number}"))
        return build(engine, context)

    table.row(
        "rebuild", "the Python application, a source line changed", at_most(0.5), 9, rebuild, both
    )
