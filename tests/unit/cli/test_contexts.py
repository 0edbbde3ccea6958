"""Contexts on disk and in archives, and what addresses mean."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from estiba.client import contexts
from estiba.client.contextfiles import pack, unpack
from estiba.client.errors import ClientError
from estiba.client.host import parse
from estiba.client.ssh import command


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))


def save(name: str, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("CA")
    contexts.save(name, "far away", "tcp://far:2376", skip_verify=True,
                  files={"ca": str(tmp_path / "ca.pem")})  # fmt: skip


def test_an_archive_makes_the_same_context_under_another_name(tmp_path: Path) -> None:
    save("one", tmp_path)
    unpack("two", io.BytesIO(pack("one")))
    assert contexts.load("two") == {**contexts.load("one"), "Name": "two"}
    host, tls = contexts.endpoint("two")
    assert host == "tcp://far:2376" and tls is not None and not tls.verify
    assert Path(tls.ca).read_text() == "CA"
    assert os.stat(tls.ca).st_mode & 0o777 == 0o600


def test_a_zip_is_read_too(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("meta.json", '{"Name":"x","Metadata":{},"Endpoints":{}}')
        archive.writestr("tls/docker/key.pem", "KEY")
    unpack("three", io.BytesIO(buffer.getvalue()))
    assert Path(contexts.tls_directory("three"), "key.pem").read_text() == "KEY"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tls/docker/../../../evil", "unexpected file"),
        ("tls/../evil", "unexpected file"),
        ("/etc/evil", "unexpected file"),
        ("other", "unexpected file"),
        ("tls/docker/ca.pem", "there is no meta.json"),
    ],
)
def test_strange_archives_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ClientError, match=reason):
        unpack("bad", io.BytesIO(buffer.getvalue()))
    with pytest.raises(ClientError, match="neither tar nor zip"):
        unpack("bad", io.BytesIO(b"no archive at all"))
    assert not contexts.exists("bad")


def test_saving_without_files_keeps_them(tmp_path: Path) -> None:
    save("one", tmp_path)
    contexts.save("one", "new", "tcp://far:1", skip_verify=False, files=None)
    assert Path(contexts.tls_directory("one"), "ca.pem").read_text() == "CA"
    contexts.save("one", "new", "tcp://far:1", skip_verify=False, files={})
    assert not os.path.exists(contexts.tls_directory("one"))


@pytest.mark.parametrize(
    ("url", "kind", "address", "port"),
    [
        ("unix:///a/b", "unix", "/a/b", 0),
        ("unix://", "unix", "/run/estiba/estiba.sock", 0),
        ("tcp://", "tcp", "localhost", 2375),
        ("tcp://host", "tcp", "host", 2375),
        ("tcp://:99", "tcp", "localhost", 99),
        ("tcp://[::1]:99/path", "tcp", "::1", 99),
        ("tcp://[::1]", "tcp", "::1", 2375),
        ("host:99", "tcp", "host", 99),
        ("https://host", "tcp", "host", 2376),
        ("ssh://me@host:22/sock", "ssh", "me@host:22/sock", 0),
    ],
)
def test_addresses(url: str, kind: str, address: str, port: int) -> None:
    host = parse(url, None)
    assert (host.kind, host.address, host.port) == (kind, address, port)


@pytest.mark.parametrize(
    "url", ["tcp://host:abc", "tcp://host:99999", "fd://", "ftp://x", "ssh://"]
)
def test_strange_addresses_are_refused(url: str) -> None:
    with pytest.raises(ClientError, match="unable to parse the daemon's address"):
        parse(url, None)


def test_the_command_line_of_ssh() -> None:
    words = command("me@host:22/run/my sock")
    assert words[:10] == [
        "ssh",
        "-o",
        "ConnectTimeout=30",
        "-T",
        "-l",
        "me",
        "-p",
        "22",
        "--",
        "host",
    ]
    assert "-H unix://" in words[10] and words[10].startswith("sh -c ")
    assert command("[::1]")[5] == "::1"
    for address in ("-oProxyCommand=x", "-lx@host", "host:x"):
        with pytest.raises(ClientError, match="not an ssh address"):
            command(address)
