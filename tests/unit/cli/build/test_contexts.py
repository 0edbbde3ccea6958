"""Contexts that `estiba build` sends, and what goes with them."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest
from tests.support.buildserver import (
    DEADLINE_S,
)
from tests.unit.cli.build.lab import Run

from estiba.client.host import forget_config


def test_a_directory(run: Run) -> None:
    done = run("ctx")
    assert (done.code, done.out) == (0, "")
    assert done.sent.order == [
        "request.json", "dockerignore", "contexts/context", "contexts/context/Dockerfile",
        "contexts/context/sub", "contexts/context/sub/file",
    ]  # fmt: skip
    assert done.sent.request == {"dockerfile": "Dockerfile"}
    assert done.sent.data["contexts/context/sub/file"] == b"content"


def test_the_ignore_file(run: Run, surroundings: Path) -> None:
    (surroundings / ".dockerignore").write_text("sub\n")
    (surroundings / "other.Dockerfile").write_text("FROM scratch\n")
    done = run("ctx")
    assert "contexts/context/sub" not in done.sent.members
    assert done.sent.data["dockerignore"] == b"sub\n"
    (surroundings / "other.Dockerfile.dockerignore").write_text("# mine\nDockerfile\n")
    done = run("-f", "ctx/other.Dockerfile", "ctx")
    assert "contexts/context/sub" in done.sent.members
    assert "contexts/context/Dockerfile" not in done.sent.members
    assert done.sent.data["dockerignore"] == b"# mine\nDockerfile\n"
    assert done.sent.request["dockerfile"] == "other.Dockerfile"


def test_a_dockerfile_that_is_ignored_is_built_and_not_copied(run: Run, surroundings: Path) -> None:
    (surroundings / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
    done = run("ctx")
    assert done.sent.data["dockerfile"] == b"FROM scratch\nCOPY . /\n"
    assert done.sent.request["dockerfile"] == "Dockerfile"
    assert "contexts/context/Dockerfile" not in done.sent.members


def test_a_dockerfile_from_elsewhere(
    run: Run, tmp_path: Path, surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Elsewhere").write_text("FROM a\n")
    (surroundings / "linked").symlink_to("../Elsewhere")
    for path in ("Elsewhere", str(tmp_path / "Elsewhere"), "ctx/linked", "ctx/../Elsewhere"):
        done = run("--file", path, "ctx")
        assert done.sent.data["dockerfile"] == b"FROM a\n", path
        assert done.sent.request["dockerfile"] == Path(path).name
    monkeypatch.chdir(surroundings / "sub")
    assert run("-f", "../Dockerfile", "..").sent.request["dockerfile"] == "Dockerfile"
    (surroundings / "sub" / "Dockerfile").write_text("FROM b\n")
    assert run("-f", "Dockerfile", "..").sent.request["dockerfile"] == "sub/Dockerfile"


def test_the_other_spelling(run: Run, surroundings: Path) -> None:
    (surroundings / "Dockerfile").rename(surroundings / "dockerfile")
    assert run("ctx").sent.request["dockerfile"] == "dockerfile"


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_dockerfile_on_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, b"FROM busybox\n")
    done = run("-")
    assert done.sent.order == ["request.json", "dockerfile", "contexts/context"]
    assert done.sent.data["dockerfile"] == b"FROM busybox\n"
    feed(monkeypatch, b"FROM busybox\n")
    done = run("-f", "-", "ctx")
    assert done.sent.data["dockerfile"] == b"FROM busybox\n"
    assert "contexts/context/sub/file" in done.sent.members


def test_a_tar_on_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add("ctx", "./")
    feed(monkeypatch, buffer.getvalue())
    done = run("-f", "sub/Other", "-")
    assert done.sent.data["contexts/context/sub/file"] == b"content"
    assert done.sent.request == {"dockerfile": "sub/Other"}


@pytest.mark.parametrize(
    "url",
    ["https://example.com/a.tar.gz", "git@example.com:a/b.git", "github.com/a/b#main:dir",
     "https://example.com/a/b.git#v1", "ssh://git@h/a", "user@host:a.git"],
)  # fmt: skip
def test_a_remote_context(run: Run, url: str) -> None:
    done = run("-f", "docker/File", url)
    assert done.sent.order == ["request.json"]
    assert done.sent.request == {"remote": url, "dockerfile": "docker/File"}


def test_named_contexts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lib" / "skipped").mkdir(parents=True)
    (tmp_path / "lib" / "part.c").write_text("int x;")
    (tmp_path / "lib" / ".dockerignore").write_text("skipped")
    done = run(
        "--build-context", "lib=lib", "--build-context", "base=docker-image://busybox",
        "--build-context", "src=https://example.com/x.git", "ctx",
    )  # fmt: skip
    assert done.sent.request["contexts"] == {
        "lib": "local", "base": "docker-image://busybox", "src": "https://example.com/x.git",
    }  # fmt: skip
    assert done.sent.data["contexts/lib/part.c"] == b"int x;"
    assert "contexts/lib/skipped" not in done.sent.members


def test_a_local_cache_is_sent(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cache" / "blobs").mkdir(parents=True)
    (tmp_path / "cache" / "index.json").write_text("{}")
    done = run("--cache-from", "r/c", "--cache-from", "type=local,src=cache", "ctx")
    assert done.sent.data["caches/1/index.json"] == b"{}"
    assert "caches/1/blobs" in done.sent.members


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nowhere"], 'unable to prepare context: path "nowhere" not found'),
        (["ctx/Dockerfile"], "unable to prepare context: ctx/Dockerfile is no directory"),
        (["ctx/sub"], "open ctx/sub/Dockerfile: no such file or directory: name another one with"),
        (["-f", "none", "ctx"], "failed to read dockerfile: open none: no such file"),
        (["-f", "-", "-"], "can't use stdin for both build context and dockerfile"),
        (["--build-context", "x", "ctx"], "NAME=DIRECTORY"),
        (["--build-context", "x=nowhere", "ctx"], "build context x: nowhere is no directory"),
        (["--build-context", "a/b=ctx", "ctx"], "a directory cannot be called so"),
        (["--build-context", "x=oci-layout://y", "ctx"], "is no directory, no URL"),
        (["--progress", "loud", "ctx"], "one of auto, plain, tty"),
        (["--progress", "tty", "ctx"], "--progress=tty needs a terminal"),
        (["-o", "type=tar,dest=ctx", "ctx"], "ctx is a directory: type tar makes a file"),
        (["-o", "ctx/Dockerfile", "ctx"], "ctx/Dockerfile is no directory"),
        (["--ssh", "default", "ctx"], "SSH_AUTH_SOCK is not set; start one"),
        (["--ssh", "default=nowhere", "ctx"], "nowhere: no such file or directory"),
    ],
)
def test_refused_before_the_daemon_is_asked(run: Run, words: list[str], reason: str) -> None:
    done = run(*words)
    assert done.code in (1, 125)
    assert reason in done.err
    assert not done.server.builds


def test_an_ignore_file_that_makes_no_sense(run: Run, surroundings: Path) -> None:
    (surroundings / ".dockerignore").write_text("ok\n[a\n")
    assert "ctx/.dockerignore:2" in run("ctx").err


def test_a_file_that_cannot_be_sent_ends_the_build(run: Run, surroundings: Path) -> None:
    """The daemon sees a request that breaks off, and no build is left waiting for more."""
    deep = surroundings / "deep"
    for _ in range(410):
        deep.mkdir()
        os.chdir(deep)
        deep = Path("d")
    os.chdir(surroundings.parent)
    done = run("ctx")
    assert done.code == 1
    assert "directories in one another" in done.err
    assert done.server.gone.wait(DEADLINE_S)
    assert not done.server.builds


def test_proxies_and_credentials(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").mkdir()
    auth = base64.b64encode(b"joe:s3cret").decode()
    (tmp_path / "config" / "config.json").write_text(
        json.dumps(
            {
                "proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "x"}},
                "auths": {"r.example:5000": {"auth": auth}},
            }
        )
    )
    forget_config()
    done = run("--build-arg", "http_proxy=", "--build-arg", "A=b", "ctx")
    assert done.sent.request["build_args"] == {
        "HTTP_PROXY": "http://p:1", "http_proxy": "", "NO_PROXY": "x", "no_proxy": "x", "A": "b",
    }  # fmt: skip
    sent = json.loads(base64.urlsafe_b64decode(done.sent.headers["x-registry-config"]))
    assert sent == {
        "r.example:5000": {
            "username": "joe", "password": "s3cret", "serveraddress": "r.example:5000",
        }
    }  # fmt: skip
    assert "s3cret" not in done.err


def test_a_secret_goes_in_the_body_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    done = run("--secret", "id=t,env=TOKEN", "ctx")
    assert base64.b64decode(done.sent.request["secrets"]["t"]) == b"hunter2"
    assert done.sent.members["request.json"].mode == 0o600
    assert "hunter2" not in done.err + str(done.server.asked) + str(done.sent.headers)
