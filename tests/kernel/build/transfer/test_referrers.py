"""What is stated of an image goes to registries with it, and is found there by its manifest."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.kernel.build.transfer.transfer_lab import Shop, add
from tests.support.registries import GenuineRegistry
from tests.support.registry import OwnRegistry
from tests.support.scripted import Ask, Reply, scripted

from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import ANONYMOUS
from estiba.distribution.repository import Repository
from estiba.distribution.settings import RegistrySettings
from estiba.images.attestations import IN_TOTO, SLSA, SPDX, Predicate, attach
from estiba.images.images import Images
from estiba.images.progress import Progress
from estiba.images.pushing import Pusher
from estiba.images.saving import OCI, archive
from estiba.model.errors import Unavailable
from estiba.model.reference import parse_reference

pytestmark = pytest.mark.kernel

BOTH = [Predicate(SPDX, b'{"packages":[]}'), Predicate(SLSA, b'{"runDetails":{}}')]
TYPES = {SPDX, SLSA}


def push(images: Images, name: str) -> list[Progress]:
    pusher = Pusher(images, RegistrySettings(attempts=1), 3)
    return list(pusher.push(parse_reference(name), None, ANONYMOUS, CancelToken()))


def attested(images: Images, name: str) -> None:
    for record in images.named(parse_reference(name)):
        attach(images, record.id, BOTH)


def digest_of_push(steps: list[Progress]) -> str:
    (pushed,) = [one.pushed for one in steps if one.pushed]
    return pushed[1]


def statement(own: OwnRegistry, repository: str, manifest: dict[str, Any]) -> dict[str, Any]:
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == IN_TOTO
    answer = own.ask("GET", f"/v2/{repository}/blobs/{layer['digest']}")
    assert answer.status == 200
    return dict(answer.json)


def test_our_registry_lists_them(images: Images, own: OwnRegistry) -> None:
    name = f"{own.host}/team/app:1"
    add(images, name, {"a": b"1" * 5000})
    attested(images, name)
    digest = digest_of_push(push(images, name))
    answer = own.ask("GET", f"/v2/team/app/referrers/{digest}?artifactType={quote(IN_TOTO)}")
    assert answer.status == 200 and answer.header("OCI-Filters-Applied") == "artifactType"
    entries = answer.json["manifests"]
    assert {entry["annotations"]["in-toto.io/predicate-type"] for entry in entries} == TYPES
    for entry in entries:
        manifest = own.ask("GET", f"/v2/team/app/manifests/{entry['digest']}").json
        assert manifest["subject"]["digest"] == digest
        said = statement(own, "team/app", manifest)
        assert said["subject"] == [
            {"name": f"{own.host}/team/app", "digest": {"sha256": digest.removeprefix("sha256:")}}
        ]
        assert said["_type"] == "https://in-toto.io/Statement/v1"
        assert said["predicateType"] in TYPES
    assert own.ask("GET", "/v2/team/app/tags/list").json["tags"] == ["1"]


def test_a_second_push_adds_nothing(images: Images, own: OwnRegistry) -> None:
    name = f"{own.host}/team/app:1"
    add(images, name, {"a": b"1" * 5000})
    attested(images, name)
    digest = digest_of_push(push(images, name))
    assert digest_of_push(push(images, name)) == digest
    entries = own.ask("GET", f"/v2/team/app/referrers/{digest}").json["manifests"]
    assert len(entries) == len(BOTH)


def test_each_platform_has_its_own(images: Images, own: OwnRegistry) -> None:
    name = f"{own.host}/team/app:1"
    records = [
        add(images, "", {"a": b"1" * 5000}),
        add(images, "", {"a": b"2" * 5000}, architecture="arm64"),
    ]
    for record in records:
        attach(images, record.id, BOTH)
    pusher = Pusher(images, RegistrySettings(), 3)
    current = [found for one in records if (found := images.get(one.id))]
    steps = list(
        pusher.push_images(
            [parse_reference(name)], current, lambda _: ANONYMOUS, CancelToken(), {"k": "v"}
        )
    )
    index = own.ask("GET", f"/v2/team/app/manifests/{digest_of_push(steps)}").json
    assert len(index["manifests"]) == 2
    for entry in index["manifests"]:
        manifest = own.ask("GET", f"/v2/team/app/manifests/{entry['digest']}").json
        assert manifest["annotations"] == {"k": "v"}
        listed = own.ask("GET", f"/v2/team/app/referrers/{entry['digest']}").json["manifests"]
        assert len(listed) == len(BOTH)
    assert images.named(parse_reference(name)) == [], "no tag is given here"


def test_a_registry_without_such_lists_gets_an_index(
    images: Images, genuine: GenuineRegistry
) -> None:
    """distribution-spec 1.1, "Referrers Tag Schema"."""
    name = f"{genuine.host}/team/app:1"
    reference = parse_reference(name)
    add(images, name, {"a": b"1" * 5000})
    attested(images, name)
    digest = digest_of_push(push(images, name))
    push(images, name)
    with Repository(reference, RegistrySettings()) as repository:
        found = repository.referrers(digest, IN_TOTO)
        assert {one.annotations["in-toto.io/predicate-type"] for one in found} == TYPES
        assert len(found) == len(BOTH)
        tag = digest.replace(":", "-")
        assert set(repository.tags()) == {"1", tag}
        for one in found:
            manifest = json.loads(repository.manifest(one.content.digest).body)
            assert manifest["subject"]["digest"] == digest


def test_a_registry_that_refuses_them_gets_the_image(images: Images, own: OwnRegistry) -> None:
    def relay(ask: Ask) -> Reply:
        if ask.method == "PUT" and b"subject" in ask.body:
            body = b'{"errors": [{"code": "MANIFEST_INVALID", "message": "no artifacts here"}]}'
            return Reply(status=400, body=body)
        return pass_on(own, ask)

    with scripted(relay) as front:
        name = f"{front.host}/team/app:1"
        add(images, name, {"a": b"1" * 5000})
        attested(images, name)
        steps = push(images, name)
    told = [one.status for one in steps if "does not take the attestation" in one.status]
    assert len(told) == len(BOTH) and all("no artifacts here" in line for line in told)
    answer = own.ask("GET", f"/v2/team/app/manifests/{digest_of_push(steps)}")
    assert answer.status == 200


def test_a_registry_that_fails_on_them_fails_the_push(images: Images, own: OwnRegistry) -> None:
    def relay(ask: Ask) -> Reply:
        if ask.method == "PUT" and b"subject" in ask.body:
            return Reply(status=500)
        return pass_on(own, ask)

    with scripted(relay) as front:
        name = f"{front.host}/team/app:1"
        add(images, name, {"a": b"1" * 5000})
        attested(images, name)
        with pytest.raises(Unavailable):
            push(images, name)
    assert own.ask("GET", "/v2/team/app/manifests/1").status == 404, "the tag comes last"


def pass_on(own: OwnRegistry, ask: Ask) -> Reply:
    kind = {"Content_Type": ask.header("Content-Type")} if ask.header("Content-Type") else {}
    answer = own.ask(ask.method, ask.path, ask.body, **kind)
    kept = ("Content-Type", "Docker-Content-Digest", "Location", "OCI-Subject", "Range")
    headers = {name: answer.header(name) for name in kept if answer.header(name)}
    if ask.method == "HEAD":
        headers["Content-Length"] = answer.header("Content-Length") or "0"
    return Reply(status=answer.status, body=answer.body, headers=headers)


def test_skopeo_takes_the_image_out_of_a_layout_that_has_them(
    images: Images, tmp_path: Path, shop: Shop
) -> None:
    record = add(images, "", {"a": b"1" * 5000})
    attach(images, record.id, BOTH)
    current = images.get(record.id)
    assert current is not None
    path = tmp_path / "layout.tar"
    path.write_bytes(b"".join(archive(images, [current], ["team/app:1"], OCI)))
    done = subprocess.run(
        ["skopeo", "copy", "-q", f"oci-archive:{path}:1", f"dir:{tmp_path / 'out'}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["config"]["digest"] == record.id
