"""What programs written for Docker rely on, found by running their own test suites."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container
from tests.support.daemon import PrivateDaemon

pytestmark = pytest.mark.e2e


@pytest.fixture
def client(daemon: PrivateDaemon) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=daemon.url, version="auto", timeout=60)
    yield made
    for container in made.containers.list(all=True):
        container.remove(force=True, v=True)
    made.close()


@pytest.fixture
def box(client: docker.DockerClient) -> Container:
    """A container that runs until it is removed."""
    return client.containers.run("busybox", ["sleep", "1000"], detach=True, name="box")


def test_the_start_of_an_exec_says_what_its_stream_is(
    client: docker.DockerClient, box: Container
) -> None:
    words = ["sh", "-c", "echo out; echo err >&2"]
    made = client.api.exec_create(box.id, words, tty=True)
    assert client.api.exec_start(made["Id"], demux=True) == (b"out\r\nerr\r\n", None)
    made = client.api.exec_create(box.id, words, tty=True)
    assert client.api.exec_start(made["Id"], tty=True) == b"out\r\nerr\r\n"


def test_a_bind_may_leave_out_what_is_mounted_below(daemon: PrivateDaemon, tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.mkdir()
    (inner / "file").touch()
    (outer / "mnt").mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(inner), str(outer / "mnt")], check=True)
    try:
        bind = f"type=bind,source={outer},target=/foo"
        assert daemon.run("--mount", bind, "busybox", "ls", "/foo/mnt") == "file\n"
        bind += ",bind-recursive=disabled"
        assert daemon.run("--mount", bind, "busybox", "ls", "/foo/mnt") == ""
    finally:
        subprocess.run(["umount", str(outer / "mnt")], check=True)
