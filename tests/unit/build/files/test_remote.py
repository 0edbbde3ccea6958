"""Downloads, against a real server on loopback that answers as told."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.scripted import Ask, Reply, scripted

from estiba.build.files.remote import (
    Downloaded,
    DownloadLimits,
    Validators,
    download,
    parse_remote,
)
from estiba.distribution.cancel import CancelToken
from estiba.distribution.settings import RegistrySettings
from estiba.model.errors import (
    Cancelled,
    DeadlineExceeded,
    EstibaError,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    Unavailable,
)

DATA = b"#!/bin/sh\n" * 1000
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
SETTINGS = RegistrySettings(attempts=1, read_timeout_s=5)


def fetch(
    directory: Path,
    reply: Reply | Callable[[Ask], Reply],
    path: str = "/dir/run.sh",
    **more: object,
) -> Downloaded:
    script = reply if callable(reply) else lambda ask: reply
    with scripted(script) as server:
        remote = parse_remote(f"http://{server.host}{path}")
        return download(remote, directory, settings=SETTINGS, **more)  # type: ignore[arg-type]


def test_a_file_that_finds_room_for_a_part_only_is_none(tmp_path: Path, little_room: int) -> None:
    with pytest.raises(OSError, match="File too large"):
        fetch(tmp_path, Reply(body=b"x" * (little_room + 1)))
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_mode_time_and_digest(tmp_path: Path) -> None:
    headers = {"Last-Modified": "Sun, 09 Sep 2001 01:46:40 GMT", "ETag": '"v1"'}
    done = fetch(tmp_path, Reply(headers=headers, body=DATA), checksum=DIGEST)
    assert done.path == tmp_path / "run.sh"
    assert done.path.read_bytes() == DATA
    assert (done.digest, done.size_bytes) == (DIGEST, len(DATA))
    assert done.validators == Validators('"v1"', "Sun, 09 Sep 2001 01:46:40 GMT")
    status = done.path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o600, 1_000_000_000)


def test_what_did_not_change_is_not_loaded_again(tmp_path: Path) -> None:
    def script(ask: Ask) -> Reply:
        same = ask.header("If-None-Match") == '"v1"'
        return Reply(status=304 if same else 200, headers={"ETag": '"v1"'}, body=b"")

    assert fetch(tmp_path, script, known=Validators('"v1"')).path is None
    assert fetch(tmp_path, script, known=Validators('"v0"')).path is not None
    with pytest.raises(Unavailable, match="with status 304"):
        fetch(tmp_path, Reply(status=304))


@pytest.mark.parametrize(
    ("path", "disposition", "name"),
    [
        ("/a/b.tar.gz?x=/c", "", "b.tar.gz"),
        ("/a%20b", "", "a b"),
        ("/a/..%2fb", "", "b"),
        ("/a/..", 'attachment; filename="x"', "__unnamed__"),
        ("/", 'attachment; filename="x.tar"', "x.tar"),
        ("/dir/", 'attachment; filename="../../etc/passwd"', "passwd"),
        ("/dir/", 'attachment; filename="C:\\\\x\\\\y.exe"', "y.exe"),
        ("", "", "__unnamed__"),
        ("/" + "n" * 300, "", "__unnamed__"),
    ],
)
def test_names(tmp_path: Path, path: str, disposition: str, name: str) -> None:
    headers = {"Content-Disposition": disposition} if disposition else {}
    assert fetch(tmp_path, Reply(headers=headers, body=b"x"), path).name == name
    assert os.listdir(tmp_path) == [name]


def test_redirects_are_followed_and_counted(tmp_path: Path) -> None:
    def script(ask: Ask) -> Reply:
        if ask.path == "/end":
            return Reply(body=DATA)
        return Reply(status=302, headers={"Location": "/end" if ask.path == "/go" else ask.path})

    assert fetch(tmp_path, script, "/go").name == "go"
    with pytest.raises(Unavailable, match="redirects in a loop"):
        fetch(tmp_path, script, "/loop")


@pytest.mark.parametrize(
    ("reply", "more", "error", "message"),
    [
        (Reply(status=404), {}, NotFound, "with status 404"),
        (Reply(status=500), {}, Unavailable, "with status 500"),
        (Reply(status=403), {}, Unavailable, "other credentials"),
        (Reply(body=DATA), {"checksum": "sha256:" + "0" * 64}, InvalidArgument, "mismatch"),
        (Reply(body=DATA), {"checksum": "md5:00"}, InvalidArgument, "invalid digest"),
        (Reply(body=DATA, cut=9), {}, Unavailable, "ended the connection"),
        (Reply(body=DATA), {"limits": DownloadLimits(size_bytes=99)}, LimitExceeded, "larger"),
        (
            Reply(body=DATA, length=None),
            {"limits": DownloadLimits(size_bytes=99)},
            LimitExceeded,
            "larger",
        ),
        (
            Reply(body=b"abc", drip_s=0.1),
            {"limits": DownloadLimits(time_s=0.05)},
            DeadlineExceeded,
            "took longer",
        ),
    ],
)
def test_failures_leave_no_file(
    tmp_path: Path,
    reply: Reply,
    more: dict[str, object],
    error: type[EstibaError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        fetch(tmp_path, reply, **more)
    assert os.listdir(tmp_path) == []


def test_credentials_go_into_a_header_and_nowhere_else(tmp_path: Path) -> None:
    with scripted(lambda ask: Reply(status=401, body=b"no")) as server:
        remote = parse_remote(f"http://us%40er:pass%3Aword@{server.host}/x?token=t")
        with pytest.raises(Unavailable) as caught:
            download(remote, tmp_path, settings=SETTINGS)
        assert server.asks[0].header("Authorization") == "Basic dXNAZXI6cGFzczp3b3Jk"
    for text in (str(caught.value), repr(remote)):
        assert "pass" not in text and "dXNA" not in text
    assert "token" not in str(caught.value)


def test_a_cancelled_download_ends(tmp_path: Path) -> None:
    cancel = CancelToken()

    def script(ask: Ask) -> Reply:
        threading.Thread(target=cancel.cancel).start()
        return Reply(body=DATA, hang=5)

    with pytest.raises(Cancelled):
        fetch(tmp_path, script, cancel=cancel)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "url", ["ftp://h/x", "http://", "http:///x", "http://h:0/", "http://h/a b", "file:///etc", "x"]
)
def test_bad_addresses_are_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid URL"):
        parse_remote(url)
