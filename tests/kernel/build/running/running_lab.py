"""Steps on a tree of busybox, over an overlay whose upper directory the test looks into."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.support.busybox import busybox_tar

from estiba.build.ports import RunEnd, RunRequest
from estiba.build.running.cache_mounts import CacheMounts
from estiba.build.running.executor import KernelExecutor
from estiba.build.running.request import Defaults
from estiba.build.running.run import Engine
from estiba.build.running.sandbox import Places
from estiba.kernel.cgroup import Hierarchies
from estiba.kernel.mounts import mount_overlay, unmount
from estiba.kernel.trees import remove_tree
from estiba.model.ids import new_id
from estiba.network.networks import Networks
from estiba.network.plan import NetworkConfig
from estiba.runtime.crun import CrunState
from estiba.runtime.oci import OciRuntime
from estiba.security.profiles.profile import read_host
from estiba.store import Store
from estiba.store.events import EventBus

STDOUT, STDERR = 1, 2


@dataclass
class Tree:
    """A step's tree, mounted."""

    root: Path
    upper: Path

    def changes(self) -> list[str]:
        return sorted(str(path.relative_to(self.upper)) for path in self.upper.rglob("*"))


@dataclass
class Told:
    """What a step wrote, by stream."""

    chunks: list[tuple[int, bytes]] = field(default_factory=list)
    _spoke: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, stream: int, data: bytes) -> None:
        self.chunks.append((stream, data))
        self._spoke.set()

    async def first(self) -> None:
        """Waits until it has written something."""
        await self.until("")

    async def until(self, text: str) -> None:
        """Waits until it has written `text`."""
        async with asyncio.timeout(20):
            while not self.chunks or text not in self.text():
                self._spoke.clear()
                await self._spoke.wait()

    def text(self, stream: int = STDOUT) -> str:
        return b"".join(data for number, data in self.chunks if number == stream).decode()


@dataclass
class Lab:
    """One executor, and trees for it."""

    base: Path
    lower: Path
    engine: Engine
    caches: CacheMounts
    executor: KernelExecutor
    trees: int = 0

    @contextmanager
    def tree(self, *layers: Path) -> Iterator[Tree]:
        """`layers` lie over busybox, bottom first."""
        self.trees += 1
        place = self.base / "trees" / str(self.trees)
        for name in ("root", "upper", "work"):
            (place / name).mkdir(parents=True)
        lower = [*reversed(layers), self.lower]
        mount_overlay(place / "root", lower, upper=place / "upper", work=place / "work")
        try:
            yield Tree(place / "root", place / "upper")
        finally:
            unmount(place / "root")

    def request(self, tree: Tree, *argv: str, **wanted: Any) -> RunRequest:
        given = {"network": "none", "env": ("PATH=/bin",), **wanted}
        return RunRequest(id=new_id(), root=tree.root, argv=argv, **given)

    async def run(self, tree: Tree, *argv: str, **wanted: Any) -> tuple[RunEnd, Told]:
        told = Told()
        end = await self.executor.run(self.request(tree, *argv, **wanted), told)
        return end, told

    async def sh(self, script: str, *layers: Path, **wanted: Any) -> str:
        """What a script says on a fresh tree; it has to succeed."""
        with self.tree(*layers) as tree:
            end, told = await self.run(tree, "/bin/sh", "-ec", script, **wanted)
        assert end.code == 0, told.text() + told.text(STDERR)
        return told.text()

    def again(self, **changes: Any) -> KernelExecutor:
        """Another engine's executor over the same places."""
        return KernelExecutor(
            replace(self.engine, **changes), CacheMounts(self.base / "data/build")
        )

    def leftovers(self) -> list[str]:
        """Everything below the executor's places but its caches."""
        runs, scratches = self.engine.places.runs, self.engine.places.scratches
        found = [path for each in (runs, scratches) if each.exists() for path in each.iterdir()]
        netns = self.engine.networks.sandbox_path("any").parent
        found += list(netns.iterdir()) if netns.exists() else []
        for parent in self.engine.hierarchies.directories(self.engine.defaults.cgroup_parent):
            found += [path for path in parent.glob("*") if path.is_dir()]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [Path(line.split()[4]) for line in mounts if f" {runs}" in line]
        return [str(path) for path in found]


def make_engine(base: Path, networks: Networks, *, parent: str, runtime: str = "crun") -> Engine:
    path = shutil.which(runtime)
    assert path, f"{runtime} is not installed"
    hierarchies = Hierarchies.detect()
    shortcut = CrunState(base / "unused", hierarchies) if runtime == "crun" else None
    return Engine(
        places=Places(base / "exec", base / "data"),
        defaults=Defaults(cgroup_parent=parent),
        runtime=OciRuntime(runtime, Path(path), base / "unused", shortcut=shortcut),
        networks=networks,
        hierarchies=hierarchies,
        host=read_host(),
        cpus=os.cpu_count() or 1,
        memory_nodes="0",
    )


def make_lab(base: Path, lower: Path, engine: Engine) -> Lab:
    caches = CacheMounts(base / "data/build")
    caches.open()
    return Lab(base, lower, engine, caches, KernelExecutor(engine, caches))


def make_networks(base: Path, bridge: str) -> Networks:
    """As an engine does at its start; `base` keeps the records."""
    store = Store.open(base / "db", EventBus())
    made = Networks(NetworkConfig(netns_root=base / "netns", bridge=bridge), store)
    made.start()
    made.restore([])
    made.sweep([])
    return made


def remove_networks(networks: Networks) -> None:
    networks.sweep([])
    networks.drain()
    networks.remove_all_traces()


def unpack_busybox(target: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as tar:
        tar.extractall(target)


def layer(path: Path, **files: str) -> Path:
    """A layer of small files; `__` in a name is a slash, `->` before a content makes a symlink."""
    path.mkdir(exist_ok=True)
    path.chmod(0o755)
    for name, text in files.items():
        target = path / name.replace("__", "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("->"):
            target.symlink_to(text[2:])
        else:
            target.write_text(text)
    return path


def descriptors() -> Counter[str]:
    """What is open, by kind; sockets of the networks come and go."""
    kinds: Counter[str] = Counter()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            kinds[os.readlink(f"/proc/self/fd/{fd}").partition(":")[0]] += 1
    del kinds["socket"]
    return kinds


def discard(path: Path) -> None:
    remove_tree(path)


def tell(_stream: int, data: bytes) -> None:
    print(data.decode(), end="", flush=True)
