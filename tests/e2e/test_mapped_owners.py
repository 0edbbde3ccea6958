"""Mounts whose files have other owners inside than on the host."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon
from tests.support.mounting import tmpfs
from tests.support.parity import ESTIBA

from estiba.kernel.mounts import mounted_under

pytestmark = pytest.mark.e2e

RUNTIMES = ("crun", "runc")


def owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_owners_are_mapped_both_ways(daemon: PrivateDaemon, tmp_path: Path, runtime: str) -> None:
    """The directory's owner is the container's user inside, and the user is the owner outside."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "others").touch()
    os.chown(source / "others", 77, 78)
    (source / "mine").touch()
    for path in (source, source / "mine"):
        os.chown(path, 1000, 1001)
    script = "stat -c '%u:%g' /dst /dst/mine /dst/others; touch /dst/new"
    mapped = ("--runtime", runtime, "-v", f"{source}:/dst:idmap")
    assert daemon.run(*mapped, "busybox", "sh", "-c", f"{script}; chown 77 /dst/mine").split() == [
        "0:0", "0:0", "77:78",
    ]  # fmt: skip
    assert owner(source / "new") == (1000, 1001)
    assert owner(source / "mine") == (77, 1001)
    asked = daemon.run("-u", "5:6", *mapped, "busybox", "sh", "-c", f"{script}2").split()
    assert asked == ["5:6", "77:6", "77:78"]
    assert owner(source / "new2") == (1000, 1001)
    assert not [p for p in mounted_under(daemon.exec_root) if p.name.startswith("pinned-")]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_owners_by_ranges_on_a_volume(daemon: PrivateDaemon, runtime: str) -> None:
    daemon.docker("volume", "create", "ranges")
    data = Path(daemon.request("GET", "/volumes/ranges")[1]["Mountpoint"])
    for number in (0, 10, 99):
        (data / str(number)).touch()
        os.chown(data / str(number), number, number)
    ranges = "uids=0-1000-10#10-10-1;gids=0-2000-100"
    script = "stat -c '%u:%g' /dst/0 /dst/10 /dst/99; touch /dst/new"
    done = daemon.docker(
        "run", "--rm", "--runtime", runtime, "-v", f"ranges:/dst:idmap={ranges}", "busybox",
        "sh", "-c", script, check=False,
    )  # fmt: skip
    assert done.stdout.split() == [b"1000:2000", b"10:2010", b"65534:2099"]
    assert b"Value too large" in done.stderr, "an id that no range names makes no file"
    annotated = ("--annotation", "estiba.idmap=/dst=uids=0-1000-10")
    mounted = ("--mount", "type=volume,src=ranges,dst=/dst")
    assert daemon.run(*annotated, *mounted, "busybox", "stat", "-c%u", "/dst/0") == "1000\n"
    daemon.docker("volume", "rm", "ranges")


def test_owners_of_a_subpath_and_of_a_file(daemon: PrivateDaemon, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 1000, 1000)
    assert daemon.run("-v", f"{tmp_path}/file:/f:idmap", "busybox", "stat", "-c%u", "/f") == "0\n"
    daemon.docker("volume", "create", "below")
    data = Path(daemon.request("GET", "/volumes/below")[1]["Mountpoint"])
    (data / "sub").mkdir()
    os.chown(data / "sub", 1000, 1000)
    done = daemon.run(
        "--annotation", "estiba.idmap=/dst", "--mount",
        "type=volume,src=below,dst=/dst,volume-subpath=sub",
        "busybox", "sh", "-c", "touch /dst/new; stat -c%u /dst",
    )  # fmt: skip
    assert done == "0\n"
    assert owner(data / "sub" / "new") == (1000, 1000)
    daemon.docker("volume", "rm", "below")


def test_file_systems_with_and_without_owners_that_can_be_mapped(
    daemon: PrivateDaemon, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "ram") as ram:
        os.chown(ram, 1000, 1000)
        script = "touch /dst/new; stat -c%u /dst"
        done = daemon.run("-v", f"{ram}:/dst:idmap", "busybox", "sh", "-c", script)
        assert done == "0\n"
        assert owner(ram / "new") == (1000, 1000)
    done = daemon.docker("run", "--rm", "-v", "/proc/sys:/dst:idmap=uids=0-1-1", "busybox", "true",
                         check=False)  # fmt: skip
    assert b"the file system proc of /proc/sys" in done.stderr
    assert b"knows no id mapping" in done.stderr


def test_our_own_client_asks_by_a_word_of_mount(daemon: PrivateDaemon, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    os.chown(source, 1000, 1000)
    done = subprocess.run(
        [*ESTIBA, "run", "--rm", "--mount", f"type=bind,src={source},dst=/dst,idmap", "busybox",
         "stat", "-c%u", "/dst"],
        env={**daemon.client_environment(), "ESTIBA_HOST": daemon.url}, capture_output=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == b"0\n"
