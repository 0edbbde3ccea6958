"""The table of images and registries: pull, push, save and load beside a genuine Docker Engine,
our registry beside Debian's docker-registry."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from pathlib import Path

from bench import material, transfers
from bench.peers import Engine, docker_engine, estiba
from bench.registries import Registry, docker_registry, our_registry
from bench.rows import Table, at_least, at_most, bytes_at_most

_BIN = Path(sys.executable).parent
NAME = "images"
COLUMNS = ("estiba", "Docker Engine 20.10, docker-registry 2.8")
_BLOB_BYTES = 512 << 20
_BLOBS = 3
_SMALL = "small/image"


def measure(table: Table, run: Path) -> dict[str, str]:
    """Fills the table; what there is to say about the peers."""
    table.header()
    if table.wants("load", "push", "save", "pull", "repull", "layers", "growth"):
        _engine_rows(table, run)
    if table.wants("upload", "download", "by-tag", "by-digest", "memory"):
        _registry_rows(table, run)
    return {
        "docker": "Docker Engine 20.10 (Debian's docker.io), the same docker client for both",
        "registry": "docker-registry 2.8.2 (Debian's), over plain HTTP on loopback",
    }


def _engine_rows(table: Table, run: Path) -> None:
    source, target = material.content(run), docker_registry(run / "target")
    ours, docker = estiba(_BIN / "estibad", run), docker_engine(run)
    with contextlib.ExitStack() as stack:
        for part in (source, target, ours, docker):
            stack.callback(part.close)
            part.start()
        # First, because memory that other work left behind would not grow again.
        table.row(
            "growth", "memory of the daemon during a pull of 2 GB", bytes_at_most(100e6), 1,
            lambda engine, _: transfers.pull_growth(engine, f"{source.address}/{material.BIG}"),
            (ours, docker), unit="B",
        )  # fmt: skip
        _local_rows(table, (ours, docker), target)
        _pull_rows(table, (ours, docker), source)


def _local_rows(table: Table, both: tuple[Engine, Engine], target: Registry) -> None:
    """Load, save and push, of images that no engine has from a registry."""
    rounds = material.ROUNDS
    if table.wants("save", "push") and not table.wants("load"):
        for engine in both:
            for number in range(rounds):
                transfers.load(engine, material.saved(number))
    table.row(
        "load", "load of a Debian image, 200 MB", at_most(0.5), rounds,
        lambda engine, number: transfers.load(engine, material.saved(number)), both,
    )  # fmt: skip
    table.row(
        "save", "save of it", at_most(0.7), 5,
        lambda engine, _: transfers.save(engine, "debian:0"), both,
    )  # fmt: skip
    table.row(
        "push", "push of it to an empty repository", at_most(0.7), rounds,
        lambda engine, number: transfers.push(engine, target, number), both,
    )  # fmt: skip


def _pull_rows(table: Table, both: tuple[Engine, Engine], source: Registry) -> None:
    first = material.ROUNDS
    table.row(
        "pull", "pull of a Debian image, 200 MB, 6,700 files", at_most(0.5), material.ROUNDS,
        lambda engine, number: transfers.pull_debian(engine, source, first + number), both,
    )  # fmt: skip
    if table.wants("repull") and not table.wants("pull"):
        for engine in both:
            transfers.pull_debian(engine, source, first)
    table.row(
        "repull", "pull of it again when up to date", at_most(0.7), 31,
        lambda engine, _: transfers.pull(engine, f"{source.address}/debian:{first}"), both,
    )  # fmt: skip
    table.row(
        "layers", f"pull of {material.LAYERS} small layers", at_most(0.5), 9,
        lambda engine, _: transfers.pull_anew(engine, f"{source.address}/{material.SMALL}"), both,
    )  # fmt: skip


def _registry_rows(table: Table, run: Path) -> None:
    ours = our_registry(run / "our-registry")
    theirs = docker_registry(run / "docker-registry")
    with contextlib.ExitStack() as stack:
        for registry in (ours, theirs):
            stack.callback(registry.close)
        theirs.start()
        try:
            ours.start()
        except RuntimeError as error:
            # Its rows fail one by one.
            print(error)
        blob = run / "blob"
        _blob_rows(table, (ours, theirs), blob)
        _manifest_rows(table, (ours, theirs))
        if table.wants("memory"):
            os.truncate(blob, 0)
            os.truncate(blob, material.BIG_BYTES)
            digest = _digest(blob)
            table.row(
                "memory", "memory of the registry during a push of 2 GB", bytes_at_most(150e6), 1,
                lambda registry, _: transfers.upload_memory(registry, blob, digest),
                (ours, theirs), unit="B",
            )  # fmt: skip


def _blob_rows(table: Table, both: tuple[Registry, Registry], blob: Path) -> None:
    """Each round has a blob of its own, so that no registry has it already."""
    digests = []
    blob.write_bytes(os.urandom(_BLOB_BYTES))
    for number in range(_BLOBS):
        _number(blob, number)
        digests.append(_digest(blob))

    def upload(registry: Registry, number: int) -> float:
        _number(blob, number)
        return transfers.upload(registry, blob, digests[number])

    if not table.wants("upload", "download"):
        return
    table.row(
        "upload", "upload of a blob of 512 MB", at_least(1.0), _BLOBS, upload, both, unit="B/s"
    )
    if not table.wants("upload"):
        for registry in both:
            with contextlib.suppress(RuntimeError):
                upload(registry, 0)
    table.row(
        "download", "download of it", at_least(1.0), 9,
        lambda registry, _: transfers.download(registry, _BLOB_BYTES, digests[0]), both,
        unit="B/s",
    )  # fmt: skip


def _manifest_rows(table: Table, both: tuple[Registry, Registry]) -> None:
    def rate(registry: Registry, reference: str) -> float:
        return transfers.manifests(registry, f"{_SMALL}/manifests/{reference}")

    if not table.wants("by-tag", "by-digest"):
        return
    for registry in both:
        with contextlib.suppress(OSError, RuntimeError):
            digest = material.put_small(registry, _SMALL, "latest")
    table.row(
        "by-tag", "GET of a manifest by tag, 4 connections", at_least(0.7), 3,
        lambda registry, _: rate(registry, "latest"), both, unit="1/s",
    )  # fmt: skip
    table.row(
        "by-digest", "GET of a manifest by digest, 4 connections", at_least(0.7), 3,
        lambda registry, _: rate(registry, digest), both, unit="1/s",
    )  # fmt: skip


def _number(blob: Path, number: int) -> None:
    """Makes the blob another one."""
    with blob.open("r+b") as file:
        file.write(number.to_bytes(8, "big"))


def _digest(blob: Path) -> str:
    with blob.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
