"""Pulls, pushes, loads, saves, commits, creates, removals and prunes, all at the same time.

Whatever is there afterwards is whole, and when all is removed nothing stays.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.busybox import busybox_tar
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.registry import OwnRegistry
from tests.support.scripted import scripted
from tests.support.served import Served, tar_of

pytestmark = pytest.mark.e2e

LASTS_S = 12.0
TAR = {"Content-Type": "application/x-tar"}
# What a race may rightly be answered with: somebody else was quicker.
RIGHTLY = (
    "No such image",
    "No such container",
    "does not exist locally",
    "is using its referenced image",
    "is being used by running container",
    "must be forced",
)


class Worker(threading.Thread):
    """Does as it likes until the time is over; keeps what it was answered that is wrong."""

    def __init__(self, seed: int, daemon: PrivateDaemon, source: str, target: str) -> None:
        super().__init__(daemon=True)
        self.random = random.Random(seed)
        self.engine, self.source, self.target = daemon, source, target
        self.mark = f"w{seed}"
        self.wrong: list[str] = []
        self.done = 0
        self.until = time.monotonic() + LASTS_S

    def run(self) -> None:
        actions: list[Callable[[], None]] = [
            self.pull,
            self.pull,
            self.leave,
            self.push,
            self.there_and_back,
            self.commit,
            self.create,
            self.remove,
            self.remove,
            self.prune,
        ]
        while time.monotonic() < self.until:
            try:
                self.random.choice(actions)()
            except http.client.HTTPException:
                pass  # the answer's end is missing, as where an image went while it was saved
            except OSError as error:
                self.wrong.append(f"after {self.done}: {error!r}")
                return
            self.done += 1

    def ask(self, method: str, path: str, body: Any = None, headers: Any = None) -> bytes:
        status, answer = self.engine.request(method, path, body, headers)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        is_error = status >= 400 or b'"errorDetail"' in data[-2000:]
        if is_error and not any(words.encode() in data for words in RIGHTLY):
            self.wrong.append(f"{method} {path}: {status} {data[-300:]!r}")
        return b"" if is_error else data

    @property
    def name(self) -> str:
        return f"{self.source}/x:{self.random.randrange(3)}"

    def pull(self) -> None:
        self.ask("POST", f"/images/create?fromImage={self.name}")

    def leave(self) -> None:
        """A client that goes away in the middle."""
        from tests.support.daemon import UnixConnection

        connection = UnixConnection(self.engine.socket)
        connection.request("POST", f"/images/create?fromImage={self.name}")
        connection.sock.settimeout(self.random.random() / 20)
        with contextlib.suppress(OSError):
            connection.sock.recv(100)
        connection.close()

    def push(self) -> None:
        tag = self.random.randrange(3)
        name = f"{self.target}/y"
        if self.ask("POST", f"/images/{self.name}/tag?repo={name}&tag={tag}") is not None:
            self.ask("POST", f"/images/{name}/push?tag={tag}", None, {"X-Registry-Auth": "e30="})

    def there_and_back(self) -> None:
        saved = self.ask("GET", f"/images/{self.name}/get")
        if saved.startswith(b"blobs/"):
            self.ask("POST", "/images/load", saved, TAR)

    def create(self) -> None:
        made = self.ask("POST", "/containers/create", {"Image": self.name, "Cmd": ["true"]})
        if made:
            container = json.loads(made)["Id"]
            self.ask("GET", f"/containers/{container}/archive?path=/etc-x")
            self.ask("DELETE", f"/containers/{container}?force=1")

    def commit(self) -> None:
        made = self.ask("POST", "/containers/create", {"Image": self.name, "Cmd": ["true"]})
        if made:
            container = json.loads(made)["Id"]
            self.ask("POST", f"/commit?container={container}&repo=made&tag={self.mark}")
            self.ask("DELETE", f"/containers/{container}?force=1")

    def remove(self) -> None:
        name = self.random.choice([self.name, f"{self.target}/y:1", f"made:{self.mark}"])
        self.ask("DELETE", f"/images/{name}?force={self.random.randrange(2)}")

    def prune(self) -> None:
        filters = urllib.parse.quote(self.random.choice(["{}", '{"dangling":["false"]}']))
        self.ask("POST", f"/images/prune?filters={filters}")


@pytest.fixture
def source() -> Iterator[str]:
    served = Served()
    big = tar_of({"big": random.Random(4).randbytes(2 << 20)})
    for tag in range(3):
        layers = [busybox_tar(), tar_of({f"own{tag}": b"1" * 9000}), tar_of({"etc-x": b"x"}), big]
        served.image(layers, tag=str(tag))
    with scripted(served) as server:
        yield server.host


def leftovers(daemon: PrivateDaemon) -> list[str]:
    root = daemon.data_root / "images"
    folders = ("layers", "partial", "blobs/sha256", "ingest", "../tmp", "../snapshots/active")
    return [str(path.relative_to(root)) for name in folders for path in (root / name).iterdir()]


def test_everything_at_once(
    make_daemon: Callable[..., PrivateDaemon], source: str, tmp_path: Path
) -> None:
    daemon = make_daemon()
    daemon.start()
    with OwnRegistry(tmp_path / "registry") as registry:
        workers = [Worker(seed, daemon, source, registry.host) for seed in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert [wrong for worker in workers for wrong in worker.wrong] == []
        assert all(worker.done for worker in workers)
    for image in daemon.request("GET", "/images/json?all=1")[1]:
        status, saved = daemon.request("GET", f"/images/{image['Id']}/get")
        assert status == 200 and saved.endswith(bytes(1024)), saved[-200:]
    for container in daemon.request("GET", "/containers/json?all=1")[1]:
        daemon.request("DELETE", f"/containers/{container['Id']}?force=1")

    def is_empty() -> bool:
        """A pull that was left on its last step may still end well."""
        images = daemon.request("GET", "/images/json?all=1")[1]
        for image in images:
            daemon.request("DELETE", f"/images/{image['Id']}?force=1")
        return not images and not leftovers(daemon)

    with contextlib.suppress(AssertionError):
        wait_until(is_empty, what="the store to be empty")
    assert leftovers(daemon) == []
    log = daemon.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 300 :][:4000]
