"""SOURCE_DATE_EPOCH: the same files give the same image, on another engine and at another time."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon

pytestmark = pytest.mark.e2e

EPOCH = 1_600_000_000
DOCKERFILE = """\
FROM busybox AS made
RUN mkdir -p /made/deep && echo one > /made/deep/one && ln -s one /made/deep/link
FROM busybox
ARG SOURCE_DATE_EPOCH
LABEL of=ours
WORKDIR /work/here
COPY --from=made /made /made
COPY src /src/
ADD files.tar.gz /unpacked/
RUN rm /etc/group && touch /later && echo $SOURCE_DATE_EPOCH > /epoch
CMD ["true"]
"""


def make_context(root: Path, moment: int) -> Path:
    """The same content, with times that are told and do not count."""
    context = root / f"context{moment}"
    (context / "src").mkdir(parents=True)
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "src" / "a.txt").write_text("a")
    (context / "src" / "b.sh").write_text("#!/bin/sh\n")
    (context / "src" / "b.sh").chmod(0o755)
    with tarfile.open(context / "files.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("in/file")
        info.size, info.mtime = 3, 1_000_000_000
        archive.addfile(info, io.BytesIO(b"abc"))
    for path in (context / "src").iterdir():
        os.utime(path, (moment, moment))
    return context


def build(daemon: PrivateDaemon, context: Path, door: str) -> str:
    """The id of the image."""
    if door == "docker":
        argument = f"SOURCE_DATE_EPOCH={EPOCH}"
        command = ["docker", "build", "-q", "--build-arg", argument, "-t", "made", str(context)]
        environment = {**daemon.client_environment(), "DOCKER_BUILDKIT": "0"}
    else:
        command = [sys.executable, "-m", "estiba.cli.main", "build", "-q", "-t", "made"]
        command.append(str(context))
        environment = {
            **daemon.client_environment(),
            "SOURCE_DATE_EPOCH": str(EPOCH),
            "ESTIBA_HOST": daemon.url,
        }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_two_engines_make_the_same_image(
    make_daemon: Callable[..., PrivateDaemon], tmp_path: Path
) -> None:
    first, second = make_daemon(), make_daemon()
    first.start()
    second.start()
    first.import_busybox()
    base = first.request("GET", "/images/busybox/get")[1]
    assert (
        second.request("POST", "/images/load", base, {"Content-Type": "application/x-tar"})[0]
        == 200
    )
    image = build(first, make_context(tmp_path, EPOCH + 5), "docker")
    assert build(second, make_context(tmp_path, EPOCH + 99), "estiba") == image
    archives = [one.request("GET", "/images/made/get?format=oci")[1] for one in (first, second)]
    assert archives[0] == archives[1]

    newest = 0
    with tarfile.open(fileobj=io.BytesIO(archives[0])) as archive:
        config = first.request("GET", "/images/made/json")[1]
        own = set(config["RootFS"]["Layers"][1:])
        for member in archive:
            data = archive.extractfile(member)
            if data is None or not member.name.startswith("blobs/"):
                continue
            newest = max(newest, _newest_of(data.read(), own))
    assert newest == EPOCH
    assert config["Created"].startswith("2020-09-13T12:26:40")


def _newest_of(blob: bytes, layers: set[str]) -> int:
    """The latest time in a blob that is one of the layers; 0 for any other."""
    import gzip
    import hashlib

    plain = gzip.decompress(blob) if blob[:2] == b"\x1f\x8b" else blob
    if f"sha256:{hashlib.sha256(plain).hexdigest()}" not in layers:
        return 0
    with tarfile.open(fileobj=io.BytesIO(plain)) as layer:
        return max((int(member.mtime) for member in layer), default=0)


def test_an_epoch_that_is_none_is_refused(daemon: PrivateDaemon, tmp_path: Path) -> None:
    context = make_context(tmp_path, EPOCH)
    done = subprocess.run(
        ["docker", "build", "--build-arg", "SOURCE_DATE_EPOCH=today", str(context)],
        env={**daemon.client_environment(), "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "SOURCE_DATE_EPOCH=today: give seconds since 1970" in done.stderr
