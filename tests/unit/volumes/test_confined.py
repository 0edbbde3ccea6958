"""A plugin in the engine's sandbox: where its volume was told to be it may put a symlink."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from estiba.model.errors import Internal
from estiba.store import Store
from estiba.store.events import EventBus
from estiba.volumes.backup import archive, describe
from estiba.volumes.clones import clone
from estiba.volumes.driver import DriverVolume, NoDrivers
from estiba.volumes.volumes import Volumes


class Driver:
    scope = "local"

    def __init__(self, place: Path) -> None:
        self.place = place

    def create(self, name: str, options: Mapping[str, str]) -> None: ...

    def remove(self, name: str) -> None: ...

    def mount(self, name: str, user: str) -> Path:
        return self.place

    def unmount(self, name: str, user: str) -> None: ...

    def path(self, name: str) -> str:
        return str(self.place)

    def get(self, name: str) -> DriverVolume:
        return DriverVolume(name)

    def list(self) -> list[DriverVolume]:
        return []


class Drivers(NoDrivers):
    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def find(self, name: str) -> Driver:
        return self.driver

    def is_confined(self, name: str) -> bool:
        return True


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[Volumes]:
    store = Store.open(tmp_path / "estiba.db", EventBus())
    place = tmp_path / "plugin/volumes/vol"
    place.mkdir(parents=True)
    volumes = Volumes(tmp_path / "volumes", store, drivers=Drivers(Driver(place)))
    volumes.start()
    volumes.create("vol", driver="test/vol:latest")
    yield volumes
    store.close()


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory of the host that the volume has become, by a symlink on the way."""
    host = tmp_path / "host"
    (host / "vol").mkdir(parents=True)
    (tmp_path / "plugin/volumes").rename(tmp_path / "plugin/aside")
    (tmp_path / "plugin/volumes").symlink_to(host)
    return host / "vol"


def test_nothing_of_an_image_is_copied_to_where_it_leads(
    volumes: Volumes, host: Path, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    (image / "dir").mkdir(parents=True)
    (image / "dir/file").touch()
    volumes.mount("vol", user="one")
    with pytest.raises(Internal, match="symbolic links"):
        volumes.fill("vol", image, "/dir")
    assert not list(host.iterdir())


def test_nothing_of_the_host_is_cloned_or_kept(volumes: Volumes, host: Path) -> None:
    (host / "secret").touch()
    with pytest.raises(OSError, match="symbolic links"):
        clone(volumes, "vol", "copy")
    with pytest.raises(OSError, match="symbolic links"):
        b"".join(archive(volumes, describe(volumes, "vol", plain=False)))
    assert not volumes.has("copy")


def test_without_a_link_all_of_it_works(volumes: Volumes, tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "dir").mkdir(parents=True)
    (image / "dir/file").write_text("kept")
    volumes.mount("vol", user="one")
    assert volumes.fill("vol", image, "/dir")
    clone(volumes, "vol", "copy")
    assert (volumes.path("copy") / "file").read_text() == "kept"
