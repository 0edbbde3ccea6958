"""What is stated of an image, through a whole daemon: in by a layout, out by push and save."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.registry import CONFIG, INDEX, LAYER, MANIFEST, OwnRegistry, digest_of
from tests.support.served import leftovers, tar_of

pytestmark = pytest.mark.e2e

IN_TOTO = "application/vnd.in-toto+json"
SPDX = "https://spdx.dev/Document"
KEY = "in-toto.io/predicate-type"

Json = dict[str, Any]


def layout(name: str) -> bytes:
    """An OCI layout of one image, of which something is stated."""
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes | Json, **more: Any) -> Json:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        blobs[digest_of(body)] = body
        return {"mediaType": kind, "digest": digest_of(body), "size": len(body), **more}

    tar = tar_of({"file": b"1" * 4000})
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar)]},
    }
    image = blob(
        MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blob(CONFIG, config),
            "layers": [blob(LAYER, tar)],
        },
    )
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": image["digest"].removeprefix("sha256:")}}],
        "predicateType": SPDX,
        "predicate": {"name": "a document"},
    }
    notes = {KEY: SPDX}
    referrer = blob(
        MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": IN_TOTO,
            "config": blob("application/vnd.oci.empty.v1+json", b"{}"),
            "layers": [blob(IN_TOTO, statement, annotations=notes)],
            "subject": image,
            "annotations": notes,
        },
    )
    named = {**image, "annotations": {"io.containerd.image.name": name}}
    members = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": [named, referrer]}
        ).encode(),
        **{f"blobs/sha256/{digest.removeprefix('sha256:')}": blobs[digest] for digest in blobs},
    }
    return tar_of(members)


def load(daemon: PrivateDaemon, name: str) -> None:
    kind = {"Content-Type": "application/x-tar"}
    status, answer = daemon.request("POST", "/images/load", layout(name), kind)
    assert status == 200 and b"errorDetail" not in answer, answer


def stated(daemon: PrivateDaemon, name: str) -> list[Json]:
    """The statements in a layout of the image."""
    status, data = daemon.request("GET", f"/images/{name}/get?format=oci")
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {
            info.name: file.read() for info in tar if (file := tar.extractfile(info)) is not None
        }

    def read(digest: str) -> Json:
        return dict(json.loads(found[f"blobs/{digest.replace(':', '/')}"]))

    entries = json.loads(found["index.json"])["manifests"]
    return [
        read(layer["digest"])
        for entry in entries
        if entry.get("artifactType") == IN_TOTO
        for layer in read(entry["digest"])["layers"]
    ]


def remove(daemon: PrivateDaemon, name: str) -> None:
    status, answer = daemon.request("DELETE", f"/images/{name}")
    assert status == 200, answer


def test_from_a_layout_to_a_registry(
    make_daemon: Callable[..., PrivateDaemon], tmp_path: Path
) -> None:
    daemon = make_daemon()
    daemon.start()
    with OwnRegistry(tmp_path / "registry") as registry:
        name = f"{registry.host}/team/app:1"
        load(daemon, name)
        daemon.restart()
        assert len(stated(daemon, name)) == 1
        output = daemon.docker("push", name).stdout.decode()
        digest = output.partition("digest: ")[2].split()[0]
        entries = registry.ask("GET", f"/v2/team/app/referrers/{digest}").json["manifests"]
        assert [entry["annotations"][KEY] for entry in entries] == [SPDX]
        assert f"Attestation {SPDX}: {entries[0]['digest']}" in output
        manifest = registry.ask("GET", f"/v2/team/app/manifests/{entries[0]['digest']}").json
        blob = registry.ask("GET", f"/v2/team/app/blobs/{manifest['layers'][0]['digest']}").json
        assert blob["predicate"] == {"name": "a document"}
        assert blob["subject"][0]["digest"] == {"sha256": digest.removeprefix("sha256:")}
        remove(daemon, name)
        wait_until(lambda: not leftovers(daemon), what="the layers to go")


def test_what_the_client_and_the_api_show(make_daemon: Callable[..., PrivateDaemon]) -> None:
    daemon = make_daemon()
    daemon.start()
    load(daemon, "app:1")
    status, (listed,) = daemon.request("GET", "/images/app:1/attestations")
    assert status == 200
    assert listed["PredicateType"] == SPDX and "Statement" not in listed
    assert listed["Descriptor"]["mediaType"] == IN_TOTO
    assert listed["Descriptor"]["annotations"] == {KEY: SPDX}
    (whole,) = daemon.request("GET", f"/images/app:1/attestations?statement=1&type={SPDX}")[1]
    (saved,) = stated(daemon, "app:1")
    saved["subject"][0].pop("name")
    assert whole["Statement"] == saved, "about the same manifest"
    assert daemon.request("GET", "/images/app:1/attestations?type=other") == (200, [])
    assert daemon.request("GET", "/images/none/attestations")[0] == 404
    daemon.import_busybox()
    assert daemon.request("GET", "/images/busybox/attestations") == (200, [])

    table = estiba(daemon, "image", "attestations", "app:1").splitlines()
    assert table[0].split() == ["PREDICATE", "TYPE", "DIGEST", "SIZE"]
    assert table[1].split()[0] == SPDX
    text = estiba(daemon, "image", "attestations", "--type", "spdx", "app:1")
    assert json.loads(text) == whole["Statement"]
    assert estiba(daemon, "image", "attestations", "--type", "slsa", "app:1") == ""


def estiba(daemon: PrivateDaemon, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "estiba.cli.main", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "ESTIBA_HOST": daemon.url},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "point", ["content.written#2", "attestations.kept", "image.writing#2", "image.written#2"]
)
def test_a_death_on_the_way_in(make_daemon: Callable[..., PrivateDaemon], point: str) -> None:
    """The image is there then, with all that is stated of it or without; not with a part."""
    daemon = make_daemon()
    daemon.start({"ESTIBA_FAILPOINTS": f"{point}=kill"})
    name = "app:1"
    with contextlib.suppress(OSError, http.client.HTTPException):
        load(daemon, name)
    daemon.wait_death()
    daemon.start()
    assert len(stated(daemon, name)) == (1 if point.startswith("image.written") else 0)
    load(daemon, name)
    assert [one["predicateType"] for one in stated(daemon, name)] == [SPDX]
    remove(daemon, name)
    wait_until(lambda: not leftovers(daemon), what="the layers to go")
