"""What a build states of its image, and caches that travel: through the client, between daemons."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import classicbuild
from tests.support.daemon import DEADLINE_S, PrivateDaemon
from tests.support.registries import GenuineRegistry, genuine_registry
from tests.support.registry import OwnRegistry

pytestmark = pytest.mark.e2e

ESTIBA = [sys.executable, "-m", "estiba.cli.main"]
KEY = "in-toto.io/predicate-type"
SPDX = "https://spdx.dev/Document"
SLSA = "https://slsa.dev/provenance/v1"
STATUS = "Package: made-up\nStatus: install ok installed\nArchitecture: all\nVersion: 1.0-1\n"
RANDOM = "cat /proc/sys/kernel/random/uuid"

Json = dict[str, Any]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnRegistry]:
    with OwnRegistry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
def genuine(tmp_path: Path) -> Iterator[GenuineRegistry]:
    if not GenuineRegistry.is_installed():
        pytest.skip("docker-registry is not installed")
    with genuine_registry(tmp_path / "genuine") as registry:
        yield registry


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ctx").mkdir()
    return tmp_path / "ctx"


@pytest.fixture
def other(make_daemon: Callable[..., PrivateDaemon]) -> PrivateDaemon:
    """Another host."""
    made = make_daemon()
    made.start()
    made.import_busybox()
    return made


def build(daemon: PrivateDaemon, *words: str, code: int = 0, **variables: str) -> str:
    """STDERR."""
    done = subprocess.run(
        [*ESTIBA, "build", *words, "ctx"],
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * DEADLINE_S,
        env={**daemon.client_environment(), "ESTIBA_HOST": daemon.url, **variables},
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stderr


def statements(own: OwnRegistry, repository: str, tag: str) -> dict[str, Json]:
    """What is stated of the manifest under a tag, by type."""
    digest = own.ask("GET", f"/v2/{repository}/manifests/{tag}").header("Docker-Content-Digest")
    found = {}
    for entry in own.ask("GET", f"/v2/{repository}/referrers/{digest}").json["manifests"]:
        manifest = own.ask("GET", f"/v2/{repository}/manifests/{entry['digest']}").json
        (layer,) = manifest["layers"]
        blob = own.ask("GET", f"/v2/{repository}/blobs/{layer['digest']}").json
        assert blob["subject"][0]["digest"] == {"sha256": digest.removeprefix("sha256:")}
        found[entry["annotations"][KEY]] = dict(blob["predicate"])
    return found


# -- attestations --------------------------------------------------------------------------


def test_what_is_stated_goes_to_the_registry(
    daemon: PrivateDaemon, context: Path, own: OwnRegistry
) -> None:
    (context / "status").write_text(STATUS)
    (context / "Dockerfile").write_text(
        "FROM busybox AS below\nFROM below\nARG VERSION\nARG API_TOKEN\n"
        "COPY status /var/lib/dpkg/status\n"
        "RUN --mount=type=secret,id=word cat /run/secrets/word >/dev/null; echo $VERSION >/v\n"
    )
    name = f"{own.host}/team/app:1"
    (context.parent / "word").write_text("hunter2")
    flags = ["--sbom=true", "--provenance=mode=max", "--push", "-t", name]
    flags += ["--secret", "id=word,src=word", "--build-arg", "VERSION=7"]
    build(daemon, *flags, "--build-arg", "API_TOKEN=hunter2")
    found = statements(own, "team/app", "1")
    assert set(found) == {SPDX, SLSA}
    assert "hunter2" not in json.dumps(found)
    assert {one["name"]: one.get("versionInfo") for one in found[SPDX]["packages"]}[
        "made-up"
    ] == "1.0-1"
    definition = found[SLSA]["buildDefinition"]
    request = definition["externalParameters"]["request"]
    assert request["args"] == {"VERSION": "7"} and request["hiddenArgs"] == ["API_TOKEN"]
    assert request["secrets"] == [{"id": "word"}]
    assert request["platform"] == "linux/amd64"
    assert "FROM busybox AS below" in definition["internalParameters"]["dockerfile"]
    steps = definition["internalParameters"]["steps"]
    assert any("COPY status" in step["name"] and step["layer"] for step in steps)
    (base,) = definition["resolvedDependencies"]
    assert base["uri"].startswith("pkg:docker/busybox@latest?platform=") and base["digest"]


def test_the_same_elsewhere(
    daemon: PrivateDaemon, other: PrivateDaemon, context: Path, own: OwnRegistry
) -> None:
    """With SOURCE_DATE_EPOCH image and statements are the same bytes on two hosts."""
    (context / "file").write_text("text")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY file /\nENV A=b\n")
    digests = []
    flags = ["--sbom=true", "--provenance=mode=max", "--push", "-t", f"{own.host}/same/app:1"]
    for host in (daemon, other):
        os.utime(context / "file")
        build(host, *flags, SOURCE_DATE_EPOCH="1600000000")
        answer = own.ask("GET", "/v2/same/app/manifests/1")
        digests.append(answer.header("Docker-Content-Digest"))
    assert digests[0] == digests[1]
    listed = own.ask("GET", f"/v2/same/app/referrers/{digests[0]}").json["manifests"]
    assert len(listed) == 2, "the second push brought no other ones"
    metadata = statements(own, "same/app", "1")[SLSA]["runDetails"]["metadata"]
    assert metadata["startedOn"] == metadata["finishedOn"] == "2020-09-13T12:26:40Z"


def test_a_layout_has_them_too(daemon: PrivateDaemon, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nENV A=b\n")
    output = "type=oci,dest=a.oci,annotation.note=kept"
    build(daemon, "--provenance=true", "-t", "team/app:2", "-o", output)
    with tarfile.open("a.oci") as tar:
        file = tar.extractfile("index.json")
        assert file is not None
        entries = json.load(file)["manifests"]
        body = tar.extractfile("blobs/sha256/" + entries[0]["digest"].removeprefix("sha256:"))
        assert body is not None
        assert json.load(body)["annotations"] == {"note": "kept"}
    assert [entry.get("annotations", {}).get(KEY) for entry in entries] == [None, SLSA]


# -- caches --------------------------------------------------------------------------------

STAGES = (
    f"FROM busybox AS make\nRUN {RANDOM} >/made\nRUN {RANDOM} >/more\n"
    f"FROM busybox\nCOPY --from=make /made /made\nRUN {RANDOM} >/own\n"
)


def made(daemon: PrivateDaemon, image: str) -> str:
    return daemon.run("--network", "none", image, "cat", "/made", "/own")


def cached(told: str) -> int:
    return len(re.findall(r"^#\d+ CACHED$", told, re.M))


def test_a_cache_in_a_registry_serves_another_host(
    daemon: PrivateDaemon, other: PrivateDaemon, context: Path, genuine: GenuineRegistry
) -> None:
    (context / "Dockerfile").write_text(STAGES)
    place = f"{genuine.host}/team/cache:1"
    build(daemon, "-t", "app:1", "--cache-to", f"type=registry,ref={place},mode=max")
    told = build(other, "-t", "app:1", "--cache-from", place)
    assert cached(told) >= 4, told
    assert made(other, "app:1") == made(daemon, "app:1")
    (context / "Dockerfile").write_text(STAGES + "RUN echo later >/later\n")
    again = build(other, "-t", "app:2", "--cache-from", place)
    assert made(other, "app:2") == made(daemon, "app:1"), again


def test_what_is_found_elsewhere_makes_the_same_image_again(
    daemon: PrivateDaemon, other: PrivateDaemon, context: Path, own: OwnRegistry
) -> None:
    """So a build farm whose machines begin with nothing pushes no new digest for no change."""
    (context / "Dockerfile").write_text(
        f"FROM busybox AS make\nRUN {RANDOM} >/made\nFROM scratch\nCOPY --from=make /made /made\n"
    )
    place = f"type=registry,ref={own.host}/team/cache:1"
    build(daemon, "-t", "same:1", "--cache-to", f"{place},mode=max")
    told = build(other, "-t", "same:1", "--cache-from", place)
    images = [one.request("GET", "/images/same:1/json")[1]["Id"] for one in (daemon, other)]
    assert images[0] == images[1], told


def test_the_least_has_the_steps_of_the_result(
    daemon: PrivateDaemon, other: PrivateDaemon, context: Path, own: OwnRegistry
) -> None:
    (context / "Dockerfile").write_text(
        STAGES.replace("/made\n", "/made2\n", 1).replace("/made /made", "/made2 /made")
    )
    place = f"{own.host}/team/cache:1"
    build(daemon, "-t", "least:1", "--cache-to", f"type=registry,ref={place},mode=min")
    body = own.ask("GET", "/v2/team/cache/manifests/1").json
    config = own.ask("GET", f"/v2/team/cache/blobs/{body['config']['digest']}").json
    assert len(config["records"]) == 2 == len(body["layers"])
    told = build(other, "-t", "least:1", "--cache-from", f"type=registry,ref={place}")
    assert "Built" in told and made(other, "least:1")


def test_an_image_brings_its_cache(
    daemon: PrivateDaemon, other: PrivateDaemon, context: Path, own: OwnRegistry
) -> None:
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN {RANDOM} >/made\nRUN {RANDOM} >/own\n")
    name = f"{own.host}/team/inline:1"
    build(daemon, "-t", name, "--cache-to", "type=inline", "--push")
    told = build(other, "-t", "inline:1", "--cache-from", name)
    assert cached(told) >= 2, told
    assert made(other, "inline:1") == made(daemon, name)


def layers(daemon: PrivateDaemon, image: str) -> list[str]:
    return list(daemon.request("GET", f"/images/{image}/json")[1]["RootFS"]["Layers"])


def test_an_image_brings_its_cache_in_an_archive(
    daemon: PrivateDaemon, other: PrivateDaemon
) -> None:
    """All in the classic form, as what builds on fresh machines without BuildKit has it."""
    files = {"Dockerfile": f"FROM busybox\nRUN {RANDOM} >/made\nRUN {RANDOM} >/own\n"}
    asked = {"BUILDKIT_INLINE_CACHE": "1"}
    first = classicbuild.build(daemon, files, t="brought:1", buildargs=asked)
    assert "[Warning]" not in first.text
    other.docker("load", stdin=daemon.docker("save", "brought:1").stdout)
    from_it = {"cachefrom": json.dumps(["brought:1"]), "buildargs": asked}
    again = classicbuild.build(other, files, t="again:1", **from_it)
    assert [step.is_cached for step in again.steps] == [False, True, True]
    assert layers(other, again.image) == layers(daemon, first.image)
    files["Dockerfile"] += "RUN echo more >/more\n"
    more = classicbuild.build(other, files, **from_it)
    assert [step.is_cached for step in more.steps] == [False, True, True, False]


def test_a_cache_that_is_away_or_damaged_is_a_warning(
    other: PrivateDaemon, context: Path, own: OwnRegistry
) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo x >/made\n")
    (context.parent / "broken").mkdir()
    (context.parent / "broken" / "index.json").write_text("[")
    own.push_image("team/none", tag="1")
    places = ["127.0.0.1:1/team/cache", f"{own.host}/team/none:1", f"{own.host}/team/missing"]
    flags = [word for place in places for word in ("--cache-from", place)]
    flags += ["--cache-from", "type=local,src=broken"]
    told = build(other, *flags, "--cache-to", "type=registry,ref=127.0.0.1:1/team/cache")
    assert told.count("warning: cache from ") == len(places) + 1, told
    assert "Built sha256:" in told
    strict = "type=registry,ref=127.0.0.1:1/team/cache,ignore-error=false"
    assert "127.0.0.1:1" in build(other, "--cache-to", strict, code=1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-o", "type=oci,dest=a,compression=zstd"], "gzip or uncompressed"),
        (["-o", "type=local,dest=a,color=red"], "unknown attribute 'color'"),
        (["--cache-to", "type=inline,mode=max"], "type=registry"),
        (["--cache-to", "type=registry,ref=UPPER"], "must be lowercase"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_built(
    daemon: PrivateDaemon, context: Path, words: list[str], told: str
) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN exit 9\n")
    assert told in build(daemon, *words, code=1)
