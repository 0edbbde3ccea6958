"""Hostile archives and images through the whole daemon: a canary of the host stays intact."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.busybox import busybox_tar
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.hostile import SECRET, archive, attacks, make_canary, member, snapshot

pytestmark = pytest.mark.e2e

TAR = {"Content-Type": "application/x-tar"}
UP = "../" * 20


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return make_canary(tmp_path / "outside")


def saved(layer: bytes) -> bytes:
    """A `docker save` archive of an image with that layer."""
    diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    manifest = [{"Config": "config", "Layers": ["layer"], "RepoTags": ["hostile:1"]}]
    return archive(
        member("config", data=json.dumps(config).encode()),
        member("layer", data=layer),
        member("manifest.json", data=json.dumps(manifest).encode()),
    )


def by_import(daemon: PrivateDaemon, data: bytes) -> int:
    path = "/images/create?fromSrc=-&repo=hostile&tag=1"
    return daemon.request("POST", path, data, TAR)[0]


def by_load(daemon: PrivateDaemon, data: bytes) -> int:
    return daemon.request("POST", "/images/load?quiet=1", saved(data), TAR)[0]


def by_put(daemon: PrivateDaemon, data: bytes, *, running: bool) -> int:
    name = "running" if running else "resting"
    daemon.request(
        "POST", f"/containers/create?name={name}", {"Image": "busybox", "Cmd": ["sleep", "1000"]}
    )
    if running:
        daemon.request("POST", f"/containers/{name}/start")
    status = daemon.request("PUT", f"/containers/{name}/archive?path=/", data, TAR)[0]
    daemon.request("GET", f"/containers/{name}/archive?path=/out/canary")
    daemon.request("DELETE", f"/containers/{name}?force=1")
    return status


WAYS: dict[str, Callable[[PrivateDaemon, bytes], int]] = {
    "import": by_import,
    "load": by_load,
    "archive of a resting container": functools.partial(by_put, running=False),
    "archive of a running container": functools.partial(by_put, running=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_archives_reach_nothing_outside(daemon: PrivateDaemon, outside: Path, way: str) -> None:
    before = snapshot(outside)
    for name, data in attacks(str(outside)).items():
        status = WAYS[way](daemon, data)
        assert status in (200, 400, 413), name
        assert snapshot(outside) == before, name
        if way in ("import", "load"):
            daemon.docker("rmi", "-f", "hostile:1", check=False)
    assert not (outside.parent / "evil").exists()
    ingest = daemon.data_root / "images" / "ingest"
    wait_until(lambda: not list(ingest.iterdir()), what="the files of removed layers to go")


def image_with(*changes: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Busybox, with members replaced."""
    replaced = {info.name.strip("/") for info, _ in changes}
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(busybox_tar())) as source,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for info in source:
            first = info.name.split("/")[0]
            if info.name not in replaced and first not in replaced:
                tar.addfile(info, source.extractfile(info) if info.isfile() else None)
        for info, data in changes:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.SYMTYPE, linkname=target)


LINKED = ["etc/hosts", "etc/hostname", "etc/resolv.conf", "etc", "proc", "dev", "sys", "data"]
FLAGS: dict[str, list[str]] = {
    "a volume that is filled": ["-v", "hostile:/data"],
    "a volume below": ["-v", "hostile:/data/below"],
    "a bind": ["-v", "BIND:/data"],
    "a bind below": ["-v", "BIND:/data/below/deeper"],
    "a bind of a file": ["-v", "BIND/file:/data/canary"],
    "a tmpfs": ["--tmpfs", "/data"],
    "a tmpfs below": ["--tmpfs", "/data/below"],
    "a working directory": ["-w", "/data/new"],
    "an init": ["--init"],
}


@pytest.mark.parametrize("runtime", ["crun", "runc"])
@pytest.mark.parametrize("absolute", [True, False])
def test_links_of_an_image_lead_nowhere(
    daemon: PrivateDaemon, outside: Path, tmp_path: Path, runtime: str, absolute: bool
) -> None:
    """Whatever the engine and the runtime mount, make or read lies in the container's root."""
    (tmp_path / "bind").mkdir()
    (tmp_path / "bind" / "file").touch()
    before = snapshot(outside)
    run = ["run", "--rm", "--runtime", runtime]
    for name in LINKED:
        target = str(outside) if absolute else UP + str(outside).lstrip("/")
        if "/" in name:
            target += "/canary"
        daemon.import_image("linked:1", image_with(symlink(name, target)))
        cases = FLAGS if name == "data" else {"nothing more": []}
        for case, flags in cases.items():
            given = [flag.replace("BIND", str(tmp_path / "bind")) for flag in flags]
            done = daemon.docker(*run, *given, "linked:1", "cat", "/data/canary", check=False)
            assert snapshot(outside) == before, (name, case)
            assert SECRET not in done.stdout, (name, case)
        daemon.docker("volume", "rm", "hostile", check=False)
        daemon.docker("rmi", "linked:1")


USERS = [
    symlink("etc/passwd", "OUT"),
    symlink("etc/passwd", "/proc/self/fd/3"),
    member("etc/passwd", tarfile.FIFOTYPE),
    member("etc/passwd", tarfile.CHRTYPE, devmajor=1, devminor=9),
    member("etc/passwd", tarfile.DIRTYPE),
    member("etc/passwd", data=b"evil:x:0:0:evil" + b"\xff:" * 100_000 + b"\n" * 1_000_000),
]


@pytest.mark.parametrize("which", range(len(USERS)))
def test_users_come_from_the_image_alone(daemon: PrivateDaemon, outside: Path, which: int) -> None:
    """No file of the host is read for names, no device or pipe is opened, nothing is run."""
    (outside / "passwd").write_text("outsider:x:4242:4242::/:/bin/sh\n")
    marker = outside / "ran"
    script = f"#!/bin/sh\ntouch {marker}\n".encode()
    info, data = USERS[which]
    if info.linkname == "OUT":
        info.linkname = str(outside / "passwd")
    daemon.import_image(
        "users:1",
        image_with(
            (info, data),
            member("etc/nsswitch.conf", data=b"passwd: evil files\ngroup: evil\n"),
            member("lib/x86_64-linux-gnu/libnss_evil.so.2", data=script, mode=0o755),
            member("usr/bin/xz", data=script, mode=0o755),
            member("bin/getent", data=script, mode=0o755),
        ),
    )
    done = daemon.docker("run", "--rm", "-u", "outsider", "users:1", "id", check=False)
    assert done.returncode == 125
    assert b"unable to find user outsider" in done.stderr
    assert "1234" in daemon.run("-u", "1234:5678", "users:1", "grep", "Uid", "/proc/self/status")
    daemon.docker("create", "--name", "named", "-u", "outsider", "users:1")
    for suffix in ("&copyUIDGID=1", ""):
        daemon.request("PUT", f"/containers/named/archive?path=/{suffix}", archive(), TAR)
    daemon.docker("rm", "named")
    assert not marker.exists()
    daemon.docker("rmi", "users:1")


def test_no_working_directory_leads_through_a_descriptor(daemon: PrivateDaemon) -> None:
    daemon.import_image(
        "leaky:1",
        image_with(symlink("link", "/proc/self/fd"), symlink("fd", "/proc/self/fd/9")),
    )
    daemon.docker("run", "-d", "--name", "leaky", "leaky:1", "sleep", "1000")
    look = ["ls", "../../../etc"]
    for path in ("/proc/self/fd/7", "/proc/1/fd/3/..", "/link/8", "/fd"):
        done = daemon.docker("run", "--rm", "-w", path, "leaky:1", *look, check=False)
        assert done.returncode == 125 and b"passwd" not in done.stdout, path
        done = daemon.docker("exec", "-w", path, "leaky", *look, check=False)
        assert done.returncode != 0 and b"passwd" not in done.stdout, path
    daemon.docker("rm", "-f", "leaky")
    daemon.docker("rmi", "leaky:1")


def test_secrets_stay_out_of_sight(daemon: PrivateDaemon) -> None:
    """Environment and registry credentials: in no log, no command line, no readable file."""
    secret = "hidden-" + os.urandom(8).hex()
    daemon.docker("run", "-d", "--name", "sec", "-e", f"A={secret}", "busybox", "sleep", "1000")
    daemon.docker("exec", "-d", "-e", f"B={secret}", "sec", "sleep", "1000")
    daemon.request("POST", "/images/create?fromImage=x", headers={"X-Registry-Auth": secret})
    daemon.request("POST", "/containers/create", {"Image": "busybox", "Env": [secret, 5]})
    shown = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, check=True).stdout
    assert secret.encode() not in shown
    assert secret not in daemon.log.read_text()
    for program in ("conmon", "crun"):
        for path in Path("/proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):
                if path.read_text() == f"{program}\n":
                    assert secret.encode() not in (path.parent / "environ").read_bytes()
    daemon.docker("rm", "-f", "sec")


def test_modes_of_what_lies_on_the_host(daemon: PrivateDaemon) -> None:
    daemon.docker("volume", "create", "private")
    daemon.docker("run", "-d", "--name", "modes", "busybox", "sleep", "1000")

    def mode(path: Path) -> int:
        return path.stat().st_mode & 0o7777

    assert mode(daemon.data_root) == 0o710
    assert mode(daemon.exec_root / "containers") == 0o710
    rootfs = daemon.exec_root / "containers" / daemon.inspect("modes")["Id"] / "rootfs"
    look = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "ls", str(rootfs)]
    assert subprocess.run(look, capture_output=True, check=False).returncode != 0
    assert mode(daemon.data_root / "volumes") == 0o701
    assert mode(daemon.data_root / "volumes" / "private") == 0o701
    assert mode(daemon.data_root / "estiba.db") == 0o600
    assert mode(daemon.socket) == 0o660
    # Not by rglob: that fails where a directory vanishes meanwhile.
    for folder, folders, names in os.walk(daemon.data_root):
        folders[:] = [name for name in folders if name not in ("snapshots", "images")]
        for path in (Path(folder, name) for name in (*folders, *names)):
            with contextlib.suppress(FileNotFoundError):
                if not path.is_symlink():
                    assert not mode(path) & 0o002 or "volumes" in path.parts, path
    assert os.stat(daemon.data_root / "containers").st_mode & 0o007 == 0
    daemon.docker("rm", "-f", "modes")
    daemon.docker("volume", "rm", "private")
