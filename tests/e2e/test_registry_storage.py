"""One storage under our registry and Debian's docker-registry, in turn; several instances over
one bucket; a cache of docker-registry; collection and quotas of a registry that serves."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from tests.support.daemon import wait_until
from tests.support.registries import GenuineRegistry
from tests.support.registry import INDEX, OwnRegistry, descriptor, digest_of
from tests.support.s3server import S3Server, s3_server

needs_genuine = pytest.mark.skipif(
    not GenuineRegistry.is_installed(), reason="needs docker-registry"
)
MIB = 1 << 20


class Asked(OwnRegistry):
    """The client's half alone, for any registry."""

    def push_blob(self, name: str, data: bytes) -> str:
        location = self.path_of(self.ask("POST", f"/v2/{name}/blobs/uploads/"))
        joint = "&" if "?" in location else "?"
        digest = digest_of(data)
        answer = self.ask("PUT", f"{location}{joint}digest={digest}", data)
        assert answer.status == 201, answer
        return digest

    def path_of(self, answer: Any) -> str:
        assert answer.status == 202, answer
        return str(answer.header("Location")).removeprefix(f"http://{self.host}")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


class Place:
    """A storage that either registry can be started on."""

    def __init__(self, root: Path, flags: tuple[str, ...], storage: dict[str, Any]) -> None:
        self.root = root
        self.flags = flags
        self.storage = storage

    @contextlib.contextmanager
    def own(self, *flags: str) -> Iterator[OwnRegistry]:
        with OwnRegistry(self.root / "own", (*self.flags, *flags)) as registry:
            yield registry

    @contextlib.contextmanager
    def genuine(self) -> Iterator[Asked]:
        registry = GenuineRegistry(self.root / "genuine", storage=self.storage)
        registry.start()
        try:
            yield Asked(self.root / "asked", port=registry.port)
        finally:
            registry.stop()

    def run_genuine(self, *command: str) -> str:
        return _run("docker-registry", *command, str(self.root / "genuine/config.yml"))

    def collect(self, *flags: str) -> str:
        """Everything that is garbage, however young."""
        command = (sys.executable, "-m", "estiba.registry", "gc", "--root", str(self.root / "own"))
        return _run(*command, *self.flags, "--gc-grace", "0", *flags)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(params=["files", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "files":
        where = {"filesystem": {"rootdirectory": str(tmp_path / "own")}}
        return Place(tmp_path, (), where)
    settings = request.getfixturevalue("s3").settings(prefix="registry/root")
    return in_bucket(tmp_path, settings, monkeypatch)


def in_bucket(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", settings.access_key)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", settings.secret_key)
    flags = (
        "--s3-bucket", settings.bucket, "--s3-endpoint", settings.endpoint,
        "--s3-prefix", settings.prefix, "--s3-region", settings.region,
    )  # fmt: skip
    storage = {
        "s3": {
            "bucket": settings.bucket,
            "region": settings.region,
            "regionendpoint": settings.endpoint,
            "rootdirectory": settings.prefix,
            "accesskey": settings.access_key,
            "secretkey": settings.secret_key,
            "secure": False,
        },
        "redirect": {"disable": True},
    }
    return Place(tmp_path, flags, storage)


class Pushed:
    """Images in several shapes, and what they must be when they are asked for."""

    def __init__(self, registry: OwnRegistry) -> None:
        self.manifests: dict[tuple[str, str], str] = {}
        self.blobs: dict[tuple[str, str], bytes] = {}
        for name, tag, seed in (
            ("team/app", "v1", "one"), ("team/app", "v2", "two"), ("single", "latest", "one"),
            ("team/app/deeper", "v1", "three"),
        ):  # fmt: skip
            image = registry.image(name, seed)
            self.manifests[name, tag] = registry.push_manifest(name, image, tag)
            self.blobs[name, image["layers"][0]["digest"]] = f"layer {seed}".encode()
        large = os.urandom(9 * MIB)
        self.blobs["team/app", registry.push_blob("team/app", large)] = large
        children = []
        for seed in ("amd", "arm"):
            image = registry.image("team/index", seed)
            registry.push_manifest("team/index", image)
            children.append(descriptor(image["mediaType"], json.dumps(image).encode()))
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}
        self.manifests["team/index", "v1"] = registry.push_manifest(
            "team/index", index, "v1", INDEX
        )
        for child in children:
            self.manifests["team/index", child["digest"]] = child["digest"]

    def check(self, registry: OwnRegistry) -> None:
        for (name, reference), digest in self.manifests.items():
            accept = f"{INDEX}, application/vnd.oci.image.manifest.v1+json"
            answer = registry.ask("GET", f"/v2/{name}/manifests/{reference}", Accept=accept)
            assert answer.status == 200, (name, reference, answer)
            assert digest_of(answer.body) == digest == answer.header("Docker-Content-Digest")
            assert answer.header("Content-Type") == answer.json["mediaType"]
            for part in [answer.json.get("config"), *answer.json.get("layers", ())]:
                if part is not None:
                    blob = registry.ask("GET", f"/v2/{name}/blobs/{part['digest']}")
                    assert digest_of(blob.body) == part["digest"]
        for (name, digest), data in self.blobs.items():
            answer = registry.ask("GET", f"/v2/{name}/blobs/{digest}")
            assert (answer.status, answer.body) == (200, data)
        tags = registry.ask("GET", "/v2/team/app/tags/list").json["tags"]
        assert sorted(tags) == ["v1", "v2"]
        names = registry.ask("GET", "/v2/_catalog").json["repositories"]
        # docker-registry lists by the folder of layers, we by that of manifests.
        assert names == ["single", "team/app", "team/app/deeper", "team/index"]


@needs_genuine
def test_what_docker_registry_stored_is_served(place: Place) -> None:
    with place.genuine() as genuine:
        pushed = Pushed(genuine)
        pushed.check(genuine)
    with place.own() as own:
        pushed.check(own)
        subject = pushed.manifests["team/app", "v1"]
        assert own.ask("GET", f"/v2/team/app/referrers/{subject}").json["manifests"] == []
    place.collect()
    pushed.blobs = {key: data for key, data in pushed.blobs.items() if len(data) < MIB}
    with place.own() as own:
        pushed.check(own)
        own.push_image("team/app", "v2", "newer")
        pushed.manifests["team/app", "v2"] = own.ask("HEAD", "/v2/team/app/manifests/v2").header(
            "Docker-Content-Digest"
        )
    with place.genuine() as genuine:
        pushed.check(genuine)


@needs_genuine
def test_docker_registry_serves_what_we_stored(place: Place) -> None:
    with place.own() as own:
        pushed = Pushed(own)
        pushed.check(own)
    with place.genuine() as genuine:
        pushed.check(genuine)
        changed = genuine.push_image("team/app", "v1", "again")
        gone = pushed.manifests.pop(("team/app/deeper", "v1"))
        assert genuine.ask("DELETE", f"/v2/team/app/deeper/manifests/{gone}").status == 202
    if "s3" not in place.storage:
        place.run_genuine("garbage-collect")
        pushed.blobs = {key: data for key, data in pushed.blobs.items() if len(data) < MIB}
    pushed.blobs = {key: data for key, data in pushed.blobs.items() if "deeper" not in key[0]}
    pushed.manifests["team/app", "v1"] = changed
    with place.own() as own:
        answer = own.ask("GET", f"/v2/team/app/deeper/manifests/{gone}")
        assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
        own.push_image("team/app/deeper", "other")
        pushed.check(own)


@needs_genuine
def test_an_upload_that_docker_registry_began_goes_on(tmp_path: Path) -> None:
    place = Place(tmp_path, (), {"filesystem": {"rootdirectory": str(tmp_path / "own")}})
    first, second = os.urandom(MIB), os.urandom(MIB)
    with place.genuine() as genuine:
        location = genuine.path_of(genuine.ask("POST", "/v2/team/app/blobs/uploads/"))
        answer = genuine.ask("PATCH", location, first)
        upload = answer.header("Docker-Upload-Uuid")
        assert genuine.path_of(answer)
    with place.own() as own:
        path = f"/v2/team/app/blobs/uploads/{upload}"
        assert own.ask("GET", path).header("Range") == f"0-{MIB - 1}"
        answer = own.ask("PATCH", path, second, Content_Range=f"{MIB}-{2 * MIB - 1}")
        assert answer.status == 202
        digest = digest_of(first + second)
        assert own.ask("PUT", f"{path}?digest={digest}").status == 201
        assert own.ask("GET", f"/v2/team/app/blobs/{digest}").body == first + second


# -- several instances over one bucket ---------------------------------------------------------


def test_an_upload_goes_on_in_another_instance(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = in_bucket(tmp_path, s3.settings(prefix="x"), monkeypatch)
    pieces = [os.urandom(size) for size in (MIB, 9 * MIB, 5, 2 * MIB)]
    with place.own() as one, OwnRegistry(tmp_path / "two", place.flags) as two:
        location = one.begin("team/app")
        offset = 0
        for number, piece in enumerate(pieces):
            asked = (one, two)[number % 2]
            span = f"{offset}-{offset + len(piece) - 1}"
            assert asked.ask("PATCH", location, piece, Content_Range=span).status == 202
            offset += len(piece)
            other = (two, one)[number % 2]
            assert other.ask("GET", location).header("Range") == f"0-{offset - 1}"
        data = b"".join(pieces)
        digest = digest_of(data)
        assert one.ask("PUT", f"{location}?digest={digest}").status == 201
        assert two.ask("GET", f"/v2/team/app/blobs/{digest}").body == data
        pushed = two.push_image("team/app", "v1")
        assert (
            one.ask("HEAD", "/v2/team/app/manifests/v1").header("Docker-Content-Digest") == pushed
        )
        assert one.ask("DELETE", f"/v2/team/app/manifests/{pushed}").status == 202
        assert two.ask("GET", f"/v2/team/app/manifests/{pushed}").status == 404


def test_clients_are_sent_to_the_bucket(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = in_bucket(tmp_path, s3.settings(prefix="x"), monkeypatch)
    with place.own("--s3-redirect") as own:
        data = os.urandom(MIB)
        digest = own.push_blob("team/app", data)
        answer = own.ask("GET", f"/v2/team/app/blobs/{digest}")
        assert answer.status == 307
        with urllib.request.urlopen(answer.header("Location"), timeout=30) as got:
            assert got.read() == data
        assert own.ask("GET", f"/v2/team/other/blobs/{digest}").status == 404


def test_a_bucket_that_is_not_there(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = in_bucket(tmp_path, s3.settings(prefix="x"), monkeypatch)
    command = [sys.executable, "-m", "estiba.registry", "gc", "--root", str(tmp_path / "own")]
    flags = ["--s3-bucket", "no-such-bucket", *place.flags[2:]]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("estiba registry: ") and "no-such-bucket" in done.stderr
    assert done.stderr.count("\n") == 1


# -- a cache -----------------------------------------------------------------------------------


@needs_genuine
def test_a_cache_of_docker_registry(tmp_path: Path) -> None:
    """With a password there, and none here; on while the other registry is down."""
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"ana:{hashed}\n")
    (tmp_path / "password").write_text("secret\n")
    auth = {"htpasswd": {"realm": "x", "path": str(tmp_path / "htpasswd")}}
    genuine = GenuineRegistry(tmp_path / "genuine", auth=auth)
    genuine.start()
    try:
        there = Asked(tmp_path / "asked", port=genuine.port)
        there.sign_in("ana", "secret")
        pushed = Pushed(there)
        flags = (
            "--proxy", f"http://{genuine.host}", "--proxy-user", "ana",
            "--proxy-password-file", str(tmp_path / "password"), "--proxy-ttl", "0",
        )  # fmt: skip
        with OwnRegistry(tmp_path / "cache", flags) as cache:
            pushed.check(cache)
            assert cache.ask("GET", "/v2/team/app/manifests/none").status == 404
            assert cache.ask("POST", "/v2/team/app/blobs/uploads/").status == 405
            changed = there.push_image("team/app", "v1", "changed")
            answer = cache.ask("HEAD", "/v2/team/app/manifests/v1")
            assert answer.header("Docker-Content-Digest") == changed
            pushed.manifests["team/app", "v1"] = changed
            pushed.check(cache)
            genuine.stop()
            pushed.check(cache)
        with OwnRegistry(tmp_path / "cache", flags) as cache:
            pushed.check(cache)
            assert cache.ask("GET", "/v2/team/app/manifests/v9").status == 503
            assert "secret" not in cache.log.read_text()
    finally:
        genuine.stop()


# -- collection and quotas ---------------------------------------------------------------------


def test_garbage_goes_while_it_serves(tmp_path: Path) -> None:
    flags = ("--gc-interval", "0.1s", "--gc-grace", "3s")
    with OwnRegistry(tmp_path / "own", flags) as own:
        kept = own.push_image("team/app", "v1")
        garbage = own.push_blob("team/app", b"garbage")
        data = tmp_path / f"own/docker/registry/v2/blobs/sha256/{garbage[7:9]}/{garbage[7:]}/data"
        assert data.read_bytes() == b"garbage"
        # Whoever asks for it would keep it.
        wait_until(lambda: not data.exists(), what="the blob's end")
        assert own.ask("HEAD", f"/v2/team/app/blobs/{garbage}").status == 404
        doomed = tmp_path / "own/estiba/doomed"
        wait_until(lambda: not doomed.exists(), what="the doomed blob's end")
        answer = own.ask("GET", "/v2/team/app/manifests/v1")
        assert answer.header("Docker-Content-Digest") == kept
        for layer in answer.json["layers"]:
            assert own.ask("GET", f"/v2/team/app/blobs/{layer['digest']}").status == 200


def test_gc_by_hand(tmp_path: Path) -> None:
    place = Place(tmp_path, (), {})
    with place.own() as own:
        own.push_image("team/app", "v1")
        own.push_blob("team/app", b"garbage")
        own.push_image("team/app", seed="untagged")
        command = [sys.executable, "-m", "estiba.registry", "gc", "--root", str(own.root)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert "another registry serves" in done.stderr
    report = place.collect()
    assert "1 blobs deleted, 7 bytes deleted" in report
    assert "1 manifests deleted" in place.collect("--delete-untagged")


def test_a_quota(tmp_path: Path) -> None:
    flags = ("--quota", "10k", "--quota-for", "small=1k")
    with OwnRegistry(tmp_path / "own", flags) as own:
        own.push_image("team/app", "v1")
        for name, size in (("team/app", 11_000), ("small/app", 2000)):
            answer = own.ask("PATCH", own.begin(name), b"x" * size)
            assert (answer.status, answer.code) == (413, "DENIED")
            assert "quota exceeded" in answer.json["errors"][0]["message"]
        own.push_blob("small/app", b"x" * 1000)
        own.stop()
        own.start()
        answer = own.ask("PATCH", own.begin("small/app"), b"y" * 100)
        assert answer.status == 413
