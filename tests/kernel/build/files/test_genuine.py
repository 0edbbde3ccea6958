"""COPY and ADD beside a genuine engine's builder: the same files with modes, owners and times."""

from __future__ import annotations

import io
import os
import shlex
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.dockerd import GenuineDockerd
from tests.support.hostile import archive, link, member

from estiba.build.files.copying import put
from estiba.build.files.model import CopyOptions, CopySource
from estiba.build.files.selection import take
from estiba.model.ignore import IgnoreRules

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not GenuineDockerd.is_installed(), reason="needs Debian's docker.io"),
]

IGNORE = "*.log\n!keep.log\ntmp*\n**/deep/*.o\nsrc/gen\n!src/gen/keep\n!tmp-base\n"
BASE = {"etc/passwd": "root:x:0:0::/:/x\nalice:x:1000:1001::/:/x\n", "etc/group": "alice:x:1001:\n"}
CONTEXT = {
    "a.txt": "a", "b.txt": "b", "keep.log": "k", "x.log": "x", "tmp1/f": "t", "src/main.c": "m",
    "src/deep/a.o": "o", "src/deep/a.c": "c", "src/gen/out": "o", "src/gen/keep": "k",
    "we[i]rd": "w", "one.file": "1", "dir.d/one": "1", "dir.d/two": "2",
}  # fmt: skip

CASES = [
    "COPY a.txt /c0/name",
    "COPY a.txt /c1/",
    "COPY a.txt b.txt /c2/",
    "COPY *.txt /c3/",
    "COPY src /c4",
    "COPY src/ /c5/",
    "COPY . /c6/",
    "COPY ./src/../a.txt /c7/x/y/z",
    "COPY s* /c8/",
    "COPY [ab].t?t /c9/",
    "COPY we[[]i]rd /c10/",
    "COPY *.log /c11/",
    "COPY dir.d one.file /c12/",
    "COPY /a.txt /c13/",
    "COPY --chown=alice:alice src /c14/",
    "COPY --chown=7:8 a.txt /c15/x/",
    "COPY --chown=9 a.txt /c16",
    "ADD box.tar /c17/",
    "ADD box.tgz box.txz /c18/",
    "COPY box.tar /c19/",
    "ADD looks.tar /c20/",
    "ADD box.tar looks.tar /c21/",
    "COPY linked /c22/",
    "COPY linkdir /c23/",
    "COPY l* /c24/",
    "COPY src/*/*.c /c25/",
    "COPY a.txt /c6/src",
    "COPY dir.d /c6/src",
]


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GenuineDockerd]:
    made = GenuineDockerd(tmp_path_factory.mktemp("genuine"))
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("context")
    for name, text in CONTEXT.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    box = archive(
        member("d", tarfile.DIRTYPE, mode=0o750, uid=3, gid=4),
        member("d/f", data=b"x", uid=3, gid=4, mode=0o4711),
        link("d/l", "f"),
    )
    (root / "box.tar").write_bytes(box)
    for name, mode in (("box.tgz", "w:gz"), ("box.txz", "w:xz")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as tar:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"y"))
        (root / name).write_bytes(buffer.getvalue())
    (root / "looks.tar").write_bytes(b"\x1f\x8b\x08 no archive")
    (root / "linked").symlink_to("src/main.c")
    (root / "linkdir").symlink_to("dir.d")
    (root / "src" / "inner").symlink_to("../a.txt")
    (root / "a.txt").chmod(0o640)
    (root / "src" / "deep").chmod(0o711)
    (root / "src").chmod(0o711)
    (root / "one.file").chmod(0o755)
    (root / ".dockerignore").write_text(IGNORE)
    base = root / "tmp-base"
    for name, text in BASE.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(text)
    for path in root.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    return root


def ours(context: Path, root: Path) -> None:
    for name, text in BASE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for line in CASES:
        keyword, *words = shlex.split(line, posix=False)
        flags = dict(word[2:].split("=") for word in words if word.startswith("--"))
        *patterns, destination = [word for word in words if not word.startswith("--")]
        source = CopySource(
            root=context,
            patterns=tuple(patterns),
            shown="the build context",
            ignore=IgnoreRules.parse(IGNORE),
        )
        options = CopyOptions(
            destination=destination, owner=flags.get("chown", ""), unpacks=keyword == "ADD"
        )
        put(take([source], options), options, root)


def listing(names: dict[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """By case, without what only the engine's own build needs in its context."""
    cases: dict[str, list[str]] = {}
    for name, fields in sorted(names.items()):
        top, _, below = name.partition("/")
        if below in ("Dockerfile", ".dockerignore"):
            continue
        if top.startswith("c") and top[1:].isdigit():
            cases.setdefault(top, []).append(" ".join((below or ".", *fields)))
    return cases


def of_tar(data: bytes) -> dict[str, tuple[str, ...]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            info.name.rstrip("/"): (
                info.type.decode(),
                f"{info.mode & 0o7777:o}",
                f"{info.uid}:{info.gid}",
                info.linkname,
                "" if info.isdir() else str(int(info.mtime)),
            )
            for info in tar
        }


def of_tree(root: Path) -> dict[str, tuple[str, ...]]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, str(path.relative_to(root)), recursive=False)
    return of_tar(buffer.getvalue())


def test_the_same_files_come_out(
    docker: GenuineDockerd, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    dockerfile = context / "Dockerfile"
    base = "COPY tmp-base /\n"
    dockerfile.write_text("FROM scratch\n" + base + "\n".join(CASES) + "\nCMD x\n")
    (context / ".dockerignore").write_text(IGNORE)
    docker.docker("build", "-q", "-t", "copied", str(context))
    dockerfile.unlink()
    (context / ".dockerignore").unlink()
    docker.docker("create", "--name", "copied", "copied", "x")
    theirs = listing(of_tar(docker.docker("export", "copied")))
    root = tmp_path / "root"
    root.mkdir()
    ours(context, root)
    mine = listing(of_tree(root))
    assert mine == theirs
