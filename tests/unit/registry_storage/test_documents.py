"""What a manifest says, and which ones are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.registry_storage.pushing import descriptor, index, manifest

from estiba.model.digest import digest_of
from estiba.registry.storage.documents import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_V1,
    OCI_INDEX,
    OCI_MANIFEST,
    media_type_of,
    parse_manifest,
)
from estiba.registry.storage.errors import ManifestInvalid, ManifestTooLarge

D = {"mediaType": "x", "size": 1, "digest": digest_of(b"d")}


def test_an_image() -> None:
    subject = descriptor(b"subject", OCI_MANIFEST)
    body = manifest(
        b"config", b"one", b"two", b"one", subject=subject, annotations={"a": "b", "c": 1}
    )
    document = parse_manifest(body, OCI_MANIFEST)
    assert document.blobs == tuple(map(digest_of, (b"config", b"one", b"two")))
    assert document.sizes[digest_of(b"config")] == 6
    assert document.subject == digest_of(b"subject")
    assert document.artifact_type == "application/vnd.oci.image.config.v1+json"
    assert document.annotations == {"a": "b"}


def test_an_index() -> None:
    document = parse_manifest(index(b"one", b"two", artifactType="x"), OCI_INDEX)
    assert document.children == (digest_of(b"one"), digest_of(b"two"))
    assert (document.blobs, document.artifact_type) == ((), "x")


def test_layers_that_are_elsewhere() -> None:
    foreign = {**D, "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}
    kept_apart = {**D, "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar"}
    body = json.dumps({"schemaVersion": 2, "config": D, "layers": [foreign, kept_apart]}).encode()
    document = parse_manifest(body, DOCKER_MANIFEST)
    assert document.blobs == document.elsewhere[:1] == (D["digest"],)
    assert set(document.contents) == {D["digest"]}


def test_an_unknown_type_is_searched_for_descriptors() -> None:
    body = json.dumps({"blobs": [D], "config": {**D, "digest": digest_of(b"c")}}).encode()
    document = parse_manifest(body, "application/x.unknown+json")
    assert document.blobs == (digest_of(b"c"), D["digest"])


def test_types_of_what_does_not_say_them() -> None:
    assert media_type_of(b'{"schemaVersion": 2, "layers": []}') == (OCI_MANIFEST, False)
    assert media_type_of(b'{"schemaVersion": 2, "manifests": []}') == (OCI_INDEX, False)
    assert media_type_of(b'{"schemaVersion": 1}') == (DOCKER_V1, False)
    assert media_type_of(b'{"mediaType": "a/b"}') == ("a/b", True)
    for body in (b"", b"[]", b"{", b'{"mediaType": 5}', b"[" * 100_000):
        assert media_type_of(body) == (OCI_MANIFEST, False)


def image(**more: Any) -> bytes:
    said = {"schemaVersion": 2, "config": D, "layers": [D], **more}
    return json.dumps({key: value for key, value in said.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("body", "media_type", "why"),
    [
        (b"", OCI_MANIFEST, "no JSON"),
        (b"\xff\xfe", OCI_MANIFEST, "no JSON"),
        (b"[" * 100_000, OCI_MANIFEST, "no JSON"),
        (b'{"a":' * 100_000, OCI_MANIFEST, "no JSON"),
        (b"[]", OCI_MANIFEST, "no JSON object"),
        (b'"x"', "a/b", "no JSON object"),
        (image(mediaType=5), OCI_MANIFEST, "mediaType"),
        (image(mediaType=OCI_INDEX), OCI_MANIFEST, "the manifest says that it is"),
        (image(schemaVersion=1), OCI_MANIFEST, "schemaVersion"),
        (image(config=...), OCI_MANIFEST, "no config"),
        (image(config=[]), OCI_MANIFEST, "no config"),
        (image(layers={}), OCI_MANIFEST, "layers of the manifest is no list"),
        (image(layers=["x"]), DOCKER_MANIFEST, "no descriptor"),
        (image(layers=[{**D, "size": -1}]), OCI_MANIFEST, "no valid size"),
        (image(layers=[{**D, "size": True}]), OCI_MANIFEST, "no valid size"),
        (image(layers=[{**D, "size": "1"}]), OCI_MANIFEST, "no valid size"),
        (image(layers=[{"size": 1}]), OCI_MANIFEST, "no digest"),
        (image(layers=[{**D, "digest": "sha256:../../x"}]), OCI_MANIFEST, "invalid digest"),
        (image(layers=[{**D, "digest": "md5:aa"}]), OCI_MANIFEST, "invalid digest"),
        (image(layers=[D] * 5000), OCI_MANIFEST, "more than 4096"),
        (image(subject={"digest": 5, "size": 1}), OCI_MANIFEST, "no digest"),
        (image(manifests=[D]), OCI_MANIFEST, "no manifests"),
        (image(manifests=[D]), OCI_INDEX, "neither layers nor a config"),
        (image(config=..., layers=..., manifests=5), DOCKER_LIST, "no list of manifests"),
        (image(config="x"), "a/b", "no descriptor"),
    ],
)
def test_what_is_refused(body: bytes, media_type: str, why: str) -> None:
    with pytest.raises(ManifestInvalid, match=why):
        parse_manifest(body, media_type)


def test_a_manifest_has_its_limit() -> None:
    with pytest.raises(ManifestTooLarge):
        parse_manifest(b" " * (4 << 20) + b"{}", OCI_MANIFEST)
