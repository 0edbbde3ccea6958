"""The registry as docker, podman and skopeo use it: with passwords, tokens and TLS."""

from __future__ import annotations

import gzip
import itertools
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import pytest
from tests.support.busybox import busybox_tar
from tests.support.containers import Containers, needs_containers, private_containers
from tests.support.daemon import wait_until
from tests.support.dockerd import GenuineDockerd
from tests.support.registries import GenuineRegistry
from tests.support.registry import INDEX, LAYER, MANIFEST, OwnRegistry, descriptor


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    """`ana` and `ben`, whose passwords are their names backwards."""
    path = tmp_path / "htpasswd"
    hashes = {
        name: bcrypt.hashpw(name[::-1].encode(), bcrypt.gensalt(4)) for name in ("ana", "ben")
    }
    path.write_text("".join(f"{name}:{hashed.decode()}\n" for name, hashed in hashes.items()))
    return path


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(
        "[[repository]]\nmatch = 'public/**'\nread = ['anonymous']\nwrite = ['*']\n"
        "[[repository]]\nmatch = 'ana/**'\nread = ['ana']\nwrite = ['ana']\ndelete = ['ana']\n"
    )
    return path


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GenuineDockerd]:
    if not GenuineDockerd.is_installed():
        pytest.skip("needs dockerd")
    made = GenuineDockerd(tmp_path_factory.mktemp("dockerd"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    with private_containers(tmp_path / "containers") as made:
        yield made


def docker_fails(dockerd: GenuineDockerd, *arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, env=dockerd.environment(),
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0, done.stdout
    return done.stderr


def login(dockerd: GenuineDockerd, host: str, user: str) -> None:
    words = ["login", "-u", user, "--password-stdin", host]
    assert b"Login Succeeded" in dockerd.docker(*words, stdin=user[::-1].encode())


def test_docker_pushes_and_pulls(
    dockerd: GenuineDockerd, start_registry: Callable[..., OwnRegistry]
) -> None:
    registry = start_registry()
    name = f"{registry.host}/some/busybox"
    dockerd.docker("tag", "busybox", f"{name}:v1")
    pushed = dockerd.docker("push", f"{name}:v1").decode()
    digest = pushed.rpartition("digest: ")[2].split()[0]
    dockerd.docker("rmi", f"{name}:v1")
    dockerd.docker("pull", f"{name}@{digest}")
    dockerd.docker("rmi", f"{name}@{digest}")
    dockerd.docker("tag", "busybox", f"{name}:v2")
    assert "Layer already exists" in dockerd.docker("push", f"{name}:v2").decode()
    other = f"{registry.host}/other/name:v1"
    dockerd.docker("tag", "busybox", other)
    assert "Mounted from some/busybox" in dockerd.docker("push", other).decode()
    found = json.loads(dockerd.docker("manifest", "inspect", "--insecure", "-v", f"{name}:v1"))
    assert found["Descriptor"]["digest"] == digest
    missing = docker_fails(dockerd, "pull", f"{name}:v9")
    assert "manifest v9 is not known" in missing or "not found" in missing


@pytest.mark.parametrize("kind", ["basic", "token", "token-tls"])
def test_docker_with_a_password(
    dockerd: GenuineDockerd,
    start_registry: Callable[..., OwnRegistry],
    htpasswd: Path,
    policy: Path,
    kind: str,
) -> None:
    auth, _, tls = kind.partition("-")
    registry = start_registry(
        "--htpasswd", str(htpasswd), "--policy", str(policy), "--auth", auth,
        *(["--self-signed"] if tls else []),
    )  # fmt: skip
    mine, public = f"{registry.host}/ana/busybox:{kind}", f"{registry.host}/public/busybox:{kind}"
    for name in (mine, public):
        dockerd.docker("tag", "busybox", name)
    refused = docker_fails(dockerd, "push", mine)
    assert "denied" in refused or "no basic auth credentials" in refused
    wrong = subprocess.run(
        ["docker", "login", "-u", "ana", "--password-stdin", registry.host],
        input=b"wrong", capture_output=True, env=dockerd.environment(), timeout=60, check=False,
    )  # fmt: skip
    assert wrong.returncode != 0
    login(dockerd, registry.host, "ana")
    for name in (mine, public):
        dockerd.docker("push", name)
        dockerd.docker("pull", name)
    dockerd.docker("logout", registry.host)
    login(dockerd, registry.host, "ben")
    dockerd.docker("push", public)
    assert "denied" in docker_fails(dockerd, "push", mine)
    assert "denied" in docker_fails(dockerd, "pull", mine)
    dockerd.docker("logout", registry.host)
    if auth == "token":
        dockerd.docker("pull", public)
    wait_until(lambda: '"user":"ben"' in registry.log.read_text(), what="the access log")
    assert "neb" not in registry.log.read_text()


@needs_containers
def test_podman_and_skopeo(
    containers: Containers, start_registry: Callable[..., OwnRegistry], htpasswd: Path
) -> None:
    registry = start_registry("--htpasswd", str(htpasswd), "--auth", "token")
    plain = ["--tls-verify=false"]
    tar = containers.root / "busybox.tar"
    tar.write_bytes(busybox_tar())
    containers.podman("import", str(tar), "localhost/busybox:local")
    name = f"{registry.host}/some/busybox:v1"
    refused = containers.podman("push", *plain, "localhost/busybox:local", name, status=125)
    assert "denied" in refused or "unauthorized" in refused
    containers.podman("login", *plain, "-u", "ben", "-p", "neb", registry.host)
    containers.podman("push", *plain, "localhost/busybox:local", name)
    containers.podman("rmi", "localhost/busybox:local")
    containers.podman("pull", *plain, name)
    remote = ["--tls-verify=false"]
    found = json.loads(containers.skopeo("inspect", *remote, f"docker://{name}"))
    assert found["RepoTags"] == ["v1"]
    layout = containers.root / "layout"
    containers.skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:v1")
    copy = f"docker://{registry.host}/copied/again:v1"
    containers.skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:v1", copy)
    again = json.loads(containers.skopeo("inspect", *remote, copy))
    assert again["Digest"] == found["Digest"] and again["Layers"] == found["Layers"]
    synced = containers.root / "synced"
    words = ["sync", "--src-tls-verify=false", "--src", "docker", "--dest", "dir"]
    containers.skopeo(*words, f"{registry.host}/some/busybox", str(synced))
    assert (synced / "busybox:v1" / "manifest.json").exists()
    listed = json.loads(containers.skopeo("list-tags", *remote, copy.removesuffix(":v1")))
    assert listed["Tags"] == ["v1"]
    containers.skopeo("delete", *remote, copy)
    assert "manifest" in containers.skopeo("inspect", *remote, copy, status=1)


@needs_containers
def test_tls_of_its_own(
    containers: Containers, start_registry: Callable[..., OwnRegistry], tmp_path: Path
) -> None:
    registry = start_registry("--self-signed")
    ca = tmp_path / "registry0" / "estiba" / "tls" / "ca.pem"
    assert str(ca) in registry.log.read_text()
    certs = tmp_path / "certs"
    certs.mkdir()
    layout, remote = f"oci:{tmp_path / 'layout'}:v1", f"docker://localhost:{registry.port}/a/b:v1"
    tar = tmp_path / "busybox.tar"
    tar.write_bytes(busybox_tar())
    containers.podman("import", str(tar), "localhost/busybox:local")
    containers.podman("push", "localhost/busybox:local", layout)
    refused = containers.skopeo("copy", layout, remote, status=1)
    assert "certificate" in refused
    shutil.copy(ca, certs / "ca.crt")
    containers.skopeo("copy", "--dest-cert-dir", str(certs), layout, remote)
    containers.podman("pull", "--cert-dir", str(certs), remote)
    assert registry.process is not None
    wait_until(lambda: '"path":"/v2/a/b/manifests/v1"' in registry.log.read_text(), what="the log")


@needs_containers
@pytest.mark.skipif(not GenuineRegistry.is_installed(), reason="needs docker-registry")
def test_images_of_many_platforms_keep_their_digests(
    containers: Containers, start_registry: Callable[..., OwnRegistry], tmp_path: Path
) -> None:
    """docker-registry, ours, an OCI layout, and docker-registry again."""
    registry, genuine = start_registry(), GenuineRegistry(tmp_path / "genuine")
    entries = []
    for name in ("amd64", "arm64"):
        content = registry.image("made", name)
        layer = gzip.compress(name.encode(), mtime=0)
        registry.push_blob("made", layer)
        # What is not compressed would be on the way.
        content["layers"] = [descriptor(f"{LAYER}+gzip", layer)]
        registry.push_manifest("made", content)
        entry = descriptor(MANIFEST, json.dumps(content).encode())
        entries.append({**entry, "platform": {"os": "linux", "architecture": name}})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    digest = registry.push_manifest("made", index, "v1", kind=INDEX)
    genuine.start()
    try:
        places = [
            f"docker://{registry.host}/made:v1",
            f"docker://{genuine.host}/made:v1",
            f"docker://{registry.host}/again:v1",
            f"oci:{tmp_path / 'layout'}:v1",
            f"docker://{registry.host}/last:v1",
        ]
        plain = ["--src-tls-verify=false", "--dest-tls-verify=false"]
        for source, destination in itertools.pairwise(places):
            containers.skopeo("copy", "--all", *plain, source, destination)
    finally:
        genuine.stop()
    for name in ("made", "again", "last"):
        found = registry.ask("GET", f"/v2/{name}/manifests/v1")
        assert found.header("Docker-Content-Digest") == digest
        assert found.json == index


@needs_containers
def test_manifest_lists_of_podman(
    containers: Containers, start_registry: Callable[..., OwnRegistry]
) -> None:
    registry = start_registry()
    registry.push_image("part", "v1")
    part, whole = f"{registry.host}/part:v1", f"{registry.host}/whole:v1"
    containers.podman("manifest", "create", "list")
    containers.podman("manifest", "add", "--tls-verify=false", "list", f"docker://{part}")
    containers.podman(
        "manifest", "push", "--all", "--tls-verify=false", "list", f"docker://{whole}"
    )
    found = registry.ask("GET", "/v2/whole/manifests/v1").json
    (entry,) = found["manifests"]
    assert entry["platform"] == {"architecture": "amd64", "os": "linux"}
    # Its layers are compressed on the way, so its digest is another.
    assert registry.ask("HEAD", f"/v2/whole/manifests/{entry['digest']}").status == 200
