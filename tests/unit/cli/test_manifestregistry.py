"""`manifest` and registries that mean no good: a clear error, and nothing stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.scripted import Ask, Reply, scripted

from estiba.cli import manifestregistry
from estiba.cli.refs import reference
from estiba.client.errors import ClientError

_OCI = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Shelf:
    """A registry's content: manifests by tag and digest, blobs by digest."""

    def __init__(self) -> None:
        self.content: dict[str, tuple[str, bytes]] = {}

    def put(self, data: bytes, kind: str = "", *, tag: str = "") -> dict[str, Any]:
        digest = digest_of(data)
        self.content[digest] = (kind, data)
        if tag:
            self.content[tag] = (kind, data)
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    def put_json(self, value: object, kind: str = "", *, tag: str = "") -> dict[str, Any]:
        return self.put(json.dumps(value).encode(), kind, tag=tag)

    def image(self, config: bytes = b'{"architecture":"amd64","os":"linux"}') -> dict[str, Any]:
        return self.put_json({
            "schemaVersion": 2, "mediaType": _OCI, "layers": [], "config": self.put(config),
        }, _OCI)  # fmt: skip

    def index(self, *members: object) -> None:
        content = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": list(members)}
        self.put_json(content, _INDEX, tag="1")

    def answer(self, ask: Ask) -> Reply:
        found = self.content.get(ask.path.rpartition("/")[2])
        if ask.path.rstrip("/") == "/v2":
            return Reply()
        if found is None:
            return Reply(status=404, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        kind, data = found
        headers: Mapping[str, str] = {"Content-Type": kind} if kind else {}
        return Reply(headers=dict(headers), body=data)


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESTIBA_CONFIG", str(tmp_path))


def test_a_list_that_is_well() -> None:
    shelf = Shelf()
    shelf.index(shelf.image() | {"platform": {"architecture": "arm", "os": "linux", "x": 1}})
    with scripted(shelf.answer) as server:
        place = reference(f"{server.host}/a:1")
        found = manifestregistry.fetch_any(place, insecure=True)
        assert isinstance(found, list)
        assert found[0].descriptor["platform"] == {"architecture": "arm", "os": "linux"}
        with pytest.raises(ClientError, match="is a manifest list"):
            manifestregistry.fetch(place, insecure=True)
        with pytest.raises(ClientError, match="no such manifest"):
            manifestregistry.fetch(reference(f"{server.host}/a:2"), insecure=True)


def _deep(levels: int) -> bytes:
    return b'{"x":' + levels * b"[" + levels * b"]" + b"}"


def _wicked(shelf: Shelf, kind: str) -> None:
    image = shelf.image()
    inner = shelf.put_json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": []}, _INDEX)
    members: dict[str, list[object]] = {
        "no digest": [{"mediaType": _OCI, "size": 5}],
        "no object": ["x"],
        "a path": [image | {"digest": "sha256:../../../etc/passwd"}],
        "a list within": [inner],
        "too many": [image] * 1001,
        "a platform that is none": [image | {"platform": 5}],
        "a config that is none": [shelf.image(b"[]")],
        "a config without end": [shelf.image(_deep(100_000))],
        "a deep config": [shelf.image(_deep(900))],
        "missing": [{"mediaType": _OCI, "digest": digest_of(b"no"), "size": 2}],
    }
    if kind == "no list":
        shelf.put_json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": 5}, _INDEX, tag="1")
    elif kind == "no config":
        shelf.put_json({"schemaVersion": 2, "mediaType": _OCI, "config": 5}, _OCI, tag="1")
    elif kind == "changed":
        shelf.index(image)
        shelf.content[image["digest"]] = (_OCI, b"{}")
    else:
        shelf.index(*members[kind])


@pytest.mark.parametrize(
    "kind",
    ["no digest", "no object", "a path", "a list within", "too many", "a platform that is none",
     "a config that is none", "a config without end", "a deep config", "missing", "no list",
     "no config", "changed"],
)  # fmt: skip
def test_what_is_wicked(kind: str) -> None:
    shelf = Shelf()
    _wicked(shelf, kind)
    with scripted(shelf.answer) as server, pytest.raises(ClientError) as caught:
        manifestregistry.fetch_any(reference(f"{server.host}/a:1"), insecure=True)
    assert str(caught.value)
