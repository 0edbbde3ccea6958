"""Build caches through real registries, layouts and images: there and back, on another host."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.build.transfer.transfer_lab import Shop, add, layer_tar
from tests.support.registries import GenuineRegistry, genuine_registry
from tests.support.registry import OwnRegistry
from tests.support.scripted import ScriptedServer
from tests.support.served import OCI_CONFIG, OCI_MANIFEST, Served

from estiba.build.record import CacheRecord
from estiba.build.transfer.exports import cache_layout, push_cache
from estiba.build.transfer.imports import Hub, ImportedCache, import_caches
from estiba.build.transfer.specs import CacheFrom, parse_cache_from
from estiba.build.transfer.wire import CONFIG, encode_cache, with_inline_cache
from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import ANONYMOUS, Credentials
from estiba.distribution.settings import RegistrySettings
from estiba.images import removal
from estiba.images.images import Images
from estiba.images.progress import Progress
from estiba.images.pushing import Pusher
from estiba.kernel.blocking import run_apart
from estiba.model.digest import Digest, digest_of
from estiba.model.errors import (
    Cancelled,
    DataLoss,
    EstibaError,
    InvalidArgument,
    NotFound,
    Unauthorized,
)
from estiba.model.image import Descriptor, Platform
from estiba.model.reference import Reference, parse_reference

pytestmark = pytest.mark.kernel

HOST = [Platform(architecture="amd64")]
SETTINGS = RegistrySettings(attempts=1)
FILES = [{"one": b"1" * 9000}, {"two": os.urandom(2 << 20)}]


def hub(images: Images, credentials: Credentials = ANONYMOUS) -> Hub:
    return Hub(images, SETTINGS, lambda _: credentials, CancelToken())


def records_of(layers: Sequence[Digest]) -> list[CacheRecord]:
    """A step for each layer, and one that changed nothing."""
    made = []
    parent = digest_of(b"base")
    for number, layer in enumerate([*layers, ""]):
        one = CacheRecord(id=f"r{number}", keys=[f"k{number}"], parent=parent, layer=layer)
        made.append(one)
        parent = one.id
    return made


def make_layers(images: Images, files: Sequence[Mapping[str, bytes]] = FILES) -> list[Digest]:
    """Leased for whoever asks."""
    return [images.ingest(io.BytesIO(layer_tar(one))).diff_id for one in files]


def fail(text: str) -> None:
    raise AssertionError(text)


def imported(
    images: Images,
    spec: Mapping[str, str],
    layout: Path | None = None,
    *,
    warn: Callable[[str], None] = fail,
    platforms: Sequence[Platform] = HOST,
    credentials: Credentials = ANONYMOUS,
) -> list[ImportedCache]:
    layouts = {0: layout} if layout is not None else {}
    specs = parse_cache_from([spec])
    return import_caches(hub(images, credentials), specs, platforms, layouts, warn)


def unpacked(pieces: Iterator[bytes], path: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        tar.extractall(path)
    return path


def holdings(images: Images) -> list[str]:
    return [*images.layers.diff_ids(), *images.content.digests(), *images.content.partials()]


@pytest.fixture(params=["own", "genuine"])
def host(request: pytest.FixtureRequest) -> str:
    registry: OwnRegistry | GenuineRegistry = request.getfixturevalue(request.param)
    return registry.host


# -- registries ----------------------------------------------------------------------------


def test_through_a_registry(shop: Shop, images: Images, host: str) -> None:
    reference = parse_reference(f"{host}/team/cache:main")
    layers = make_layers(images)
    told: list[Progress] = []
    first = push_cache(hub(images), reference, records_of(layers), told.append)
    assert {one.status for one in told} >= {"Preparing", "Pushed"}
    assert push_cache(hub(images), reference, records_of(layers), told.append) == first

    other = shop.images("other")
    (cache,) = imported(other, {"type": "registry", "ref": str(reference)})
    assert cache.records == records_of(layers) and cache.name == reference.familiar
    assert holdings(other) == [], "nothing is fetched before it is needed"
    moved: list[int] = []
    info = cache.fetch_layer(layers[1], lambda done, _: moved.append(done))
    assert info.diff_id == layers[1]
    removal.collect(other)
    assert list(other.layers.diff_ids()) == [layers[1]], "leased for the caller"
    assert cache.fetch_layer(layers[1]) == info
    other.leases.release([layers[1], layers[1]])
    removal.collect(other)
    assert holdings(other) == []
    cache.close()


def test_what_was_fetched_is_known_to_be_there(
    shop: Shop, images: Images, own: OwnRegistry
) -> None:
    """A later push of the layer sends nothing."""
    reference = parse_reference(f"{own.host}/team/cache:main")
    layers = make_layers(images)
    push_cache(hub(images), reference, records_of(layers), lambda _: None)
    other = shop.images("other")
    (cache,) = imported(other, {"ref": str(reference)})
    for layer in layers:
        cache.fetch_layer(layer)
    told: list[Progress] = []
    target = parse_reference(f"{own.host}/team/other:1")
    push_cache(hub(other), target, cache.records, told.append)
    assert "Mounted from team/cache" in {one.status for one in told}
    assert "Pushing" not in {one.status for one in told}
    cache.close()


def test_with_a_password(shop: Shop, images: Images, tmp_path: Path) -> None:
    ann = Credentials("ann", "secret")
    with genuine_registry(tmp_path / "closed", users={"ann": "secret"}) as registry:
        reference = parse_reference(f"{registry.host}/team/cache:1")
        layers = make_layers(images)
        with pytest.raises(Unauthorized):
            push_cache(hub(images), reference, records_of(layers), lambda _: None)
        push_cache(hub(images, ann), reference, records_of(layers), lambda _: None)
        other, warnings = shop.images("other"), list[str]()
        assert imported(other, {"ref": str(reference)}, warn=warnings.append) == []
        assert len(warnings) == 1 and str(reference) in warnings[0]
        (cache,) = imported(other, {"ref": str(reference)}, credentials=ann)
        assert cache.fetch_layer(layers[0]).diff_id == layers[0]
        cache.close()


def test_records_of_layers_that_have_gone_stay_at_home(
    shop: Shop, images: Images, own: OwnRegistry
) -> None:
    layers = make_layers(images)
    records = [*records_of(layers), CacheRecord(id="x", keys=["x"], layer=digest_of(b"gone"))]
    reference = parse_reference(f"{own.host}/team/cache:1")
    push_cache(hub(images), reference, records, lambda _: None)
    (cache,) = imported(shop.images("other"), {"ref": str(reference)})
    assert [one.id for one in cache.records] == ["r0", "r1", "r2"]
    cache.close()


def test_a_cache_of_no_layers(shop: Shop, images: Images, host: str) -> None:
    reference = parse_reference(f"{host}/team/cache:1")
    push_cache(hub(images), reference, records_of([]), lambda _: None)
    (cache,) = imported(shop.images("other"), {"ref": str(reference)})
    assert cache.records == records_of([])
    with pytest.raises(NotFound, match="not in the build cache"):
        cache.fetch_layer(digest_of(b"x"))
    cache.close()


def test_a_registry_that_is_away_is_a_warning(images: Images) -> None:
    warnings: list[str] = []
    specs = [{"ref": "127.0.0.1:1/team/cache:1"}, {"type": "local", "src": "x"}]
    found = import_caches(hub(images), parse_cache_from(specs), HOST, {}, warnings.append)
    assert found == []
    assert warnings[0].startswith("cache from 127.0.0.1:1/team/cache:1: ")
    assert warnings[1] == "cache from local: the client sent no such directory"


def test_a_build_that_is_cancelled_loads_nothing_more(images: Images, own: OwnRegistry) -> None:
    cancelled = hub(images)
    cancelled.cancel.cancel()
    spec = CacheFrom("registry", parse_reference(f"{own.host}/team/cache:1"))
    with pytest.raises(Cancelled):
        import_caches(cancelled, [spec], HOST, {}, fail)
    with pytest.raises(Cancelled):
        push_cache(cancelled, spec.reference or Reference("", ""), [], lambda _: None)


# -- hostile registries --------------------------------------------------------------------


def serve_cache(served: Served, tars: list[bytes], records: list[CacheRecord] | None = None) -> Any:
    """A cache of layers as plain tar; the descriptors of its layers."""
    kind = "application/vnd.oci.image.layer.v1.tar"
    entries = [served.blob(tar, kind) for tar in tars]
    layers = {
        digest_of(tar): Descriptor(media_type=kind, digest=one["digest"], size=one["size"])
        for tar, one in zip(tars, entries, strict=True)
    }
    config = encode_cache(records or records_of(list(layers)), layers)
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": served.blob(config, CONFIG),
        "layers": entries,
    }
    served.manifest(body, OCI_MANIFEST, "1")
    return entries


def test_a_blob_with_other_bytes_is_no_layer(
    images: Images, served: Served, registry: ScriptedServer
) -> None:
    tar = layer_tar({"a": b"1" * 5000})
    (entry,) = serve_cache(served, [tar])
    (cache,) = imported(images, {"ref": f"{registry.host}/x:1"})
    served.blobs[entry["digest"]] = layer_tar({"a": b"2" * 5000})
    with pytest.raises(DataLoss):
        cache.fetch_layer(digest_of(tar))
    assert holdings(images) == []
    served.blobs[entry["digest"]] = tar
    assert cache.fetch_layer(digest_of(tar)).diff_id == digest_of(tar), "the next try is whole"
    cache.close()


def test_a_layer_that_is_another_than_the_record_says(
    images: Images, served: Served, registry: ScriptedServer
) -> None:
    tar, lie = layer_tar({"a": b"1"}), digest_of(b"another")
    kind = "application/vnd.oci.image.layer.v1.tar"
    blob = served.blob(tar, kind)
    about = Descriptor(media_type=kind, digest=blob["digest"], size=blob["size"])
    config = encode_cache(records_of([lie]), {lie: about})
    body = {"schemaVersion": 2, "config": served.blob(config, CONFIG), "layers": [blob]}
    served.manifest(body, OCI_MANIFEST, "1")
    (cache,) = imported(images, {"ref": f"{registry.host}/x:1"})
    with pytest.raises(DataLoss):
        cache.fetch_layer(lie)
    assert holdings(images) == []
    cache.close()


def test_a_layer_that_is_no_tar(images: Images, served: Served, registry: ScriptedServer) -> None:
    serve_cache(served, [b"no tar" * 1000])
    (cache,) = imported(images, {"ref": f"{registry.host}/x:1"})
    with pytest.raises(EstibaError):
        cache.fetch_layer(digest_of(b"no tar" * 1000))
    assert holdings(images) == []
    cache.close()


def test_what_is_no_cache_is_a_warning(
    images: Images, served: Served, registry: ScriptedServer
) -> None:
    tar = layer_tar({"a": b"1"})
    served.image([tar], tag="image")
    other = {"schemaVersion": 2, "config": served.blob(b"{}", "application/x"), "layers": []}
    served.manifest(other, OCI_MANIFEST, "other")
    broken = {"schemaVersion": 2, "config": served.blob(b"{]", CONFIG), "layers": []}
    served.manifest(broken, OCI_MANIFEST, "broken")
    huge = {"schemaVersion": 2, "config": served.blob(b"{}", CONFIG) | {"size": 1 << 30}}
    served.manifest({**huge, "layers": []}, OCI_MANIFEST, "huge")
    lying = {"schemaVersion": 2, "config": served.blob(b'{"a":1}', OCI_CONFIG), "layers": []}
    served.blobs[lying["config"]["digest"]] = b'{"a":2}'
    served.manifest(lying, OCI_MANIFEST, "lying")
    warnings: list[str] = []
    for tag in ("missing", "image", "other", "broken", "huge", "lying"):
        spec = {"ref": f"{registry.host}/x:{tag}"}
        assert imported(images, spec, warn=warnings.append) == [], tag
    words = ["", "no build cache in it", "no build cache of this engine", "damaged", "16 MiB", ""]
    assert all(word in line for word, line in zip(words, warnings, strict=True)), warnings
    assert holdings(images) == []


async def test_a_fetch_that_is_cancelled_leaves_nothing(
    images: Images, served: Served, registry: ScriptedServer
) -> None:
    tar = layer_tar({"a": os.urandom(3 << 20)})
    (entry,) = serve_cache(served, [tar])

    def stalled(_ask: Any, reply: Any) -> Any:
        return replace(reply, hang=2 << 20)

    served.faults[entry["digest"]] = stalled
    build = hub(images)
    spec = CacheFrom("registry", parse_reference(f"{registry.host}/x:1"))
    (cache,) = import_caches(build, [spec], HOST, {}, fail)

    def moved(done: int, _all: int) -> None:
        if done >= 1 << 20:
            build.cancel.cancel()

    with pytest.raises(Cancelled):
        await run_apart(cache.fetch_layer, digest_of(tar), moved)
    assert holdings(images) == []
    cache.close()


# -- layouts -------------------------------------------------------------------------------


def test_through_a_layout(shop: Shop, images: Images, tmp_path: Path) -> None:
    layers = make_layers(images)
    data = b"".join(cache_layout(images, records_of(layers)))
    assert b"".join(cache_layout(images, records_of(layers))) == data
    layout = unpacked(iter([data]), tmp_path / "layout")
    other = shop.images("other")
    (cache,) = imported(other, {"type": "local", "src": "x"}, layout)
    assert cache.records == records_of(layers)
    assert [cache.fetch_layer(one).diff_id for one in layers] == layers
    assert cache.fetch_layer(layers[0]).diff_id == layers[0]
    other.leases.release([*layers, layers[0]])
    removal.collect(other)
    assert holdings(other) == []


def test_skopeo_reads_the_layout(images: Images, tmp_path: Path) -> None:
    layers = make_layers(images)
    layout = unpacked(cache_layout(images, records_of(layers)), tmp_path / "layout")
    done = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{layout}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["mediaType"] == CONFIG


def test_layouts_that_lead_elsewhere_or_lie(images: Images, tmp_path: Path) -> None:
    layers = make_layers(images)
    layout = unpacked(cache_layout(images, records_of(layers)), tmp_path / "layout")
    images.leases.release(layers)
    removal.collect(images)
    (cache,) = imported(images, {"type": "local", "src": "x"}, layout)
    index = json.loads((layout / "index.json").read_text())
    manifest_path = layout / "blobs/sha256" / index["manifests"][0]["digest"][7:]
    blob = (
        layout / "blobs/sha256" / json.loads(manifest_path.read_text())["layers"][0]["digest"][7:]
    )
    whole = blob.read_bytes()

    def refused(kind: type[EstibaError]) -> None:
        with pytest.raises(kind):
            cache.fetch_layer(layers[0])
        assert holdings(images) == []

    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(EstibaError)
    blob.write_bytes(whole + b"\0")
    refused(DataLoss)
    blob.unlink()
    refused(NotFound)
    aside = tmp_path / "aside"
    aside.write_bytes(whole)
    blob.symlink_to(aside)
    refused(NotFound)
    blob.unlink()
    os.mkfifo(blob)
    refused(NotFound)
    blob.unlink()
    os.mknod(blob, 0o20666, os.makedev(1, 5))
    refused(NotFound)
    blob.unlink()
    blob.write_bytes(whole)
    assert cache.fetch_layer(layers[0]).diff_id == layers[0]


@pytest.mark.parametrize("name", ["nothing", "index", "loop", "manifest", "link", "huge"])
def test_broken_layouts_are_a_warning(images: Images, tmp_path: Path, name: str) -> None:
    layout = unpacked(cache_layout(images, records_of(make_layers(images))), tmp_path / "layout")
    index = layout / "index.json"
    manifest = json.loads(index.read_text())["manifests"][0]
    if name == "nothing":
        index.unlink()
    elif name == "index":
        index.write_text("[" * 100_000)
    elif name == "loop":
        body = json.dumps({"schemaVersion": 2, "manifests": [{**manifest, "artifactType": ""}]})
        path = layout / "blobs/sha256" / manifest["digest"][7:]
        path.write_text(body)
    elif name == "manifest":
        (layout / "blobs/sha256" / manifest["digest"][7:]).write_text("{}")
    elif name == "link":
        index.rename(tmp_path / "index.json")
        index.symlink_to("../index.json")
    else:
        os.truncate(index, 1 << 40)
    warnings: list[str] = []
    assert imported(images, {"type": "local", "src": "x"}, layout, warn=warnings.append) == []
    assert len(warnings) == 1


# -- images --------------------------------------------------------------------------------


def make_image(images: Images, tag: str, architecture: str = "amd64") -> list[Digest]:
    layers = make_layers(images)
    diff_ids = {"type": "layers", "diff_ids": layers}
    config = json.dumps({"os": "linux", "architecture": architecture, "rootfs": diff_ids})
    made = json.loads(with_inline_cache(config.encode(), records_of(layers)))
    kept = {key: made[key] for key in made if key not in ("os", "architecture", "rootfs")}
    add(images, tag, *FILES, architecture=architecture, **kept)
    images.leases.release(layers)
    return layers


def test_an_image_carries_its_cache(shop: Shop, images: Images, host: str) -> None:
    name = f"{host}/team/app:1"
    layers = make_image(images, name)
    pusher = Pusher(images, SETTINGS, 3)
    list(pusher.push(parse_reference(name), None, ANONYMOUS, CancelToken()))
    for kind in ("registry", "inline"):
        other = shop.images(kind)
        (cache,) = imported(other, {"type": kind, "ref": name})
        assert cache.records == records_of(layers)
        assert [cache.fetch_layer(one).diff_id for one in layers] == layers
        cache.close()


def test_an_image_that_is_here_needs_no_registry(images: Images) -> None:
    name = "127.0.0.1:1/team/app:1"
    layers = make_image(images, name)
    for kind in ("registry", "inline"):
        (cache,) = imported(images, {"type": kind, "ref": name})
        assert cache.records == records_of(layers)
        assert cache.fetch_layer(layers[0]).diff_id == layers[0]
        images.leases.release([layers[0]])
    removal.remove(images, name, force=False, in_use=lambda _: [])
    with pytest.raises(NotFound, match="gone"):
        cache.fetch_layer(layers[0])


def test_several_platforms_of_one_image(images: Images, own: OwnRegistry, shop: Shop) -> None:
    name = f"{own.host}/team/app:1"
    make_image(images, "")
    make_image(images, "", "arm64")
    pusher = Pusher(images, SETTINGS, 3)
    tags = [parse_reference(name)]
    list(pusher.push_images(tags, images.list_all(), lambda _: ANONYMOUS, CancelToken()))
    other = shop.images("other")
    platforms = [*HOST, Platform(architecture="arm64")]
    (cache,) = imported(other, {"ref": name}, platforms=platforms)
    assert [one.id for one in cache.records] == ["r0", "r1", "r2"]
    warnings: list[str] = []
    only = [Platform(architecture="s390x")]
    assert imported(other, {"ref": name}, platforms=only, warn=warnings.append) == []
    assert "no matching manifest" in warnings[0]
    cache.close()


def test_an_export_that_fails_ends_nothing_else(images: Images, own: OwnRegistry) -> None:
    shared = hub(images)
    away = parse_reference("127.0.0.1:1/team/cache:1")
    layers = make_layers(images)
    with pytest.raises(EstibaError):
        push_cache(shared, away, records_of(layers), lambda _: None)
    reference = parse_reference(f"{own.host}/team/cache:1")
    assert push_cache(shared, reference, records_of(layers), lambda _: None)
    with pytest.raises(InvalidArgument, match="bad tag"):
        push_cache(shared, Reference(reference.domain, reference.path, "a b"), [], lambda _: None)
