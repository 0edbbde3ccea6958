"""The docker client and docker-py with our daemon and Debian's docker-registry.

The registry has TLS of an authority of `certs.d`, and passwords; it stands on the daemon's bridge,
since loopback is never verified. podman and skopeo use the same one.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.support.containers import Containers, needs_containers, private_containers
from tests.support.daemon import PrivateDaemon, needs_docker
from tests.support.peers import random_layer
from tests.support.registries import (
    Authority,
    GenuineRegistry,
    genuine_registry,
    token_registry,
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not GenuineRegistry.is_installed(), reason="needs Debian's docker-registry"),
    needs_docker(28),
]
USER, PASSWORD = "ann", "secret"
WHO = {"username": USER, "password": PASSWORD}


@dataclass(frozen=True, slots=True)
class World:
    daemon: PrivateDaemon
    client: docker.DockerClient
    host: str
    certs: Path
    """The registry's folder of `certs.d`."""

    def docker(self, *words: str, stdin: bytes = b"", code: int = 0) -> str:
        """Both outputs."""
        done = self.daemon.docker(*words, stdin=stdin, check=False)
        assert done.returncode == code, (words, done)
        return (done.stdout + done.stderr).decode()

    def log_in(self, host: str = "", password: str = PASSWORD, code: int = 0) -> str:
        words = ["login", "-u", USER, "--password-stdin", host or self.host]
        return self.docker(*words, stdin=password.encode(), code=code)

    def commit(self, name: str, word: str) -> str:
        """An image that says `word`; its id."""
        script = f"echo {word} >/word"
        self.docker("run", "--name", "maker", "--network", "none", "busybox", "sh", "-c", script)
        image = self.docker("commit", "-c", 'CMD ["cat", "/word"]', "maker", name).strip()
        self.docker("rm", "maker")
        return image

    def tags(self) -> set[str]:
        return {tag for image in self.client.images.list() for tag in image.tags}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("registries")
    certs = root / "certs.d"
    daemon = PrivateDaemon(root, "--registry-certs-dir", str(certs))
    daemon.start()
    try:
        daemon.import_busybox()
        address = f"{daemon.subnet}.1"
        authority = Authority(root)
        certificate = authority.issue("server", address)
        with genuine_registry(
            root / "registry", certificate=certificate, users={USER: PASSWORD}, address=address
        ) as registry:
            folder = certs / registry.host
            folder.mkdir(parents=True)
            (folder / "ca.crt").write_bytes(authority.certificate.read_bytes())
            client = docker.DockerClient(base_url=daemon.url, version="auto", timeout=60)
            yield World(daemon, client, registry.host, folder)
            client.close()
    finally:
        daemon.close()


@pytest.fixture(autouse=True)
def clean(world: World) -> Iterator[None]:
    """Nobody is logged in, and only busybox is there, before and after."""
    world.docker("logout", world.host)
    yield
    for image in world.client.images.list():
        for name in set(image.tags) - {"busybox:latest"} or {image.id}:
            if "busybox:latest" not in image.tags or name != image.id:
                world.client.images.remove(name, force=True)
    world.docker("logout", world.host)


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    with private_containers(tmp_path / "containers") as made:
        yield made


# -- the docker client -----------------------------------------------------------------------


def test_a_session_of_the_docker_client(world: World) -> None:
    name = f"{world.host}/team/word"
    images = {tag: world.commit(f"{name}:{tag}", tag) for tag in ("one", "two", "three")}
    assert "no basic auth credentials" in world.docker("push", f"{name}:one", code=1)
    assert "unauthorized" in world.log_in(password="wrong", code=1)
    assert "Login Succeeded" in world.log_in()
    shown = world.docker("push", "-a", name)
    digests = {
        words[0].rstrip(":"): words[2]
        for words in (line.split() for line in shown.splitlines())
        if words[1:2] == ["digest:"]
    }
    assert set(digests) == set(images)
    assert shown.count("Layer already exists") == 2, "busybox, of the second and the third"
    assert world.docker("push", "-q", f"{name}:two") == f"{name}:two\n"
    world.docker("rmi", *(f"{name}:{tag}" for tag in images))
    shown = world.docker("pull", "-a", name)
    assert f"Status: Downloaded newer image for {name}" in shown
    for tag, image in images.items():
        assert f"Digest: {digests[tag]}" in shown
        found = world.client.images.get(f"{name}:{tag}")
        assert (found.id, found.attrs["RepoDigests"]) == (image, [f"{name}@{digests[tag]}"])
        assert world.daemon.run(f"{name}:{tag}") == f"{tag}\n"
    world.docker("rmi", f"{name}:one")
    by_digest = f"{name}@{digests['one']}"
    assert world.docker("pull", "-q", by_digest) == f"{by_digest}\n"
    assert world.daemon.run(by_digest) == "one\n"
    assert "up to date" in world.docker("pull", f"{name}:two")
    assert "manifest unknown" in world.docker("pull", f"{name}:four", code=1)
    world.docker("logout", world.host)
    assert "pull access denied" in world.docker("pull", f"{name}:two", code=1)


def test_saving_and_loading_through_pipes(world: World, tmp_path: Path) -> None:
    images = {name: world.commit(name, name[0]) for name in ("a:1", "b:1")}
    archive = world.daemon.docker("save", *images).stdout
    world.docker("save", "-o", str(tmp_path / "archive.tar"), *images)
    assert (tmp_path / "archive.tar").read_bytes() == archive
    world.docker("rmi", *images)
    shown = world.docker("load", stdin=archive)
    assert shown == "Loaded image: a:1\nLoaded image: b:1\n"
    assert {name: world.client.images.get(name).id for name in images} == images
    assert world.docker("load", "-q", "-i", str(tmp_path / "archive.tar")) == shown
    assert "No such image: nosuch" in world.docker("save", "nosuch", code=1)


def test_manifest_lists_of_the_docker_client(world: World) -> None:
    """Made by the client at the registry, pulled by the daemon."""
    world.log_in()
    top = f"{world.host}/lists/word:all"
    parts = {arch: f"{world.host}/lists/word:{arch}" for arch in ("amd64", "arm64")}
    for arch, part in parts.items():
        world.commit(part, arch)
        world.docker("push", "-q", part)
    world.docker("manifest", "create", "--insecure", top, *parts.values())
    world.docker("manifest", "annotate", "--arch", "arm64", top, parts["arm64"])
    digest = world.docker("manifest", "push", "--insecure", "--purge", top).strip()
    listed = json.loads(world.docker("manifest", "inspect", "--insecure", top))
    assert [one["platform"]["architecture"] for one in listed["manifests"]] == ["amd64", "arm64"]
    world.docker("rmi", *parts.values())
    shown = world.docker("pull", top)
    assert f"Digest: {digest}" in shown
    assert world.daemon.run(top) == "amd64\n"


# -- docker-py -------------------------------------------------------------------------------


def test_streams_of_docker_py(world: World) -> None:
    name = f"{world.host}/py/data"
    world.daemon.import_image("data:1", random_layer(8 << 20))
    world.client.images.get("data:1").tag(name, "1")
    lines = list(world.client.api.push(name, "1", stream=True, decode=True, auth_config=WHO))
    assert lines[0] == {"status": f"The push refers to repository [{name}]"}
    assert {"Preparing", "Pushing", "Pushed"} <= {line.get("status") for line in lines}
    offsets = [
        line["progressDetail"]["current"] for line in lines if line.get("status") == "Pushing"
    ]
    assert offsets == sorted(offsets) and offsets
    bars = [line["progress"] for line in lines if line.get("status") == "Pushing"]
    assert re.fullmatch(r"\[=*> *\] +[0-9.]+[kM]?B/8\.39\dMB", bars[-1]), bars
    assert all("id" in line for line in lines if "progressDetail" in line and "status" in line)
    (aux,) = [line["aux"] for line in lines if "aux" in line]
    assert aux["Tag"] == "1" and aux["Size"] > 0
    for tag in ("data:1", f"{name}:1"):
        world.client.images.remove(tag)
    lines = list(world.client.api.pull(name, "1", stream=True, decode=True, auth_config=WHO))
    assert (lines[0]["status"], lines[0]["id"]) == ("Pulling from py/data", "1")
    assert [line["status"] for line in lines[-2:]] == [
        f"Digest: {aux['Digest']}",
        f"Status: Downloaded newer image for {name}:1",
    ]
    states = [line["status"] for line in lines if line.get("id") not in ("1", None)]
    wanted = ["Pulling fs layer", "Downloading", "Download complete", "Pull complete"]
    assert list(dict.fromkeys(state for state in states if state in wanted)) == wanted
    data = world.client.images.get_registry_data(f"{name}:1", auth_config=WHO)
    assert data.id == aux["Digest"] and data.has_platform("linux/amd64")
    assert not data.has_platform("linux/s390x")


def test_images_of_docker_py(world: World) -> None:
    name = f"{world.host}/py/word"
    answer = world.client.login(USER, PASSWORD, registry=world.host, reauth=True)
    assert answer["Status"] == "Login Succeeded"
    made = {tag: world.commit(f"{name}:{tag}", tag) for tag in ("1", "2")}
    for tag in made:
        pushed = world.client.images.push(name, tag)
        assert "errorDetail" not in pushed, pushed
        world.client.images.remove(f"{name}:{tag}")
    pulled = world.client.images.pull(name, all_tags=True)
    assert {image.id for image in pulled} == set(made.values())
    image = world.client.images.pull(name, tag="1")
    archive = b"".join(image.save(named=f"{name}:1"))
    world.client.images.remove(f"{name}:1")
    (loaded,) = world.client.images.load(io.BytesIO(archive).read())
    assert (loaded.id, loaded.tags) == (made["1"], [f"{name}:1"])
    with pytest.raises(docker.errors.NotFound, match="manifest unknown"):
        world.client.images.pull(name, tag="nosuch")


def test_credentials_of_docker_py_that_are_wrong(world: World) -> None:
    name = f"{world.host}/py/denied"
    world.client.images.get("busybox").tag(name, "1")
    wrong: dict[str, Any] = {**WHO, "password": "wrong"}
    lines = list(world.client.api.push(name, "1", stream=True, decode=True, auth_config=wrong))
    assert "unauthorized" in lines[-1]["errorDetail"]["message"]
    assert lines[-1]["error"] == lines[-1]["errorDetail"]["message"]
    with pytest.raises(docker.errors.APIError, match="denied"):
        world.client.images.pull(f"{world.host}/py/data", tag="1", auth_config=wrong)
    with pytest.raises(docker.errors.APIError, match="unauthorized"):
        world.client.login(USER, "wrong", registry=world.host, reauth=True)


# -- tokens ----------------------------------------------------------------------------------


def test_bearer_tokens(world: World, tmp_path: Path) -> None:
    """Everybody reads library/, who is logged in does all; a mount needs both repositories."""
    with token_registry(tmp_path, {USER: PASSWORD}) as (registry, tokens):
        public, mine = f"{registry.host}/library/word", f"{registry.host}/ann/word"
        for tag in ("1", "2"):
            world.commit(f"{public}:{tag}", tag)
        assert "unauthorized" in world.docker("push", f"{public}:1", code=1)
        world.log_in(registry.host)
        world.docker("push", "-a", public)
        world.docker("tag", f"{public}:1", f"{mine}:1")
        assert "Mounted from library/word" in world.docker("push", f"{mine}:1")
        scopes = [ask.path + ask.body.decode() for ask in tokens.asks]
        assert any("library%2Fword" in scope and "ann%2Fword" in scope for scope in scopes)
        lines = world.client.api.push(mine, "1", stream=True, decode=True, auth_config=WHO)
        assert list(lines)[-1]["aux"]["Tag"] == "1"
        world.docker("logout", registry.host)
        world.docker("rmi", f"{public}:1", f"{public}:2", f"{mine}:1")
        world.docker("pull", "-a", public)
        assert {f"{public}:1", f"{public}:2"} <= world.tags()
        assert "pull access denied" in world.docker("pull", f"{mine}:1", code=1)


# -- podman and skopeo beside us -------------------------------------------------------------


@needs_containers
def test_podman_and_skopeo_at_the_same_registry(
    world: World, containers: Containers, tmp_path: Path
) -> None:
    """What one pushes the others pull, with one digest."""
    world.log_in()
    name = f"{world.host}/shared/word"
    image = world.commit(f"{name}:ours", "shared")
    world.docker("push", f"{name}:ours")
    digest = world.client.images.get(f"{name}:ours").attrs["RepoDigests"][0].partition("@")[2]
    trust = ["--cert-dir", str(world.certs), "--creds", f"{USER}:{PASSWORD}"]
    found = json.loads(containers.skopeo("inspect", *trust, f"docker://{name}:ours"))
    assert (found["Digest"], found["RepoTags"]) == (digest, ["ours"])
    pulled = containers.podman("pull", "-q", *trust, f"{name}:ours").split()[-1]
    assert f"sha256:{pulled}" == image
    containers.podman("tag", f"{name}:ours", f"{name}:theirs")
    containers.podman("push", *trust, f"{name}:theirs")
    world.docker("rmi", f"{name}:ours")
    world.docker("pull", f"{name}:theirs")
    assert world.client.images.get(f"{name}:theirs").id == image
    assert world.daemon.run(f"{name}:theirs") == "shared\n"
    world.docker("rmi", f"{name}:theirs")
    with genuine_registry(tmp_path / "synced") as synced:
        source = ["--src-cert-dir", str(world.certs), "--src-creds", f"{USER}:{PASSWORD}"]
        words = ["sync", "--src", "docker", "--dest", "docker", "--dest-tls-verify=false"]
        containers.skopeo(*words, *source, name, f"{synced.host}/copy")
        world.docker("pull", "-a", f"{synced.host}/copy/word")
        assert f"{digest}" in world.docker("pull", f"{synced.host}/copy/word:ours")
