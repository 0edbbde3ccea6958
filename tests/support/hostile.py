"""Archives that try to reach a directory outside, and that directory with a canary in it."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

SECRET = b"canary"


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object) -> tuple:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    info.mode = 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def archive(*members: tuple) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def link(name: str, target: str) -> tuple:
    return member(name, tarfile.SYMTYPE, linkname=target)


def hard(name: str, target: str) -> tuple:
    return member(name, tarfile.LNKTYPE, linkname=target)


def attacks(outside: str) -> dict[str, bytes]:
    """Every archive tries to change `outside`/canary or to make a file beside it."""
    return {
        "dot-dot": archive(member("../evil", data=b"x")),
        "dot-dot in the middle": archive(member("a/../../evil", data=b"x")),
        "absolute": archive(member(f"{outside}/evil", data=b"x")),
        "absolute symlinked parent": archive(
            link("out", outside), member("out/evil", data=b"x"), member("out/canary", data=b"x")
        ),
        "relative symlinked parent": archive(
            link("out", "../" * 20 + outside.lstrip("/")), member("out/evil", data=b"x")
        ),
        "links through links": archive(
            link("a", "b"), link("b", outside), member("a/evil", data=b"x")
        ),
        "file over a symlink to the canary": archive(
            link("f", f"{outside}/canary"), member("f", data=b"x")
        ),
        "hard link out": archive(hard("h", f"{outside}/canary"), member("h", data=b"x")),
        "hard link by dot-dot": archive(hard("h", f"../../..{outside}/canary")),
        "hard link through a symlink": archive(
            link("out", outside), hard("h", "out/canary"), member("h", data=b"x")
        ),
        "hard link to a symlink": archive(
            link("s", f"{outside}/canary"), hard("h", "s"), member("h", data=b"x")
        ),
        "chmod through a symlink": archive(
            link("d", outside), member("d", tarfile.DIRTYPE, mode=0o777)
        ),
        "directory times through a symlink": archive(
            member("d", tarfile.DIRTYPE, mtime=1), link("d", outside)
        ),
        "whiteout with dot-dot": archive(member(".wh...")),
        "whiteout through a symlink": archive(link("out", outside), member("out/.wh.canary")),
        "whiteout of nothing": archive(member(".wh.")),
        "opaque through a symlink": archive(link("out", outside), member("out/.wh..wh..opq")),
        "dev, proc and etc as symlinks": archive(
            link("dev", outside), link("proc", outside), link("etc", outside),
            member("dev/evil", data=b"x"), member("proc/evil", data=b"x"),
            member("etc/evil", data=b"x"),
        ),
        "symlink replaced by a directory and back": archive(
            member("d", tarfile.DIRTYPE), member("d/x", data=b"1"), link("d", outside),
            member("d/evil", data=b"x"),
        ),
        "name of 4096 bytes": archive(member("a/" * 2047 + "bb", data=b"x")),
        "component of 300 bytes": archive(member("n" * 300, data=b"x")),
        "odd names": archive(member("a\nb", data=b"x"), member("ü\udcff", data=b"x"),
                             member("-rf", data=b"x")),
    }  # fmt: skip


def make_canary(path: Path) -> Path:
    """The directory `path` with a file that nobody may change."""
    path.mkdir(mode=0o755)
    (path / "canary").write_bytes(SECRET)
    (path / "canary").chmod(0o600)
    return path


def snapshot(path: Path) -> list[tuple]:
    """All that an attack could change."""
    found = []
    for entry in [path, *sorted(path.rglob("*"))]:
        status = entry.lstat()
        content = entry.read_bytes() if entry.is_file() else b""
        xattrs = sorted(os.listxattr(entry, follow_symlinks=False))
        found.append((entry, status.st_mode, status.st_mtime_ns, status.st_nlink, content, xattrs))
    return found
