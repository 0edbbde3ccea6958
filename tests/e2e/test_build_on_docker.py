"""`estiba build` on a genuine Docker Engine, in the classic builder's form."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import DEADLINE_S
from tests.support.dockerd import GenuineDockerd

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not GenuineDockerd.is_installed(), reason="dockerd is not installed"),
]


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GenuineDockerd]:
    engine = GenuineDockerd(tmp_path_factory.mktemp("dockerd"))
    try:
        engine.start()
        yield engine
    finally:
        engine.close()


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ctx" / "sub").mkdir(parents=True)
    (tmp_path / "ctx" / "sub" / "file").write_text("content\n")
    (tmp_path / "ctx" / "left-out").write_text("x")
    (tmp_path / "ctx" / ".dockerignore").write_text("left-out")
    (tmp_path / "ctx" / "Dockerfile").write_text(
        "FROM busybox\nARG WORD\nCOPY . /all\nLABEL word=$WORD\n"
    )
    return tmp_path / "ctx"


def estiba(
    engine: GenuineDockerd, *words: str, stdin: bytes = b"", code: int = 0
) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "estiba.cli.main", "build", *words], input=stdin,
        capture_output=True, env=engine.environment(), timeout=2 * DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


def files(engine: GenuineDockerd, image: str) -> set[str]:
    words = ["run", "--rm", "--network", "none", image, "find", "/all", "-type", "f"]
    return set(engine.docker(*words).decode().split())


def test_a_directory(dockerd: GenuineDockerd, context: Path) -> None:
    words = ["-t", "on:dir", "--build-arg", "WORD=given", "--label", "a=b", "ctx"]
    out, err = estiba(dockerd, *words)
    assert out == ""
    assert "Successfully tagged on:dir" in err
    shown = dockerd.docker("image", "inspect", "-f", "{{json .Config.Labels}}", "on:dir")
    assert shown.decode().strip() == '{"a":"b","word":"given"}'
    assert files(dockerd, "on:dir") == {
        "/all/Dockerfile", "/all/.dockerignore", "/all/sub/file",
    }  # fmt: skip
    out, err = estiba(dockerd, "-q", "--iidfile", "id", "ctx")
    assert out.startswith("sha256:") and err == ""
    assert Path("id").read_text() == out.strip()


def test_a_dockerfile_from_elsewhere(dockerd: GenuineDockerd, context: Path) -> None:
    dockerfile = b"FROM busybox\nCOPY . /all\n"
    estiba(dockerd, "-t", "on:stdin", "-f", "-", "ctx", stdin=dockerfile)
    # Neither it nor the ignore file that hides it is copied.
    assert files(dockerd, "on:stdin") == {"/all/Dockerfile", "/all/sub/file"}
    estiba(dockerd, "-t", "on:alone", "-", stdin=b"FROM busybox\nRUN mkdir /all; echo x >/all/y\n")
    assert files(dockerd, "on:alone") == {"/all/y"}


def test_failures(dockerd: GenuineDockerd, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN exit 3\n")
    _, err = estiba(dockerd, "ctx", code=1)
    assert "returned a non-zero code: 3" in err
    _, err = estiba(dockerd, "--secret", "id=HOME", "ctx", code=1)
    assert "is a Docker Engine: --secret needs estibad" in err
    _, err = estiba(dockerd, "--platform", "linux/amd64,linux/386", "ctx", code=1)
    assert "builds for one platform at a time" in err
