"""What `estiba build` prints and writes of a result."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.buildserver import (
    IMAGE,
    BuildServer,
    Play,
    result,
)
from tests.unit.cli.build.lab import Run, succeed


def test_quiet_prints_the_id(run: Run) -> None:
    for words in (["-q"], ["--quiet", "--progress=plain"]):
        done = run(*words, "ctx")
        assert (done.out, done.err) == (f"{IMAGE}\n", "")
    assert run("--progress=quiet", "ctx").err == ""


def test_progress_goes_to_stderr(run: Run) -> None:
    done = run("-t", "a:1", "ctx", play=lambda _: [result(tags=["docker.io/library/a:1"])])
    assert done.out == ""
    assert f"Built {IMAGE}\nTagged docker.io/library/a:1\n" in done.err


def test_json_progress_is_the_daemons_lines(run: Run) -> None:
    for mode in ("json", "rawjson"):
        done = run("--progress", mode, "ctx")
        lines = [json.loads(line) for line in done.err.splitlines()]
        assert lines == list(succeed(done.sent))
        assert done.out == ""


def test_files_about_the_result(run: Run, tmp_path: Path) -> None:
    (tmp_path / "id").write_text("an older one")
    told = {"containerimage.digest": IMAGE, "n": 1}
    done = run(
        "--iidfile", "id", "--metadata-file", "meta.json", "ctx",
        play=lambda _: [result(metadata=told)],
    )  # fmt: skip
    assert done.code == 0
    assert (tmp_path / "id").read_text() == IMAGE
    assert json.loads((tmp_path / "meta.json").read_text()) == told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ctx", "id", "meta.json"]


def test_an_older_id_does_not_outlive_a_failure(run: Run, tmp_path: Path) -> None:
    (tmp_path / "id").write_text("an older one")
    assert run("--iidfile", "id", "ctx", play=lambda _: [{"error": "no"}]).code == 1
    assert not (tmp_path / "id").exists()


def output_tar(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size, info.mode = 0 if name.endswith("/") else 4, 0o750
            tar.addfile(info, io.BytesIO(b"made"))
    return buffer.getvalue()


def with_outputs(*kinds: str) -> tuple[Play, Callable[[BuildServer], None]]:
    told = [{"index": i, "type": kind, "token": f"t{i}"} for i, kind in enumerate(kinds)]

    def set_up(server: BuildServer) -> None:
        server.outputs = {f"t{i}": output_tar("./", "./bin/", "bin/x") for i in range(len(kinds))}

    return lambda _: [result(outputs=told)], set_up


def test_a_directory_as_output(run: Run, tmp_path: Path) -> None:
    play, set_up = with_outputs("local")
    (tmp_path / "out").mkdir(mode=0o700)
    (tmp_path / "out" / "mine").write_text("stays")
    done = run("-o", "out", "ctx", play=play, set_up=set_up)
    assert done.code == 0
    assert (tmp_path / "out" / "bin" / "x").read_text() == "made"
    assert (tmp_path / "out" / "bin" / "x").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "out" / "mine").read_text() == "stays"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert done.sent.request["outputs"] == [{"type": "local"}]
    assert "[internal] write local to out" in done.err


def test_an_output_never_leaves_its_directory(run: Run, tmp_path: Path) -> None:
    play, set_up = with_outputs("local")
    (tmp_path / "out").mkdir()
    (tmp_path / "victim").mkdir()
    (tmp_path / "out" / "bin").symlink_to("../victim")
    done = run("-o", "out", "ctx", play=play, set_up=set_up)
    assert done.code == 1
    assert "cannot write out" in done.err
    assert not list((tmp_path / "victim").iterdir())
    (tmp_path / "out" / "bin").unlink()

    def climb(server: BuildServer) -> None:
        server.outputs = {"t0": output_tar("../evil")}

    assert "leads out of it" in run("-o", "out", "ctx", play=play, set_up=climb).err
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("words", [["-o", "out"], ["--cache-to", "type=local,dest=out"]])
def test_an_output_that_is_missing_is_told(run: Run, tmp_path: Path, words: list[str]) -> None:
    done = run(*words, "ctx")
    assert done.code == 1
    assert "the daemon has made no " in done.err
    assert not (tmp_path / "out").exists()


def test_a_file_as_output(run: Run, tmp_path: Path) -> None:
    _, set_up = with_outputs("oci", "cache")
    told = [
        {"index": 0, "type": "oci", "token": "t0"},
        {"index": 1, "type": "cache", "token": "t1"},
    ]
    done = run(
        "-o", "type=oci,dest=a.tar", "--cache-to", "type=inline", "--cache-to",
        "type=local,dest=kept", "ctx", play=lambda _: [result(outputs=told)], set_up=set_up,
    )  # fmt: skip
    assert done.code == 0
    assert (tmp_path / "a.tar").read_bytes() == output_tar("./", "./bin/", "bin/x")
    assert (tmp_path / "kept" / "bin" / "x").read_text() == "made"
    assert not list(tmp_path.glob("*.tmp"))


def test_stdout_as_output(run: Run) -> None:
    play, set_up = with_outputs("tar")
    done = run("-q", "-o", "-", "ctx", play=play, set_up=set_up)
    assert done.out.encode() == output_tar("./", "./bin/", "bin/x")


def test_a_cut_output_leaves_no_file(run: Run, tmp_path: Path) -> None:
    told = [{"index": index, "type": "tar", "token": "t"} for index in (7, 0)]
    done = run("-o", "type=tar,dest=a.tar", "ctx", play=lambda _: [result(outputs=told)])
    assert "output that was not asked for" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ctx"]
