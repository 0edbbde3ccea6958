"""Images of several platforms from one build, steps of another architecture by its emulator."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.busybox import busybox_tar
from tests.support.daemon import PrivateDaemon
from tests.support.foreign import ARCHITECTURE, arm64_busybox, emulated, is_emulated

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return arm64_busybox(tmp_path_factory.mktemp("arm64"))


@pytest.fixture
def both(make_daemon: Callable[..., PrivateDaemon], arm64: bytes) -> PrivateDaemon:
    """A daemon with the image `mine` for the host's platform and `theirs` for the other."""
    made = make_daemon()
    made.start()
    made.import_image("mine:latest", busybox_tar())
    status, told = made.request(
        "POST",
        f"/images/create?fromSrc=-&repo=theirs&tag=latest&platform=linux/{ARCHITECTURE}",
        arm64,
        {"Content-Type": "application/x-tar"},
    )
    assert status == 200, told
    return made


def estiba(daemon: PrivateDaemon, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "estiba.cli.main", *words],
        env={**daemon.client_environment(), "ESTIBA_HOST": daemon.url},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def make_context(folder: Path, dockerfile: str) -> str:
    context = folder / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(dockerfile)
    return str(context)


def test_a_step_of_another_architecture_runs_by_its_emulator(
    both: PrivateDaemon, tmp_path: Path
) -> None:
    context = make_context(tmp_path, "FROM theirs\nRUN uname -m > /machine\nCMD cat /machine\n")
    with emulated():
        done = estiba(both, "build", "--platform", f"linux/{ARCHITECTURE}", "-t", "arm", context)
        assert done.returncode == 0, done.stderr
        ran = both.docker("run", "--rm", "--platform", f"linux/{ARCHITECTURE}", "arm")
        assert ran.stdout == b"aarch64\n"
    view = json.loads(both.docker("image", "inspect", "arm").stdout)[0]
    assert view["Architecture"] == ARCHITECTURE


def test_without_an_emulator_the_error_says_what_is_missing(
    both: PrivateDaemon, tmp_path: Path
) -> None:
    if is_emulated():
        pytest.skip("this host runs arm64 programs by an emulator of its own")
    context = make_context(tmp_path, "FROM theirs\nRUN uname -m\n")
    done = estiba(both, "build", "--platform", f"linux/{ARCHITECTURE}", context)
    assert done.returncode == 1
    assert "qemu-user-static" in done.stderr


def test_two_platforms_under_one_name(both: PrivateDaemon, tmp_path: Path) -> None:
    saved = tmp_path / "both.tar"
    context = make_context(
        tmp_path,
        "FROM mine AS base-amd64\nFROM theirs AS base-arm64\n"
        "FROM --platform=$BUILDPLATFORM mine AS tools\nARG TARGETARCH\n"
        "RUN echo for $TARGETARCH on $(uname -m) > /told\n"
        "FROM base-$TARGETARCH\nRUN uname -m > /machine\nCOPY --from=tools /told /told\n",
    )
    platforms = f"linux/amd64,linux/{ARCHITECTURE}"
    with emulated():
        done = estiba(both, "build", "--platform", platforms, "-t", "two", context)
        assert done.returncode == 0, done.stderr
    for architecture, machine in (("amd64", "x86_64"), (ARCHITECTURE, "aarch64")):
        platform = ["--platform", f"linux/{architecture}"]
        with emulated():
            ran = both.docker("run", "--rm", *platform, "two", "cat", "/machine", "/told")
        assert ran.stdout.decode() == f"{machine}\nfor {architecture} on x86_64\n"
    done = estiba(both, "build", "--platform", platforms, "-o", f"type=oci,dest={saved}", context)
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        ["tar", "-xOf", str(saved), "index.json"], capture_output=True, check=True
    )
    index = json.loads(listed.stdout)
    platforms_told = [one.get("platform", {}).get("architecture") for one in index["manifests"]]
    assert {"amd64", ARCHITECTURE} <= set(platforms_told) or "image.index" in listed.stdout.decode()
