"""The folders of `tests/corpus`: what each builds, and the context that it is built from.

A folder has a Dockerfile, the files of its context, `expected.json` (written by
`tests/support/recording.py` from what a genuine engine makes of it) and, where more than
`docker build .` is needed, `build.json`:

    dockerfile  its path, when it is not Dockerfile
    args, labels, secrets   name → value;  target, platform;  ssh: true
    contexts    name → a folder of the case, or docker-image://…
    before      tag → a Dockerfile of the case that is built first
    make        files that git does not keep as they are: modes, hard links, archives, repositories
    serve       a folder that a server on loopback offers; the argument SERVER is its address
    doors       the ways in, when it is not both; `why` says the reason
    genuine     why the genuine engine is not asked: the expectation is our own
    error       what must fail: `says` (parts of the message), `line`, `column`
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

CORPUS = Path(__file__).parent.parent / "corpus"
_OURS = ("build.json", "expected.json")
_TIME = 1_600_000_000
_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "tar.gz": lambda data: gzip.compress(data, mtime=0),
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstandard.ZstdCompressor().compress,
}
_TYPES = {
    "file": tarfile.REGTYPE, "directory": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
}  # fmt: skip
_AUTHOR = {
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.com", "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com", "GIT_AUTHOR_DATE": f"{_TIME} +0000",
    "GIT_COMMITTER_DATE": f"{_TIME} +0000", "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    name: str
    folder: Path
    build: dict[str, Any]

    @property
    def dockerfile(self) -> str:
        return str(self.build.get("dockerfile", "Dockerfile"))

    @property
    def error(self) -> dict[str, Any] | None:
        return self.build.get("error")

    @property
    def serves(self) -> str:
        return str(self.build.get("serve", ""))

    def expected(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "expected.json").read_text())
        return found

    def goes_through(self, door: str) -> bool:
        return door in self.build.get("doors", ("classic", "estiba"))


def cases() -> list[Case]:
    found = []
    for folder in sorted(CORPUS.iterdir()):
        if folder.is_dir():
            build = folder / "build.json"
            found.append(Case(folder.name, folder, _json(build) if build.exists() else {}))
    return found


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def make_context(case: Case, context: Path) -> Path:
    """The context as the case means it, whatever umask it was checked out under."""
    shutil.copytree(
        case.folder, context, symlinks=True,
        ignore=lambda folder, _: _OURS if Path(folder) == case.folder else (),
    )  # fmt: skip
    for path in [context, *context.rglob("*")]:
        if not path.is_symlink():
            wanted = 0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644
            path.chmod(wanted)
    for item in case.build.get("make", ()):
        _make(context, item)
    # BuildKit takes a file for unchanged by its name, size and time.
    moment = _TIME + zlib.crc32(case.name.encode()) % 10_000_000
    for path in [context, *context.rglob("*")]:
        os.utime(path, (moment, moment), follow_symlinks=False)
    return context


def _make(context: Path, item: dict[str, Any]) -> None:
    path = context / item["path"]
    path.parent.mkdir(parents=True, exist_ok=True)
    if item.get("type") == "directory":
        path.mkdir(exist_ok=True)
    elif item.get("type") == "fifo":
        os.mkfifo(path)
    elif "same_as" in item:
        os.link(context / item["same_as"], path)
        return
    elif "git" in item:
        _repository(path, item["git"])
    elif "archive" in item:
        path.write_bytes(_PACKERS[item["archive"]](_tar(item["members"]))[: item.get("cut")])
    elif "gzip" in item:
        path.write_bytes(gzip.compress(item["gzip"].encode(), mtime=0))
    elif "count" in item:
        for number in range(item["count"]):
            one = path.with_name(f"{path.name}{number}")
            one.write_text(item["content"].format(number))
            one.chmod(0o644)
        return
    elif "size" in item:
        path.touch()
        os.truncate(path, item["size"])
    else:
        path.write_text(item["content"] * item.get("times", 1))
    path.chmod(int(item.get("mode", "0755" if path.is_dir() else "0644"), 8))


def _tar(members: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            info = tarfile.TarInfo(member["path"])
            info.type = _TYPES[member.get("type", "file")]
            info.mode, info.mtime = int(member.get("mode", "0777"), 8), _TIME
            info.uid, info.gid = map(int, member.get("owner", "0:0").split(":"))
            info.linkname = member.get("target", "")
            content = member.get("content", "").encode()
            info.size = len(content)
            info.pax_headers = {
                f"SCHILY.xattr.{key}": bytes.fromhex(value).decode("utf-8", "surrogateescape")
                for key, value in member.get("xattrs", {}).items()
            }
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _repository(path: Path, commits: list[dict[str, Any]]) -> None:
    """A bare repository with these commits on main."""
    work = path.with_suffix(".work")

    def git(*words: str) -> None:
        environment = {"PATH": os.environ["PATH"], **_AUTHOR}
        command = ["git", "-C", str(work), *words]
        subprocess.run(command, check=True, capture_output=True, env=environment)

    work.mkdir()
    git("init", "-q", "-b", "main")
    for number, commit in enumerate(commits):
        for name, content in commit["files"].items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(content)
            (work / name).chmod(0o755 if name in commit.get("executable", ()) else 0o644)
        git("add", "-A")
        git("commit", "-q", "-m", f"commit {number}")
        if "tag" in commit:
            git("tag", commit["tag"])
    git("clone", "-q", "--bare", ".", str(path.resolve()))
    shutil.rmtree(work)
