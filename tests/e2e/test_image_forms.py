"""Media types, compressions and platforms of images that travel, and what they take on disk."""

from __future__ import annotations

import gzip
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.busybox import busybox_tar, standin_tar
from tests.support.containers import needs_containers
from tests.support.daemon import needs_docker
from tests.support.dockerd import GenuineDockerd
from tests.support.registries import GenuineRegistry
from tests.support.registry import OwnRegistry
from tests.support.served import OCI_INDEX, OCI_MANIFEST, tar_of
from tests.support.travel import FORMS, NEW, Travel, own_image, travel

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not GenuineDockerd.is_installed(), reason="dockerd is not installed"),
    pytest.mark.skipif(
        not GenuineRegistry.is_installed(), reason="docker-registry is not installed"
    ),
    needs_containers,
    needs_docker(28),
]
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


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


# -- forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["v2s2", "oci"])
def test_media_types_stay(world: Travel, kind: str) -> None:
    docker, name = f"{world.first}/kinds/docker:1", f"{world.first}/kinds/{kind}:1"
    world.genuine(docker, "kinds")
    world.containers.copy(f"docker://{docker}", f"docker://{name}", "--format", kind)
    wanted = {"v2s2": DOCKER_MANIFEST, "oci": OCI_MANIFEST}[kind]
    assert world.media_type(name) == wanted
    made, target = world.pull(name), f"{world.second}/kinds/{kind}:1"
    world.push(name, target)
    assert world.digest(target) == made == world.digest(name)
    assert world.media_type(target) == wanted


@pytest.mark.parametrize("form", FORMS)
def test_compressions(world: Travel, tmp_path: Path, form: str) -> None:
    """What can be made again needs no registry; what cannot comes from the one that has it."""
    can_be_made = FORMS[form][2]
    numbers = "".join(f"{number}\n" for number in range(200_000))
    tars = [standin_tar(), tar_of({"numbers": numbers.encode()})]
    target = f"{world.second}/{form.lower()}"
    with OwnRegistry(tmp_path / "registry") as registry:
        name = f"{registry.host}/x:1"
        made = own_image(registry, "x", tars, form)
        assert world.pull(name) == made
        if not can_be_made:
            assert NEW not in world.push(name, f"{target}/through:1")
            assert world.digest(f"{target}/through:1") == made
            # Forgotten, or the second registry would give the blobs.
            world.daemon.docker("rmi", name, f"{target}/through:1")
            world.pull(name)
    shown = world.push(name, f"{target}/alone:1")
    assert (NEW in shown) is not can_be_made
    assert (world.digest(f"{target}/alone:1") == made) is can_be_made
    assert world.daemon.run(f"{target}/alone:1", "tail", "-n1", "/numbers") == "199999\n"


def test_a_layer_that_was_here_already(world: Travel, tmp_path: Path) -> None:
    """Its blob was never seen here, but the registry that it would have come from has it."""
    with OwnRegistry(tmp_path / "registry") as registry:
        name, target = f"{registry.host}/x:1", f"{world.second}/already:1"
        made = own_image(registry, "x", [busybox_tar(), tar_of({"more": b"1"})], "pigz")
        assert world.pull(name) == made
        assert NEW not in world.push(name, target)
        assert world.digest(target) == made


def test_a_lie_about_a_layer_stays_with_its_image(world: Travel, tmp_path: Path) -> None:
    """An image claims that some blob is a layer that is here: no other image goes with it."""
    with OwnRegistry(tmp_path / "registry") as registry:
        own_image(registry, "x", [busybox_tar()], "pigz")
        body = registry.ask("GET", "/v2/x/manifests/1").json
        lie = gzip.compress(tar_of({"evil": b""}))
        body["layers"][0] |= {"digest": registry.push_blob("x", lie), "size": len(lie)}
        registry.push_manifest("x", body, "1")
        world.pull(f"{registry.host}/x:1")
        world.push(f"{registry.host}/x:1", f"{registry.host}/x:2")
        world.push("busybox", f"{registry.host}/x:3")
        sent = registry.ask("GET", "/v2/x/manifests/3").json
        assert body["layers"][0]["digest"] not in [one["digest"] for one in sent["layers"]]


@pytest.mark.parametrize("form", ["zstd", "zstd:chunked"])
def test_zstd_of_podman(world: Travel, tmp_path: Path, form: str) -> None:
    """In one frame, and in many with a table of contents that means nothing to us."""
    tag, podman = form.replace(":", "-"), world.containers.podman
    tar = tar_of({f"d{n}/f": random.Random(n).randbytes(999 * n) for n in range(60)} | {tag: b""})
    # Chunked layers of podman 4.3 lose what follows the two blocks that end a tar.
    content = tar.rstrip(b"\0")
    (tmp_path / "root.tar").write_bytes(content + bytes(-len(content) % 512 + 1024))
    name, target = f"{world.first}/podman:{tag}", f"{world.second}/podman:{tag}"
    podman("import", str(tmp_path / "root.tar"), name)
    push = ["push", "--tls-verify=false", "--format", "oci", "--compression-format", form]
    podman(*push, name, name)
    podman("rmi", name)
    (layer,) = world.containers.look(f"docker://{name}", "--raw")["layers"]
    assert layer["mediaType"].endswith("+zstd")
    made = world.pull(name)
    world.push(name, target)
    assert world.digest(target) == made == world.digest(name)


@pytest.mark.parametrize("kind", ["v2s2", "oci"])
def test_an_image_of_two_platforms_keeps_its_index(world: Travel, kind: str) -> None:
    top = f"{world.first}/platforms/{kind}:all"
    client = world.daemon
    parts = {arch: f"{world.first}/platforms/{kind}:{arch}" for arch in ("amd64", "arm64")}
    for arch, part in parts.items():
        world.genuine(part, f"{kind} {arch}")
    client.docker("manifest", "create", "--insecure", top, *parts.values())
    for arch, part in parts.items():
        client.docker("manifest", "annotate", "--arch", arch, top, part)
    client.docker("manifest", "push", "--insecure", "--purge", top)
    if kind == "oci":
        source, top = top, f"{world.first}/platforms/converted:all"
        world.containers.copy(f"docker://{source}", f"docker://{top}", "--all", "--format", "oci")
    assert world.media_type(top) == {"v2s2": DOCKER_LIST, "oci": OCI_INDEX}[kind]
    made = world.digest(top)
    for arch in parts:
        assert world.pull(top, "--platform", f"linux/{arch}") == made
    target = f"{world.second}/platforms/{kind}:all"
    assert f"digest: {made}" in world.push(top, target)
    assert world.digest(target) == made
    world.containers.copy(
        f"docker://{target}", f"dir:{world.root}/folder-{kind}", "--all", "--preserve-digests"
    )


# -- one copy --------------------------------------------------------------------------------


def test_one_copy_on_disk(world: Travel, tmp_path: Path) -> None:
    """A tenth more than its files take, and no more after pushing, saving and pulling again."""
    tar = debian_like()
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-x", "-C", unpacked], input=tar, check=True)
    images = world.daemon.data_root / "images"
    before = used(images)
    with OwnRegistry(tmp_path / "registry") as registry:
        name = f"{registry.host}/debian:1"
        own_image(registry, "debian", [tar], "pigz")
        world.pull(name)
        sizes = [used(images) - before]
        world.push(name, f"{world.second}/debian:1")
        world.daemon.docker("save", "-o", str(tmp_path / "saved.tar"), name)
        world.pull(name)
        sizes.append(used(images) - before)
    assert max(sizes) <= 1.1 * used(unpacked), (sizes, used(unpacked))


def used(tree: Path) -> int:
    """Bytes on disk."""
    done = subprocess.run(["du", "-s", "-B1", tree], capture_output=True, check=True)
    return int(done.stdout.split()[0])


def debian_like() -> bytes:
    """60 MB in 3,000 files: programs, texts, many small ones."""
    chance = random.Random(3)
    words = [chance.randbytes(6).hex() for _ in range(2000)]
    files = {}
    for number in range(3000):
        size = chance.choice((200, 1500, 6000, 20_000, 70_000))
        is_text = number % 2
        text = " ".join(chance.choices(words, k=size // 13)).encode()
        files[f"usr/d{number % 97}/f{number}"] = text if is_text else chance.randbytes(size)
    return tar_of(files)
