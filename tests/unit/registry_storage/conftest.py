"""Both drivers, each with a root of its own; what is tested here holds for both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.s3server import S3Server, s3_server

from estiba.model.digest import Digest
from estiba.registry.storage import keys
from estiba.registry.storage.file_driver import FileDriver
from estiba.registry.storage.ports import Driver
from estiba.registry.storage.s3_driver import S3Driver
from estiba.registry.storage.store import Store


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


MakeDriver = Callable[[], Driver]


@pytest.fixture(params=["file", "s3"])
def make_driver(
    request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server
) -> Iterator[MakeDriver]:
    """Each call is the next start of a process, or with S3 another instance, on one root."""
    made: list[Driver] = []
    if request.param == "file":

        def make() -> Driver:
            for driver in made:
                driver.close()
            made.append(FileDriver(tmp_path / "root"))
            return made[-1]
    else:
        settings = s3.settings(prefix="/some/where")

        def make() -> Driver:
            made.append(S3Driver(settings))
            return made[-1]

    yield make
    for driver in made:
        driver.close()


@pytest.fixture
def driver(make_driver: MakeDriver) -> Driver:
    return make_driver()


HOUR = 3600.0


@dataclass
class Clock:
    """The time of day, moved by the test: nothing needs to wait for a grace period."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(driver: Driver, clock: Clock) -> Store:
    return Store(driver, grace=10 * HOUR, clock=clock)


def stored(store: Store) -> set[Digest]:
    return {
        f"sha256:{key.split('/')[-2]}"
        for key, _ in store.driver.walk(keys.BLOBS)
    }  # fmt: skip
