"""Images that go from registry to registry and through archives, and stay what they were.

What a registry gives for a tag is compared as bytes: with skopeo, which asks it itself.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard
from tests.support.busybox import busybox_tar, standin_tar
from tests.support.containers import Containers, needs_containers, private_containers
from tests.support.daemon import PrivateDaemon, needs_docker
from tests.support.dockerd import GenuineDockerd
from tests.support.registries import GenuineRegistry, genuine_registry
from tests.support.registry import OwnRegistry
from tests.support.served import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, digest, tar_of

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
NEW = "it goes as a new manifest"


@dataclass(frozen=True, slots=True)
class World:
    """A daemon of ours, a genuine engine, and two registries that stand all the time."""

    daemon: PrivateDaemon
    engine: GenuineDockerd
    first: str
    second: str
    containers: Containers
    root: Path

    def digest(self, name: str) -> str:
        """Of what the registry itself says."""
        raw = self.containers.skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{name}")
        return f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}"

    def media_type(self, name: str) -> str:
        raw = self.containers.skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{name}")
        return str(json.loads(raw)["mediaType"])

    def genuine(self, name: str, marker: str) -> str:
        """Pushes an image that nobody has yet, as Go's gzip makes it; its digest."""
        tar = tar_of({"marker": marker.encode(), "data": random.Random(marker).randbytes(1 << 20)})
        self.engine.docker("import", "-c", 'CMD ["sh"]', "-", name, stdin=tar)
        self.engine.docker("push", "-q", name)
        self.engine.docker("rmi", name)
        return self.digest(name)

    def pull(self, name: str, *flags: str) -> str:
        """The digest that the pull tells."""
        shown = self.daemon.docker("pull", *flags, name).stdout.decode()
        return shown.rpartition("Digest: ")[2].split()[0]

    def push(self, source: str, target: str) -> str:
        """What is shown."""
        self.daemon.docker("tag", source, target)
        return self.daemon.docker("push", target).stdout.decode()

    def image_id(self, name: str) -> str:
        return self.daemon.docker("inspect", "-f", "{{.Id}}", name).stdout.decode().strip()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    (root / "ours").mkdir()
    daemon, engine = PrivateDaemon(root / "ours"), GenuineDockerd(root)
    with (
        genuine_registry(root / "first") as first,
        genuine_registry(root / "second") as second,
        private_containers(root / "containers") as containers,
    ):
        try:
            daemon.start()
            daemon.import_busybox()
            engine.start()
            yield World(daemon, engine, first.host, second.host, containers, root)
        finally:
            engine.close()
            daemon.close()


@pytest.fixture(autouse=True)
def nothing_known(world: World) -> Iterator[None]:
    """After each test the daemon knows nothing but busybox."""
    yield
    for image in world.daemon.request("GET", "/images/json")[1]:
        if "busybox:latest" not in image["RepoTags"]:
            world.daemon.request("DELETE", f"/images/{image['Id']}?force=1")


# -- from registry to registry ---------------------------------------------------------------


def test_the_whole_way_round(world: World, tmp_path: Path) -> None:
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


def test_an_image_of_ours_is_the_same_everywhere(world: World, tmp_path: Path) -> None:
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


def test_another_repository_of_the_registry(world: World) -> None:
    """Blobs that cannot be made again are mounted."""
    source, target = f"{world.first}/mount/from:1", f"{world.first}/mount/to:1"
    made = world.genuine(source, "mounted")
    world.pull(source)
    shown = world.push(source, target)
    assert "Mounted from mount/from" in shown and f"digest: {made}" in shown
    assert world.digest(target) == made
    assert "Layer already exists" in world.push(source, target)


def test_blobs_are_fetched_through_while_their_registry_is_there(
    world: World, tmp_path: Path
) -> None:
    with genuine_registry(tmp_path / "there") as there:
        name, target = f"{there.host}/app:1", f"{world.second}/through:1"
        made = world.genuine(name, "fetched through")
        world.pull(name)
        shown = world.push(name, target)
        assert f"digest: {made}" in shown and NEW not in shown
    assert world.digest(target) == made


def test_without_it_there_is_a_new_manifest(world: World, tmp_path: Path) -> None:
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


# -- forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["v2s2", "oci"])
def test_media_types_stay(world: World, kind: str) -> None:
    docker, name = f"{world.first}/kinds/docker:1", f"{world.first}/kinds/{kind}:1"
    world.genuine(docker, "kinds")
    world.containers.copy(f"docker://{docker}", f"docker://{name}", "--format", kind)
    wanted = {"v2s2": DOCKER_MANIFEST, "oci": OCI_MANIFEST}[kind]
    assert world.media_type(name) == wanted
    made, target = world.pull(name), f"{world.second}/kinds/{kind}:1"
    world.push(name, target)
    assert world.digest(target) == made == world.digest(name)
    assert world.media_type(target) == wanted


Compress = Callable[[bytes], bytes]
_FORMS: dict[str, tuple[Compress, str, bool]] = {
    "plain": (bytes, "", True),
    "Python": (lambda tar: gzip.compress(tar, 9, mtime=0), "+gzip", True),
    "zlib": (lambda tar: gzip.compress(tar, 6, mtime=7), "+gzip", True),
    "zstd": (zstandard.ZstdCompressor().compress, "+zstd", False),
    "pigz": (lambda tar: _piped(tar, "gzip", "-1"), "+gzip", False),
}


def _piped(data: bytes, *command: str) -> bytes:
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def own_image(registry: OwnRegistry, name: str, tars: list[bytes], form: str) -> str:
    """Pushes an image whose layers are compressed in that form; its digest."""
    compress, suffix, _ = _FORMS[form]
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in tars]},
    }
    layers = [compress(tar) for tar in tars]
    blobs = [json.dumps(config).encode(), *layers]
    kinds = [OCI_CONFIG, *[OCI_LAYER + suffix] * len(layers)]
    descriptors = [
        {"mediaType": kind, "digest": registry.push_blob(name, blob), "size": len(blob)}
        for kind, blob in zip(kinds, blobs, strict=True)
    ]
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptors[0]}
    return registry.push_manifest(name, {**body, "layers": descriptors[1:]}, "1")


@pytest.mark.parametrize("form", _FORMS)
def test_compressions(world: World, tmp_path: Path, form: str) -> None:
    """What can be made again needs no registry; what cannot comes from the one that has it."""
    can_be_made = _FORMS[form][2]
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


def test_a_layer_that_was_here_already(world: World, tmp_path: Path) -> None:
    """Its blob was never seen here, but the registry that it would have come from has it."""
    with OwnRegistry(tmp_path / "registry") as registry:
        name, target = f"{registry.host}/x:1", f"{world.second}/already:1"
        made = own_image(registry, "x", [busybox_tar(), tar_of({"more": b"1"})], "pigz")
        assert world.pull(name) == made
        assert NEW not in world.push(name, target)
        assert world.digest(target) == made


def test_a_lie_about_a_layer_stays_with_its_image(world: World, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("kind", ["v2s2", "oci"])
def test_an_image_of_two_platforms_keeps_its_index(world: World, kind: str) -> None:
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


def test_one_copy_on_disk(world: World, tmp_path: Path) -> None:
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
