"""Manifest lists under way: their files, and the text that is pushed. No registry."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from estiba.cli import manifests, manifeststore
from estiba.cli.manifeststore import Entry, NoManifest
from estiba.cli.parse import Arguments, UsageError
from estiba.cli.refs import reference
from estiba.client.errors import ClientError
from estiba.client.host import parse
from estiba.client.http import Client

_DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
_OCI = "application/vnd.oci.image.manifest.v1+json"
_TARGET = reference("host.example:5000/team/app:all")


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESTIBA_CONFIG", str(tmp_path))
    return tmp_path


def entry(name: str, kind: str = _DOCKER, **platform: Any) -> Entry:
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, "name": name}).encode()
    descriptor = {
        "mediaType": kind, "digest": f"sha256:{hashlib.sha256(raw).hexdigest()}",
        "size": len(raw), "platform": {"architecture": "amd64", "os": "linux"} | platform,
    }  # fmt: skip
    return Entry(f"host.example:5000/team/app:{name}", descriptor, raw)


def call(function: Any, *words: str, **values: Any) -> int:
    defaults = {"arch": "", "os": "", "os_version": "", "variant": "", "os_features": [],
                "amend": False, "insecure": False, "verbose": False, "purge": False}  # fmt: skip
    client = Client(parse("unix:///nonexistent", None))
    return int(function(client, Arguments(defaults | values, set(values), list(words))))


def test_the_files_are_dockers(config: Path) -> None:
    member = reference("host.example:5000/team/app:amd64")
    made = entry("amd64")
    manifeststore.save(_TARGET, member, made)
    path = config / "manifests/host.example-5000_team_app-all/host.example-5000_team_app-amd64"
    content = json.loads(path.read_text())
    assert list(content) == ["Ref", "Descriptor", "Raw", "SchemaV2Manifest"]
    assert content["SchemaV2Manifest"]["name"] == "amd64"
    assert manifeststore.get(_TARGET, member) == made
    assert manifeststore.get_all(_TARGET) == [made]
    manifeststore.remove(_TARGET)
    with pytest.raises(NoManifest, match="No such manifest: host"):
        manifeststore.get_all(_TARGET)
    assert list((config / "manifests").iterdir()) == []


def test_a_tag_cannot_lead_out_of_the_folder(config: Path) -> None:
    (config / "manifests").mkdir()
    (config / "x").mkdir()
    for name in ("../x", "a/../b", "..", "host/..", "/x"):
        assert call(manifests.rm, name) == 1
        with pytest.raises(UsageError):
            reference(name)
    assert (config / "x").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Ref": "x"}', '{"Ref":"x","Descriptor":5}',
                                  '{"Ref":"x","Descriptor":{"mediaType":5},"Raw":""}'])  # fmt: skip
def test_damaged_files(config: Path, text: str) -> None:
    member = reference("host.example:5000/team/app:amd64")
    manifeststore.save(_TARGET, member, entry("amd64"))
    next((config / "manifests").glob("*/*")).write_text(text)
    with pytest.raises(ClientError, match="damaged"):
        manifeststore.get(_TARGET, member)


def test_the_text_of_a_list() -> None:
    arm = entry("arm64", architecture="arm64", variant="v8", features=["x"], created="2026")
    kind, text = manifests.list_text(_TARGET, [entry("amd64"), arm])
    assert kind == "application/vnd.docker.distribution.manifest.list.v2+json"
    content = json.loads(text)
    assert list(content["manifests"][0]) == ["mediaType", "size", "digest", "platform"]
    # Of a config's many members only those of a platform.
    assert content["manifests"][1]["platform"] == {
        "architecture": "arm64", "os": "linux", "variant": "v8",
    }  # fmt: skip
    assert text.startswith('{\n   "schemaVersion": 2,\n   "mediaType"')
    kind, _ = manifests.list_text(_TARGET, [entry("a", _OCI), entry("b")])
    assert kind == "application/vnd.oci.image.index.v1+json"
    with pytest.raises(UsageError, match="different registry"):
        manifests.list_text(reference("other.example/x"), [entry("amd64")])


def test_annotations() -> None:
    member = reference("host.example:5000/team/app:arm64")
    manifeststore.save(_TARGET, member, entry("arm64"))
    call(manifests.annotate, str(_TARGET), str(member), arch="arm64", variant="v8")
    call(manifests.annotate, str(_TARGET), str(member), os_features=["a", "b,a"], os_version="10")
    assert manifeststore.get(_TARGET, member).descriptor["platform"] == {
        "architecture": "arm64", "os": "linux", "os.version": "10", "os.features": ["a", "b"],
        "variant": "v8",
    }  # fmt: skip
    with pytest.raises(UsageError, match="unsupported os/arch combination: /vax"):
        call(manifests.annotate, str(_TARGET), str(member), arch="vax")
    with pytest.raises(UsageError, match="does not exist in"):
        call(manifests.annotate, str(_TARGET), "host.example:5000/team/app:none", arch="arm64")


def test_what_is_pushed_says_where_it_runs() -> None:
    member = reference("host.example:5000/team/app:x")
    manifeststore.save(_TARGET, member, entry("x", architecture=""))
    with pytest.raises(UsageError, match="must have an OS and Architecture"):
        call(manifests.push, str(_TARGET))
    with pytest.raises(UsageError, match="refusing to amend"):
        call(manifests.create, str(_TARGET), str(member))
    assert call(manifests.create, str(_TARGET), str(member), amend=True) == 0
