"""Each endpoint of distribution-spec 1.1 (end-1 to end-13), asked as its conformance tests do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.registry import CONFIG, INDEX, MANIFEST, OwnRegistry, descriptor, digest_of

NOWHERE = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRegistry]:
    with OwnRegistry(tmp_path_factory.mktemp("registry") / "root") as made:
        yield made


def test_base(registry: OwnRegistry) -> None:
    for path in ("/v2/", "/v2"):
        answer = registry.ask("GET", path)
        assert (answer.status, answer.json) == (200, {})
        assert answer.header("Docker-Distribution-API-Version") == "registry/2.0"
    assert registry.ask("HEAD", "/v2/").status == 200
    assert registry.ask("POST", "/v2/").status == 405


# -- pull ----------------------------------------------------------------------------------


def test_pull_of_a_blob(registry: OwnRegistry) -> None:
    data = bytes(range(256)) * 1024
    digest = registry.push_blob("pull/blob", data)
    path = f"/v2/pull/blob/blobs/{digest}"
    head = registry.ask("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.header("Content-Length") == str(len(data))
    answer = registry.ask("GET", path)
    assert (answer.status, answer.body) == (200, data)
    for each in (head, answer):
        assert each.header("Docker-Content-Digest") == digest
        assert each.header("ETag") == f'"{digest}"'
        assert each.header("Accept-Ranges") == "bytes"
    assert registry.ask("GET", path.replace(":", "%3A")).body == data


@pytest.mark.parametrize("size", [1000, 300_000])
def test_ranges_of_a_blob(registry: OwnRegistry, size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    path = f"/v2/pull/ranges/blobs/{registry.push_blob('pull/ranges', data)}"
    for text, part in [("10-19", data[10:20]), ("-5", data[-5:]), ("100-", data[100:])]:
        answer = registry.ask("GET", path, Range=f"bytes={text}")
        assert (answer.status, answer.body) == (206, part)
        first = data.index(part) if text != "-5" else size - 5
        assert answer.header("Content-Range") == f"bytes {first}-{first + len(part) - 1}/{size}"
    answer = registry.ask("GET", path, Range=f"bytes={size}-")
    assert (answer.status, answer.code) == (416, "RANGE_INVALID")
    assert answer.header("Content-Range") == f"bytes */{size}"
    assert registry.ask("GET", path, Range="nonsense").status == 200


def test_conditional_requests(registry: OwnRegistry) -> None:
    blob = registry.push_blob("pull/conditions", b"data")
    image = registry.push_image("pull/conditions", "v1")
    for path, digest in [
        (f"/v2/pull/conditions/blobs/{blob}", blob),
        ("/v2/pull/conditions/manifests/v1", image),
    ]:
        answer = registry.ask("GET", path, If_None_Match=f'"{digest}"')
        assert (answer.status, answer.body) == (304, b"")
        assert answer.header("ETag") == f'"{digest}"'
        assert registry.ask("GET", path, If_None_Match='"other"').status == 200


def test_what_is_not_there(registry: OwnRegistry) -> None:
    registry.push_image("missing", "v1")
    for method in ("GET", "HEAD"):
        assert registry.ask(method, f"/v2/missing/blobs/{NOWHERE}").status == 404
        assert registry.ask(method, f"/v2/missing/manifests/{NOWHERE}").status == 404
        assert registry.ask(method, "/v2/missing/manifests/v2").status == 404
        assert registry.ask(method, "/v2/missing/nothing/manifests/v2").status == 404
    assert registry.ask("GET", f"/v2/missing/blobs/{NOWHERE}").code == "BLOB_UNKNOWN"
    assert registry.ask("GET", "/v2/missing/manifests/v2").code == "MANIFEST_UNKNOWN"
    assert registry.ask("GET", "/v2/nobody/tags/list").code == "NAME_UNKNOWN"
    assert registry.ask("GET", "/v2/A/tags/list").code == "NAME_INVALID"
    assert registry.ask("GET", "/v2/a/blobs/sha256:x").code == "DIGEST_INVALID"


def test_a_manifest_by_tag_and_digest(registry: OwnRegistry) -> None:
    content = registry.image("pull/manifest")
    data = json.dumps(content, indent=3).encode()
    digest = digest_of(data)
    path = "/v2/pull/manifest/manifests/"
    answer = registry.ask("PUT", f"{path}v1", data, Content_Type=MANIFEST)
    assert answer.status == 201
    assert answer.header("Location") == f"{path}{digest}"
    for reference in ("v1", digest):
        found = registry.ask("GET", path + reference, Accept=MANIFEST)
        assert (found.status, found.body) == (200, data)
        assert found.header("Content-Type") == MANIFEST
        assert found.header("Docker-Content-Digest") == digest
        head = registry.ask("HEAD", path + reference)
        assert (head.status, head.body) == (200, b"")
        assert head.header("Content-Length") == str(len(data))
        assert head.header("Docker-Content-Digest") == digest


# -- push ----------------------------------------------------------------------------------


def test_post_with_the_whole_blob(registry: OwnRegistry) -> None:
    data = b"all at once"
    digest = digest_of(data)
    answer = registry.ask("POST", f"/v2/push/post/blobs/uploads/?digest={digest}", data)
    assert answer.status == 201
    assert answer.header("Location") == f"/v2/push/post/blobs/{digest}"
    assert registry.ask("GET", answer.header("Location")).body == data
    wrong = registry.ask("POST", f"/v2/push/post/blobs/uploads/?digest={NOWHERE}", data)
    assert (wrong.status, wrong.code) == (400, "DIGEST_INVALID")
    assert registry.ask("HEAD", f"/v2/push/post/blobs/{NOWHERE}").status == 404


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_streamed_upload(registry: OwnRegistry, is_chunked: bool) -> None:
    data = bytes(range(256)) * 4096
    path = registry.begin("push/stream")
    pieces = (data[at : at + 10_000] for at in range(0, len(data), 10_000))
    body = pieces if is_chunked else data
    answer = registry.ask("PATCH", path, body, Content_Type="application/octet-stream")
    assert (answer.status, answer.body) == (202, b"")
    assert answer.header("Range") == f"0-{len(data) - 1}"
    assert answer.header("Docker-Upload-UUID") in answer.header("Location")
    digest = digest_of(data)
    done = registry.ask("PUT", f"{answer.header('Location')}?digest={digest}")
    assert done.status == 201
    assert done.header("Docker-Content-Digest") == digest
    assert registry.ask("GET", done.header("Location")).body == data
    assert registry.ask("GET", path).code == "BLOB_UPLOAD_UNKNOWN"


def test_chunks(registry: OwnRegistry) -> None:
    data = b"first chunk, second chunk, third"
    path = registry.begin("push/chunks")
    early = registry.ask("PATCH", path, data[11:20], Content_Range="11-19")
    assert (early.status, early.code) == (416, "BLOB_UPLOAD_INVALID")
    assert early.header("Range") == "0-0"
    first = registry.ask("PATCH", path, data[:11], Content_Range="0-10")
    assert (first.status, first.header("Range")) == (202, "0-10")
    again = registry.ask("PATCH", path, data[:11], Content_Range="0-10")
    assert (again.status, again.header("Range")) == (416, "0-10")
    status = registry.ask("GET", path)
    assert (status.status, status.header("Range")) == (204, "0-10")
    assert status.header("Location") == path
    second = registry.ask("PATCH", path, data[11:26], Content_Range="11-25")
    assert (second.status, second.header("Range")) == (202, "0-25")
    digest = digest_of(data)
    gap = registry.ask("PUT", f"{path}?digest={digest}", data[26:], Content_Range="27-32")
    assert gap.status == 416
    done = registry.ask("PUT", f"{path}?digest={digest}", data[26:], Content_Range="26-31")
    assert done.status == 201
    assert registry.ask("GET", f"/v2/push/chunks/blobs/{digest}").body == data


@pytest.mark.parametrize(
    ("text", "status"), [("0-", 416), ("5-1", 416), ("a-b", 416), ("-1-2", 416), ("0-5", 400)]
)
def test_content_ranges_that_are_wrong(registry: OwnRegistry, text: str, status: int) -> None:
    path = registry.begin("push/ranges")
    assert registry.ask("PATCH", path, b"1234", Content_Range=text).status == status
    assert registry.ask("GET", path).header("Range") == "0-0"


def test_a_cancelled_upload(registry: OwnRegistry) -> None:
    path = registry.begin("push/cancel")
    assert registry.ask("PATCH", path, b"half").status == 202
    assert registry.ask("DELETE", path).status == 204
    for method in ("GET", "PATCH", "DELETE"):
        gone = registry.ask(method, path)
        assert (gone.status, gone.code) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_an_upload_without_a_digest(registry: OwnRegistry) -> None:
    path = registry.begin("push/nodigest")
    assert registry.ask("PUT", path, b"data").code == "DIGEST_INVALID"
    assert registry.ask("PUT", f"{path}?digest=md5:x", b"data").code == "DIGEST_INVALID"


def test_an_empty_blob(registry: OwnRegistry) -> None:
    digest = registry.push_blob("push/empty", b"")
    answer = registry.ask("GET", f"/v2/push/empty/blobs/{digest}")
    assert (answer.status, answer.body) == (200, b"")


def test_sha512(registry: OwnRegistry) -> None:
    import hashlib

    data = b"other digests"
    digest = "sha512:" + hashlib.sha512(data).hexdigest()
    done = registry.ask("PUT", f"{registry.begin('push/sha512')}?digest={digest}", data)
    assert done.status == 201
    assert registry.ask("GET", f"/v2/push/sha512/blobs/{digest}").body == data


def test_mounts(registry: OwnRegistry) -> None:
    digest = registry.push_blob("mount/source", b"to be mounted")
    registry.push_image("mount/source", "v1")
    asked = f"/v2/mount/target/blobs/uploads/?mount={digest}&from=mount/source"
    answer = registry.ask("POST", asked)
    assert answer.status == 201
    assert answer.header("Location") == f"/v2/mount/target/blobs/{digest}"
    assert registry.ask("GET", answer.header("Location")).body == b"to be mounted"
    assert registry.ask("POST", f"/v2/mount/any/blobs/uploads/?mount={digest}").status == 201
    for query in (
        f"mount={NOWHERE}&from=mount/source",
        f"mount={digest}&from=mount/nowhere",
        f"mount={digest}&from=../etc",
        f"mount={NOWHERE}",
        "mount=nonsense",
    ):
        fallback = registry.ask("POST", f"/v2/mount/other/blobs/uploads/?{query}")
        assert fallback.status == 202, query
        assert fallback.header("Location").startswith("/v2/mount/other/blobs/uploads/")


def test_an_index_and_what_a_manifest_refers_to(registry: OwnRegistry) -> None:
    content = registry.image("push/index")
    data = json.dumps(content).encode()
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(MANIFEST, data)]}
    path = "/v2/push/index/manifests/v1"
    missing = registry.ask("PUT", path, json.dumps(index).encode(), Content_Type=INDEX)
    assert (missing.status, missing.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    registry.push_manifest("push/index", content)
    registry.push_manifest("push/index", index, "v1", kind=INDEX)
    assert registry.ask("GET", path).header("Content-Type") == INDEX
    content["layers"] = [descriptor("application/x", b"never pushed")]
    wanting = registry.ask("PUT", path, json.dumps(content).encode(), Content_Type=MANIFEST)
    assert (wanting.status, wanting.code) == (400, "MANIFEST_BLOB_UNKNOWN")


def test_foreign_layers_are_not_asked_for(registry: OwnRegistry) -> None:
    content = registry.image("push/foreign")
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    foreign = {**descriptor(kind, b"elsewhere"), "urls": ["https://example.com/layer"]}
    content["layers"].append(foreign)
    registry.push_manifest("push/foreign", content, "v1")


def test_docker_schema_2(registry: OwnRegistry) -> None:
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    content = {**registry.image("push/docker"), "mediaType": kind}
    registry.push_manifest("push/docker", content, "v1", kind=kind)
    assert registry.ask("GET", "/v2/push/docker/manifests/v1").header("Content-Type") == kind


# -- content discovery ---------------------------------------------------------------------


def test_tags_in_pages(registry: OwnRegistry) -> None:
    tags = ["a", "b10", "b9", "c.d", "latest"]
    for tag in tags:
        registry.push_image("tags/some", tag)
    path = "/v2/tags/some/tags/list"
    assert registry.ask("GET", path).json == {"name": "tags/some", "tags": tags}
    found: list[str] = []
    following = f"{path}?n=2"
    while following:
        page = registry.ask("GET", following)
        assert len(page.json["tags"]) <= 2
        found += page.json["tags"]
        link = page.header("Link")
        assert not link or link.endswith('; rel="next"')
        following = link.partition(">")[0].removeprefix("<")
    assert found == tags
    assert registry.ask("GET", f"{path}?n=0").json["tags"] == []
    assert registry.ask("GET", f"{path}?last=b10").json["tags"] == tags[2:]
    assert registry.ask("GET", f"{path}?n=1&last=zzz").json["tags"] == []
    assert registry.ask("GET", f"{path}?n=-1").code == "PAGINATION_NUMBER_INVALID"


def test_the_catalog_in_pages(tmp_path: Path) -> None:
    names = [f"r{number}/x" for number in range(5)]
    with OwnRegistry(tmp_path / "root") as registry:
        assert registry.ask("GET", "/v2/_catalog").json == {"repositories": []}
        for name in names:
            registry.push_image(name, "v1")
        assert registry.ask("GET", "/v2/_catalog").json == {"repositories": names}
        page = registry.ask("GET", "/v2/_catalog?n=3")
        assert page.json == {"repositories": names[:3]}
        assert page.header("Link") == '</v2/_catalog?n=3&last=r2%2Fx>; rel="next"'
        last = registry.ask("GET", "/v2/_catalog?n=3&last=r2%2Fx")
        assert (last.json, last.header("Link")) == ({"repositories": names[3:]}, "")


def test_referrers(registry: OwnRegistry) -> None:
    subject_data = json.dumps(registry.image("refs", "subject")).encode()
    subject = descriptor(MANIFEST, subject_data)
    nothing = registry.ask("GET", f"/v2/refs/referrers/{subject['digest']}")
    assert (nothing.status, nothing.json["manifests"]) == (200, [])
    made = {}
    for seed, kind in [("sbom", "application/sbom"), ("seal", "application/seal"), ("s2", "")]:
        content = {**registry.image("refs", seed), "subject": subject}
        content["annotations"] = {"seed": seed}
        if kind:
            content["artifactType"] = kind
        data = json.dumps(content).encode()
        digest = digest_of(data)
        path = f"/v2/refs/manifests/{digest}"
        answer = registry.ask("PUT", path, data, Content_Type=MANIFEST)
        assert (answer.status, answer.header("OCI-Subject")) == (201, subject["digest"])
        made[digest] = {
            **descriptor(MANIFEST, data),
            "artifactType": kind or CONFIG,
            "annotations": {"seed": seed},
        }
    found = registry.ask("GET", f"/v2/refs/referrers/{subject['digest']}")
    assert found.header("Content-Type") == INDEX
    assert found.header("OCI-Filters-Applied") == ""
    assert {entry["digest"]: entry for entry in found.json["manifests"]} == made
    some = registry.ask(
        "GET", f"/v2/refs/referrers/{subject['digest']}?artifactType=application/seal"
    )
    assert some.header("OCI-Filters-Applied") == "artifactType"
    assert [entry["artifactType"] for entry in some.json["manifests"]] == ["application/seal"]
    gone = some.json["manifests"][0]["digest"]
    assert registry.ask("DELETE", f"/v2/refs/manifests/{gone}").status == 202
    left = registry.ask("GET", f"/v2/refs/referrers/{subject['digest']}").json["manifests"]
    assert {entry["digest"] for entry in left} == set(made) - {gone}


# -- content management --------------------------------------------------------------------


def test_deletion(registry: OwnRegistry) -> None:
    digest = registry.push_image("delete/some", "one")
    registry.push_image("delete/some", "two")
    registry.push_image("delete/some", "three", seed="other")
    path = "/v2/delete/some/manifests/"
    assert registry.ask("DELETE", f"{path}two").status == 202
    assert registry.ask("GET", f"{path}two").status == 404
    assert registry.ask("GET", f"{path}{digest}").status == 200
    assert registry.ask("DELETE", path + digest).status == 202
    assert registry.ask("GET", f"{path}one").status == 404
    assert registry.ask("GET", path + digest).status == 404
    again = registry.ask("DELETE", path + digest)
    assert (again.status, again.code) == (404, "MANIFEST_UNKNOWN")
    assert registry.ask("GET", "/v2/delete/some/tags/list").json["tags"] == ["three"]


def test_deletion_of_a_blob(registry: OwnRegistry) -> None:
    digest = registry.push_blob("delete/blob", b"short-lived")
    registry.push_blob("delete/other", b"short-lived")
    path = f"/v2/delete/blob/blobs/{digest}"
    assert registry.ask("DELETE", path).status == 202
    assert registry.ask("GET", path).status == 404
    assert registry.ask("DELETE", path).code == "BLOB_UNKNOWN"
    assert registry.ask("GET", f"/v2/delete/other/blobs/{digest}").body == b"short-lived"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v2/a/tags/list", "GET, HEAD"),
        ("DELETE", "/v2/_catalog", "GET, HEAD"),
        ("POST", "/v2/a/manifests/v1", "GET, PUT, DELETE, HEAD"),
        ("PUT", f"/v2/a/blobs/{NOWHERE}", "GET, DELETE, HEAD"),
        ("PUT", f"/v2/a/referrers/{NOWHERE}", "GET, HEAD"),
        ("GET", "/v2/a/blobs/uploads/", "POST"),
    ],
)
def test_methods_that_are_not_there(
    registry: OwnRegistry, method: str, path: str, allowed: str
) -> None:
    answer = registry.ask(method, path)
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert answer.header("Allow") == allowed


def test_a_repository_without_tags_is_still_there(registry: OwnRegistry) -> None:
    registry.push_image("delete/last", "only")
    assert registry.ask("DELETE", "/v2/delete/last/manifests/only").status == 202
    assert registry.ask("GET", "/v2/delete/last/tags/list").json == {
        "name": "delete/last", "tags": [],
    }  # fmt: skip
