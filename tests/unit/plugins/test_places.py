from __future__ import annotations

import socket
from pathlib import Path

import pytest

from estiba.model.errors import InvalidArgument, NotFound
from estiba.plugins.places import Address, Places, TlsFiles, parse_address


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in ("sockets", "etc", "lib"):
        (tmp_path / name).mkdir()
    return Places((tmp_path / "sockets",), (tmp_path / "etc", tmp_path / "lib"))


def listen(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def test_sockets_come_before_files_and_folders_after_both(places: Places, tmp_path: Path) -> None:
    (tmp_path / "lib/blue.json").write_text('{"Addr": "https://blue.test:7", "TLSConfig": {}}')
    assert places.find("blue") == Address(host="blue.test", port=7, tls=TlsFiles())
    (tmp_path / "etc/blue.spec").write_text("tcp://127.0.0.1:8080\n")
    assert places.find("blue") == Address(host="127.0.0.1", port=8080)
    listen(tmp_path / "sockets/blue/blue.sock")
    assert places.find("blue").path == str(tmp_path / "sockets/blue/blue.sock")
    listen(tmp_path / "sockets/blue.sock")
    assert places.find("blue").path == str(tmp_path / "sockets/blue.sock")
    (tmp_path / "sockets/file.sock").touch()
    (tmp_path / "etc/red").mkdir()
    (tmp_path / "etc/red/red.spec").write_text("unix:///red.sock")
    (tmp_path / "etc/red/other.spec").write_text("unix:///other.sock")
    assert places.scan() == ["blue", "red"]


@pytest.mark.parametrize("name", ["", ".", "..", "../etc/passwd", "a/b", "a\0b", "x" * 129, "none"])
def test_names_are_no_paths(places: Places, name: str) -> None:
    with pytest.raises(NotFound, match="not found"):
        places.find(name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "blue",
        "ftp://x",
        "unix://relative",
        "unix://host/path",
        "tcp://",
        "tcp://h:99999",
        "[::",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid plugin address"):
        parse_address(text)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"Addr": 7}', b"\xff", b"[" * 200_000, b'{"Addr": "nowhere"}']
)
def test_files_that_say_nothing_name_themselves(
    places: Places, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "etc/bad.json").write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"bad\.json"):
        places.find("bad")


def test_a_certificate_is_verified_when_an_authority_is_named() -> None:
    assert not TlsFiles().verifies
    assert TlsFiles(ca="/ca.pem").verifies
    assert not TlsFiles(ca="/ca.pem", insecure=True).verifies
