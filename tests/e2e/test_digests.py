"""Images that go from registry to registry and through archives, and stay what they were.

What a registry gives for a tag is compared as bytes: with skopeo, which asks it itself.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.containers import needs_containers
from tests.support.daemon import needs_docker
from tests.support.dockerd import GenuineDockerd
from tests.support.registries import GenuineRegistry, genuine_registry
from tests.support.registry import OwnRegistry
from tests.support.served import tar_of
from tests.support.travel import NEW, Travel, travel

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not GenuineDockerd.is_installed(), reason="dockerd is not installed"),
    pytest.mark.skipif(
        not GenuineRegistry.is_installed(), reason="docker-registry is not installed"
    ),
    needs_containers,
    needs_docker(28),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Travel]:
    with travel(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_known(world: Travel) -> Iterator[None]:
    """After each test the daemon knows nothing but busybox."""
    yield
    for image in world.daemon.request("GET", "/images/json")[1]:
        if "busybox:latest" not in image["RepoTags"]:
            world.daemon.request("DELETE", f"/images/{image['Id']}?force=1")


# -- from registry to registry ---------------------------------------------------------------


def test_the_whole_way_round(world: Travel, tmp_path: Path) -> None:
    """docker-registry, us, docker-registry, our registry, us, skopeo, an archive, us."""
    first, second = f"{world.first}/round/trip:1", f"{world.second}/other/name:2"
    made = world.genuine(first, "whole way")
    assert world.pull(first) == made
    image = world.image_id(first)
    assert f"2: digest: {made} size:" in world.push(first, second)
    assert world.digest(second) == made
    world.daemon.docker("rmi", first, second)
    with OwnRegistry(tmp_path / "registry") as registry:
        own = f"{registry.host}/third:3"
        assert world.pull(second) == made
        world.push(second, own)
        assert world.digest(own) == made
        world.daemon.docker("rmi", second, own)
        assert world.pull(own) == made
        world.daemon.docker("rmi", own)
        archive = tmp_path / "archive.tar"
        world.containers.copy(f"docker://{own}", f"docker-archive:{archive}:fourth:4")
    assert b"Loaded image: fourth:4" in world.daemon.docker("load", "-i", str(archive)).stdout
    assert world.image_id("fourth:4") == image
    # The archive had the layers as plain tar: nothing is left of Go's gzip.
    last = f"{world.second}/last:5"
    world.push("fourth:4", last)
    assert world.containers.look(f"docker://{last}", "--config") == world.containers.look(
        f"docker://{second}", "--config"
    )


def test_an_image_of_ours_is_the_same_everywhere(world: Travel, tmp_path: Path) -> None:
    """Its blobs are made again, so it needs no registry that it came from."""
    daemon = world.daemon
    daemon.docker("run", "--name", "maker", "busybox", "sh", "-c", "seq 100000 >/data")
    daemon.docker("commit", "maker", "made:1")
    daemon.docker("rm", "maker")
    with genuine_registry(tmp_path / "gone") as gone:
        name = f"{gone.host}/made:1"
        world.push("made:1", name)
        made = world.digest(name)
        daemon.docker("rmi", name, "made:1")
        assert world.pull(name) == made
    second = f"{world.second}/made:1"
    assert f"digest: {made}" in world.push(name, second)
    assert world.digest(second) == made
    archive = tmp_path / "layout.tar"
    archive.write_bytes(daemon.docker("save", second).stdout)
    daemon.docker("rmi", name, second)
    daemon.docker("load", "-i", str(archive))
    third = f"{world.first}/made:again"
    assert f"digest: {made}" in world.push(second, third)
    assert daemon.run(third, "tail", "-n1", "/data") == "100000\n"


def test_another_repository_of_the_registry(world: Travel) -> None:
    """Blobs that cannot be made again are mounted."""
    source, target = f"{world.first}/mount/from:1", f"{world.first}/mount/to:1"
    made = world.genuine(source, "mounted")
    world.pull(source)
    shown = world.push(source, target)
    assert "Mounted from mount/from" in shown and f"digest: {made}" in shown
    assert world.digest(target) == made
    assert "Layer already exists" in world.push(source, target)


def test_blobs_are_fetched_through_while_their_registry_is_there(
    world: Travel, tmp_path: Path
) -> None:
    with genuine_registry(tmp_path / "there") as there:
        name, target = f"{there.host}/app:1", f"{world.second}/through:1"
        made = world.genuine(name, "fetched through")
        world.pull(name)
        shown = world.push(name, target)
        assert f"digest: {made}" in shown and NEW not in shown
    assert world.digest(target) == made


def test_without_it_there_is_a_new_manifest(world: Travel, tmp_path: Path) -> None:
    """The image stays the same one, and what was pushed can be pushed on for ever."""
    with genuine_registry(tmp_path / "gone") as gone:
        name = f"{gone.host}/app:1"
        made = world.genuine(name, "gone")
        world.pull(name)
    image, target = world.image_id(name), f"{world.second}/gone:1"
    shown = world.push(name, target)
    assert NEW in shown
    pushed = world.digest(target)
    assert pushed != made
    world.daemon.docker("rmi", name, target)
    assert world.pull(target) == pushed
    assert world.image_id(target) == image
    assert f"digest: {pushed}" in world.push(target, f"{world.first}/gone:2")


def test_a_private_registry(world: Travel, tmp_path: Path) -> None:
    """Its credentials are for pushes to it alone: elsewhere its image is a new manifest."""
    with genuine_registry(tmp_path / "private", users={"joe": "s3cret"}) as private:
        login = ["login", "-u", "joe", "-p", "s3cret", private.host]
        world.engine.docker(*login)
        name = f"{private.host}/x:1"
        tar = tar_of({"data": random.Random("private").randbytes(1 << 20)})
        world.engine.docker("import", "-", name, stdin=tar)
        world.engine.docker("push", "-q", name)
        world.engine.docker("rmi", name)
        world.daemon.docker(*login)
        made = world.pull(name)
        assert NEW in world.push(name, f"{world.second}/private:1")
        # The form that came from this registry is still the first choice there.
        shown = world.push(name, f"{private.host}/y:1")
        assert "Mounted from x" in shown and f"digest: {made}" in shown
        world.daemon.docker("logout", private.host)
