"""Finished images as files, archives and pushes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.build.transfer.transfer_lab import add
from tests.support.registries import GenuineRegistry
from tests.support.registry import OwnRegistry

from estiba.build.outputs import Output, Parts, parse_outputs, push, stream
from estiba.build.transfer.imports import Hub
from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import ANONYMOUS
from estiba.distribution.settings import RegistrySettings
from estiba.images.attestations import IN_TOTO, SPDX, Predicate, attach
from estiba.images.images import Images, Naming, NewImage
from estiba.images.progress import Progress
from estiba.images.record import ImageRecord
from estiba.kernel.mounts import mounted_under
from estiba.model.errors import Cancelled, InvalidArgument, NotFound
from estiba.storage.snapshots import SnapshotStore

pytestmark = pytest.mark.kernel

EPOCH_NS = 1_600_000_000 * 10**9


@pytest.fixture
def snapshots(images: Images, tmp_path: Path) -> Iterator[SnapshotStore]:
    store = SnapshotStore(tmp_path / "snapshots", images.layers)
    store.open()
    yield store
    assert list(mounted_under(tmp_path)) == []


@pytest.fixture
def parts(images: Images, snapshots: SnapshotStore) -> Parts:
    return Parts(images, snapshots)


def output(kind: str, name: str = "", **attributes: str) -> Output:
    named = {key.replace("_", "-"): value for key, value in attributes.items()}
    named |= {"name": name} if name else {}
    (made,) = parse_outputs([{"type": kind, **named}])
    return made


def members(pieces: Iterator[bytes]) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        return {info.name: info for info in tar}


def odd_layer() -> bytes:
    """Files of every kind, owners, a deletion."""
    buffer = io.BytesIO()
    kinds = {
        "bin": tarfile.DIRTYPE,
        "bin/sh": tarfile.REGTYPE,
        "bin/hard": tarfile.LNKTYPE,
        "bin/soft": tarfile.SYMTYPE,
        "null": tarfile.CHRTYPE,
        "pipe": tarfile.FIFOTYPE,
        ".wh.gone": tarfile.REGTYPE,
    }
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid = kind, 0o4755, 1000, 2000
            info.mtime = 1_700_000_000
            info.devmajor, info.devminor = 1, 3
            if kind == tarfile.LNKTYPE:
                info.linkname = "bin/sh"
            if kind == tarfile.SYMTYPE:
                info.linkname = "/etc/passwd"
            info.size = 4 if name == "bin/sh" else 0
            tar.addfile(info, io.BytesIO(b"text"[: info.size]))
    return buffer.getvalue()


def add_odd(images: Images, *below: bytes) -> ImageRecord:
    infos = [images.ingest(io.BytesIO(tar)) for tar in (*below, odd_layer())]
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [info.diff_id for info in infos]},
    }
    record = images.add(NewImage(json.dumps(config).encode(), infos), Naming(), "build")
    images.leases.release([info.diff_id for info in infos])
    return record


def gone() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("gone"))
    return buffer.getvalue()


# -- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("below", [[], [gone()]], ids=["one layer", "two layers"])
def test_the_files_of_an_image(images: Images, parts: Parts, below: list[bytes]) -> None:
    found = members(stream(parts, output("tar"), [add_odd(images, *below)]))
    assert set(found) == {"bin", "bin/sh", "bin/hard", "bin/soft", "null", "pipe"}
    first, second = sorted((found["bin/sh"], found["bin/hard"]), key=lambda info: info.type)
    assert (first.size, second.linkname) == (4, first.name) and second.islnk()
    assert found["bin/sh"].mode == 0o4755
    assert (found["bin/sh"].uid, found["bin/sh"].gid) == (1000, 2000)
    assert found["bin/soft"].linkname == "/etc/passwd"
    assert found["null"].ischr() and (found["null"].devmajor, found["null"].devminor) == (1, 3)
    assert {info.mtime for info in found.values()} == {1_700_000_000}


def test_no_file_is_newer_than_asked_for(images: Images, snapshots: SnapshotStore) -> None:
    record = add_odd(images, gone())
    clamped = Parts(images, snapshots, newest_ns=EPOCH_NS)
    data = b"".join(stream(clamped, output("local"), [record]))
    times = {info.mtime for info in members(iter([data])).values()}
    assert times == {EPOCH_NS // 10**9}
    assert b"".join(stream(clamped, output("local"), [record])) == data


def test_each_platform_has_a_directory(images: Images, parts: Parts) -> None:
    records = [
        add(images, "", {"a": b"1"}, {"b": b"2"}),
        add(images, "", {"c": b"3"}, architecture="arm64"),
    ]
    found = members(stream(parts, output("local"), records))
    assert set(found) == {
        "linux_amd64",
        "linux_amd64/a",
        "linux_amd64/b",
        "linux_arm64",
        "linux_arm64/c",
    }
    assert found["linux_amd64"].isdir()
    one = members(stream(parts, output("local", platform_split="true"), records[:1]))
    assert set(one) == {"linux_amd64", "linux_amd64/a", "linux_amd64/b"}
    with pytest.raises(InvalidArgument, match="a directory each"):
        list(stream(parts, output("tar", platform_split="false"), records))


def test_an_image_without_files(images: Images, parts: Parts) -> None:
    assert members(stream(parts, output("tar"), [add(images, "")])) == {}


def test_whoever_leaves_early_leaves_no_mount(images: Images, parts: Parts, tmp_path: Path) -> None:
    record = add(images, "", {"a": os.urandom(3 << 20)}, {"b": b"2"})
    pieces = stream(parts, output("tar"), [record])
    next(pieces)
    assert list(mounted_under(tmp_path))
    pieces.close()
    assert list(mounted_under(tmp_path)) == []
    with images.leases.frozen() as leased:
        assert leased == set()


def test_a_layer_that_is_gone(images: Images, parts: Parts) -> None:
    record = add(images, "", {"a": b"1"}, {"b": b"2"})
    images.layers.remove(record.layers[0])
    for kind in ("oci", "docker"):
        with pytest.raises(NotFound, match="missing"):
            list(stream(parts, output(kind), [record]))


# -- archives ------------------------------------------------------------------------------


def skopeo(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        ["skopeo", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("compression", ["", "gzip", "uncompressed"])
@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_others_read_the_archives(
    images: Images, parts: Parts, tmp_path: Path, kind: str, compression: str
) -> None:
    record = add(images, "", {"a": b"1" * 9000}, {"b": b"2"})
    attach(images, record.id, [Predicate(SPDX, b"{}")])
    attributes = {"compression": compression} if compression else {}
    path = tmp_path / "archive.tar"
    made = output(kind, "example.org/team/app:1,team/other:2", **attributes)
    path.write_bytes(b"".join(stream(parts, made, [record])))
    place = {"oci": f"oci-archive:{path}:1", "docker": f"docker-archive:{path}"}[kind]
    found = skopeo("inspect", place)
    assert found["Os"] == "linux" and len(found["Layers"]) == 2
    with tarfile.open(path) as tar:
        names = tar.getnames()
        assert ("manifest.json" in names, "index.json" in names) == (
            kind == "docker",
            kind == "oci",
        )
        if kind == "docker":
            file = tar.extractfile("manifest.json")
            assert file is not None
            (entry,) = json.load(file)
            assert entry["RepoTags"] == ["example.org/team/app:1", "team/other:2"]
        else:
            index = tar.extractfile("index.json")
            assert index is not None
            assert IN_TOTO in {one.get("artifactType") for one in json.load(index)["manifests"]}
    assert images.list_all()[0].repo_tags == [], "the store's image has no such name"


# -- pushes --------------------------------------------------------------------------------


def hub(images: Images) -> Hub:
    return Hub(images, RegistrySettings(attempts=1), lambda _: ANONYMOUS, CancelToken())


def test_a_push_under_several_names(images: Images, own: OwnRegistry) -> None:
    record = add(images, "", {"a": b"1" * 9000})
    attach(images, record.id, [Predicate(SPDX, b"{}")])
    names = f"{own.host}/team/app:1,{own.host}/team/app:2,{own.host}/team/other"
    made = output("registry", names, **{"annotation.a": "b"})
    told: list[Progress] = []
    pushed = push(hub(images), made, [record], told.append)
    assert [str(one.reference) for one in pushed] == [
        f"{own.host}/team/app:1",
        f"{own.host}/team/app:2",
        f"{own.host}/team/other:latest",
    ]
    assert len({one.digest for one in pushed}) == 1
    for path in ("team/app/manifests/1", "team/app/manifests/2", "team/other/manifests/latest"):
        answer = own.ask("GET", f"/v2/{path}")
        assert answer.header("Docker-Content-Digest") == pushed[0].digest
        assert len(answer.body) == pushed[0].size
        assert answer.json["annotations"] == {"a": "b"}
    for name in ("team/app", "team/other"):
        listed = own.ask("GET", f"/v2/{name}/referrers/{pushed[0].digest}").json["manifests"]
        assert len(listed) == 1, "one for all tags of a repository"
    assert {one.status for one in told} >= {"Pushed", "Layer already exists"}


def test_an_image_of_nothing_is_pushed(images: Images, genuine: GenuineRegistry) -> None:
    """Its manifest has a list of layers, though an empty one."""
    record = add(images, "")
    (pushed,) = push(
        hub(images), output("registry", f"{genuine.host}/a:1"), [record], lambda _: None
    )
    place = f"docker://{genuine.host}/a:1"
    assert skopeo("inspect", "--tls-verify=false", "--raw", place)["layers"] == []
    assert pushed.digest == skopeo("inspect", "--tls-verify=false", place)["Digest"]


def test_a_build_that_is_cancelled_pushes_nothing(images: Images, own: OwnRegistry) -> None:
    record = add(images, "", {"a": b"1" * 9000})
    cancelled = hub(images)
    made = output("registry", f"{own.host}/team/app:1")

    def stop(_step: Progress) -> None:
        cancelled.cancel.cancel()

    with pytest.raises(Cancelled):
        push(cancelled, made, [record], stop)
    assert own.ask("GET", "/v2/team/app/manifests/1").status == 404
    with images.leases.frozen() as leased:
        assert leased == set()
