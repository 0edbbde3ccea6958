"""Archives of ours in the hands of skopeo, podman and a genuine engine, and theirs in ours."""

from __future__ import annotations

import json
import random
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.busybox import busybox_tar
from tests.support.containers import Containers, needs_containers, private_containers
from tests.support.daemon import PrivateDaemon
from tests.support.dockerd import GenuineDockerd
from tests.support.registries import GenuineRegistry, genuine_registry
from tests.support.served import tar_of

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not GenuineDockerd.is_installed(), reason="dockerd is not installed"),
    pytest.mark.skipif(
        not GenuineRegistry.is_installed(), reason="docker-registry is not installed"
    ),
    needs_containers,
]
FORMS = ("", "docker", "oci")


@dataclass(frozen=True, slots=True)
class World:
    """Ours has app:1 and tool:1 with a layer in common, theirs busybox."""

    daemon: PrivateDaemon
    engine: GenuineDockerd
    registry: str
    containers: Containers

    def image_id(self, name: str) -> str:
        return self.daemon.docker("inspect", "-f", "{{.Id}}", name).stdout.decode().strip()

    def save(self, path: Path, *names: str, form: str = "") -> None:
        query = "&".join(f"names={name}" for name in names)
        status, archive = self.daemon.request("GET", f"/images/get?{query}&format={form}")
        assert status == 200, archive
        path.write_bytes(archive)

    def load(self, path: Path) -> list[str]:
        """What it says that it loaded."""
        shown = self.daemon.docker("load", "-i", str(path)).stdout.decode()
        return re.findall(r"^Loaded image(?: ID)?: (.*)$", shown, re.MULTILINE)

    def config(self, name: str) -> Any:
        return self.containers.look(name, "--config", "--raw")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("archives")
    (root / "ours").mkdir()
    daemon, engine = PrivateDaemon(root / "ours"), GenuineDockerd(root)
    with (
        genuine_registry(root / "registry") as registry,
        private_containers(root / "containers") as containers,
    ):
        try:
            daemon.start()
            daemon.import_busybox()
            engine.start()
            for name in ("app", "tool"):
                daemon.docker("run", "--name", name, "busybox", "sh", "-c", f"echo {name} >/name")
                daemon.docker("commit", "-c", "LABEL a=b", name, f"{name}:1")
                daemon.docker("rm", name)
            yield World(daemon, engine, registry.host, containers)
        finally:
            engine.close()
            daemon.close()


def archive_of(form: str, path: Path, name: str) -> str:
    """In skopeo's words."""
    return f"oci-archive:{path}" if form == "oci" else f"docker-archive:{path}:{name}"


# -- ours in theirs --------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_skopeo_reads_ours(world: World, tmp_path: Path, form: str) -> None:
    archive = tmp_path / "archive.tar"
    world.save(archive, "app:1", form=form)
    place = archive_of(form, archive, "app:1")
    found = world.containers.look(place)
    assert found["Labels"] == {"a": "b"} and len(found["Layers"]) == 2
    target = f"docker://{world.registry}/from-archive:{form or 'both'}"
    world.containers.copy(place, target)
    assert world.config(target) == world.config(place)
    world.daemon.docker("pull", target.removeprefix("docker://"))
    assert world.image_id(target.removeprefix("docker://")) == world.image_id("app:1")


def test_skopeo_reads_several_of_ours(world: World, tmp_path: Path) -> None:
    """One archive, from which each image is taken by its name and by its number."""
    archive = tmp_path / "archive.tar"
    world.save(archive, "app:1", "tool:1")
    listed = json.loads(world.containers.skopeo("list-tags", f"docker-archive:{archive}"))
    assert sorted(listed["Tags"]) == ["app:1", "tool:1"]
    for number, name in enumerate(("app", "tool")):
        named = world.config(f"docker-archive:{archive}:{name}:1")
        assert named == world.config(f"docker-archive:{archive}:@{number}")
        assert named == json.loads(_config_of(world, name))
        layout = tmp_path / name
        world.containers.copy(f"docker-archive:{archive}:{name}:1", f"oci:{layout}:1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app", "archive.tar", "tool"]


def _config_of(world: World, name: str) -> bytes:
    """Its own bytes, out of an archive."""
    status, archive = world.daemon.request("GET", f"/images/get?names={name}:1")
    assert status == 200
    member = f"blobs/sha256/{world.image_id(f'{name}:1').removeprefix('sha256:')}"
    path = world.containers.root / "config.tar"
    path.write_bytes(archive)
    with tarfile.open(path) as tar:
        file = tar.extractfile(member)
        assert file is not None
        return file.read()


@pytest.mark.parametrize("form", FORMS)
def test_podman_loads_ours(world: World, tmp_path: Path, form: str) -> None:
    archive, podman = tmp_path / "archive.tar", world.containers.podman
    world.save(archive, "app:1", form=form)
    shown = podman("load", "-i", str(archive))
    # What has no domain is podman's own, unless the layout's index gives the whole name.
    assert re.search("Loaded image: .*/app:1", shown)
    found = podman("images", "--no-trunc", "--format", "{{.ID}}")
    assert world.image_id("app:1") == found.strip()
    podman("rmi", "-af")
    pulled = podman("pull", "-q", archive_of(form, archive, "app:1")).strip()
    assert f"sha256:{pulled.splitlines()[-1]}" == world.image_id("app:1")
    podman("rmi", "-af")


def test_podman_loads_several_of_ours(world: World, tmp_path: Path) -> None:
    archive, podman = tmp_path / "archive.tar", world.containers.podman
    world.save(archive, "app:1", "tool:1")
    podman("load", "-i", str(archive))
    found = podman("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}")
    assert set(found.split()) == {
        *(world.image_id(name) for name in ("app:1", "tool:1")),
        *(f"localhost/{name}" for name in ("app:1", "tool:1")),
    }
    podman("rmi", "-af")


@pytest.mark.parametrize("form", ["", "docker"])
def test_a_genuine_engine_loads_ours(world: World, tmp_path: Path, form: str) -> None:
    """20.10, which knows nothing of OCI layouts: the ids are the same."""
    archive = tmp_path / "archive.tar"
    world.save(archive, "app:1", "tool:1", form=form)
    shown = world.engine.docker("load", "-i", str(archive)).decode()
    for name in ("app:1", "tool:1"):
        assert f"Loaded image: {name}" in shown
        there = world.engine.docker("inspect", "-f", "{{.Id}}", name).decode().strip()
        assert there == world.image_id(name)
        world.engine.docker("rmi", name)


# -- theirs in ours --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(world: World) -> Iterator[str]:
    """An image of theirs, in the registry; ours does not know it."""
    name = f"{world.registry}/theirs:1"
    tar = tar_of({"marker": b"theirs", "data": random.Random(9).randbytes(1 << 20)})
    world.engine.docker("import", "-c", 'CMD ["true"]', "-", name, stdin=tar)
    world.engine.docker("push", "-q", name)
    yield name
    world.engine.docker("rmi", name)


@pytest.fixture(scope="module")
def oci(world: World, made: str) -> tuple[str, str]:
    """The same in OCI's form, and its id: skopeo writes the config anew for that."""
    name = f"{world.registry}/theirs:oci"
    world.containers.copy(f"docker://{made}", f"docker://{name}", "--format", "oci")
    return name, str(world.containers.look(f"docker://{name}", "--raw")["config"]["digest"])


@pytest.fixture
def wanted(world: World, made: str) -> str:
    """The id that it must have here."""
    return world.engine.docker("inspect", "-f", "{{.Id}}", made).decode().strip()


@pytest.fixture(autouse=True)
def nothing_left(world: World) -> Iterator[None]:
    yield
    for image in world.daemon.request("GET", "/images/json")[1]:
        if not {"app:1", "tool:1", "busybox:latest"} & set(image["RepoTags"]):
            world.daemon.request("DELETE", f"/images/{image['Id']}?force=1")


def test_docker_archives_of_skopeo(world: World, made: str, wanted: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    more = ["--additional-tag", "docker.io/more/name:2", "--additional-tag", "localhost:5/x:3"]
    world.containers.copy(f"docker://{made}", f"docker-archive:{archive}:theirs:9", *more)
    assert sorted(world.load(archive)) == ["localhost:5/x:3", "more/name:2", "theirs:9"]
    assert {world.image_id(name) for name in ("theirs:9", "more/name:2")} == {wanted}


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_oci_archives_of_skopeo(
    world: World, oci: tuple[str, str], tmp_path: Path, compression: str
) -> None:
    """They keep their manifest, and are pushed with its digest to who has the blobs."""
    archive, layout = tmp_path / "archive.tar", tmp_path / "layout"
    flags = ["--dest-compress-format", compression, "--dest-compress"]
    remote = f"{world.registry}/oci:{compression}"
    world.containers.copy(f"docker://{oci[0]}", f"oci:{layout}:quay.io/an/image:7", *flags)
    world.containers.copy(f"oci:{layout}:quay.io/an/image:7", f"docker://{remote}")
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert world.containers.look(f"docker://{remote}")["Digest"] == entry["digest"]
    with tarfile.open(archive, "w") as tar:
        tar.add(layout, ".")
    assert world.load(archive) == ["quay.io/an/image:7"]
    assert world.image_id("quay.io/an/image:7") == oci[1]
    world.daemon.docker("tag", "quay.io/an/image:7", f"{remote}-again")
    shown = world.daemon.docker("push", f"{remote}-again").stdout.decode()
    assert f"digest: {entry['digest']}" in shown and "Layer already exists" in shown


def test_an_oci_archive_of_skopeo_without_a_name(
    world: World, oci: tuple[str, str], tmp_path: Path
) -> None:
    archive = tmp_path / "archive.tar"
    world.containers.copy(f"docker://{oci[0]}", f"oci-archive:{archive}")
    assert world.load(archive) == [oci[1]]


def test_an_oci_layout_of_several_images(
    world: World, oci: tuple[str, str], tmp_path: Path
) -> None:
    archive, layout = tmp_path / "archive.tar", tmp_path / "layout"
    ours = tmp_path / "ours.tar"
    world.save(ours, "app:1", form="oci")
    world.containers.copy(f"docker://{oci[0]}", f"oci:{layout}:reg.example/one:1")
    world.containers.copy(f"oci-archive:{ours}", f"oci:{layout}:reg.example/two:2")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(layout, "")
    assert world.load(archive) == ["reg.example/one:1", "reg.example/two:2"]
    assert world.image_id("reg.example/one:1") == oci[1]
    assert world.image_id("reg.example/two:2") == world.image_id("app:1")
    assert world.daemon.run("reg.example/two:2", "cat", "/name") == "app\n"


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_archives_of_podman(
    world: World, made: str, wanted: str, oci: tuple[str, str], tmp_path: Path, form: str
) -> None:
    archive, podman = tmp_path / "archive.tar", world.containers.podman
    name, image = oci if form == "oci-archive" else (made, wanted)
    podman("pull", "--tls-verify=false", name)
    podman("save", "--format", form, "-o", str(archive), name)
    assert world.load(archive) == [name]
    assert world.image_id(name) == image
    podman("rmi", "-af")


def test_an_archive_of_several_images_of_podman(
    world: World, made: str, wanted: str, tmp_path: Path
) -> None:
    archive, podman = tmp_path / "archive.tar", world.containers.podman
    root = tmp_path / "root.tar"
    root.write_bytes(busybox_tar())
    podman("pull", "--tls-verify=false", made)
    podman("tag", made, "reg.example/same:1")
    podman("import", "-c", "CMD true", str(root), "localhost/box:1")
    names = [made, "reg.example/same:1", "localhost/box:1"]
    podman("save", "--multi-image-archive", "-o", str(archive), *names)
    assert sorted(world.load(archive)) == sorted(names)
    assert world.image_id(made) == world.image_id("reg.example/same:1") == wanted
    box = podman("images", "--no-trunc", "--format", "{{.ID}}", "localhost/box:1").strip()
    assert world.image_id("localhost/box:1") == box
    assert world.daemon.run("localhost/box:1", "echo", "hi") == "hi\n"
    podman("rmi", "-af")


def test_an_archive_of_a_genuine_engine(
    world: World, made: str, wanted: str, tmp_path: Path
) -> None:
    """20.10 writes a folder a layer, and symbolic links to those that images share."""
    archive, engine = tmp_path / "archive.tar", world.engine
    engine.docker("run", "--name", "maker", "--network", "none", "busybox", "touch", "/x")
    engine.docker("commit", "maker", "child:1")
    engine.docker("rm", "maker")
    engine.docker("save", "-o", str(archive), "busybox", "child:1", made)
    assert sorted(world.load(archive)) == sorted(["busybox:latest", "child:1", made])
    assert world.image_id(made) == wanted
    for name in ("busybox", "child:1"):
        there = engine.docker("inspect", "-f", "{{.Id}}", name).decode().strip()
        assert world.image_id(name) == there
    engine.docker("rmi", "child:1")
    world.daemon.docker("rmi", "busybox")
    world.daemon.import_busybox()
