"""What an image holds, read from the archive that `docker save` writes: one line a path."""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import tarfile
from dataclasses import dataclass
from typing import Any

_KINDS = {
    tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "link", tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block",
}  # fmt: skip
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_CONFIG = (
    "Env", "Cmd", "Entrypoint", "User", "WorkingDir", "ExposedPorts", "Volumes", "Labels",
    "Healthcheck", "OnBuild", "Shell", "StopSignal",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Inode:
    """One object of a file system; hard links share it."""

    text: str


Tree = dict[str, Inode]


@dataclass(frozen=True)
class Archived:
    """An image as its archive tells it."""

    config: dict[str, Any]
    layers: tuple[bytes, ...]

    @property
    def diff_ids(self) -> list[str]:
        return list(self.config["rootfs"]["diff_ids"])

    def tree(self) -> Tree:
        tree: Tree = {}
        for layer in self.layers:
            apply(tree, layer)
        return tree


def read(archive: bytes) -> Archived:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        (image,) = json.loads(_content(tar, "manifest.json"))
        config = json.loads(_content(tar, image["Config"]))
        return Archived(config, tuple(_content(tar, name) for name in image["Layers"] or ()))


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    assert member is not None, f"{name} is no file"
    return member.read()


def describe(image: Archived, base: Archived) -> dict[str, Any]:
    """What was made of `base`, or of nothing: the form of `expected.json`."""
    height = len(base.diff_ids)
    is_on_base = image.diff_ids[:height] == base.diff_ids
    history = image.config.get("history") or []
    own_history = history[len(base.config["history"]) if is_on_base else 0 :]
    config = image.config.get("config") or {}
    return {
        "config": {key: config[key] for key in _CONFIG if config.get(key)},
        "history": [_line(entry) for entry in own_history],
        "layers": len(image.diff_ids) - (height if is_on_base else 0),
        "files": difference(base.tree() if is_on_base else {}, image.tree()),
    }


def _line(entry: dict[str, Any]) -> str:
    mark = "(empty) " if entry.get("empty_layer") else ""
    return f"{mark}{entry.get('created_by', '')}"


def difference(old: Tree, new: Tree) -> dict[str, str]:
    before, after = lines(old), lines(new)
    made = {path: line for path, line in after.items() if before.get(path) != line}
    gone = {
        path: "gone" for path in before
        if path not in after and posixpath.dirname(path) not in before.keys() - after.keys()
    }  # fmt: skip
    return dict(sorted({**made, **gone}.items()))


def lines(tree: Tree) -> dict[str, str]:
    groups: dict[int, list[str]] = {}
    for path, inode in tree.items():
        groups.setdefault(id(inode), []).append(path)
    found = {}
    for path, inode in tree.items():
        first = min(groups[id(inode)])
        found[path] = inode.text + (f" also {first}" if first != path else "")
    return found


def apply(tree: Tree, layer: bytes) -> None:
    """Applies a layer as the image-spec says: whiteouts first, then what it has."""
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        members = tar.getmembers()
        for member in members:
            folder, name = posixpath.split(_path(member.name))
            if name == _OPAQUE:
                _remove_below(tree, folder)
            elif name.startswith(_WHITEOUT):
                gone = posixpath.join(folder, name.removeprefix(_WHITEOUT))
                tree.pop(gone, None)
                _remove_below(tree, gone)
        for member in members:
            path = _path(member.name)
            if posixpath.basename(path).startswith(_WHITEOUT) or path == "/":
                continue
            if not member.isdir():
                _remove_below(tree, path)
            tree[path] = (
                tree[_path(member.linkname)] if member.islnk() else Inode(_text(tar, member))
            )


def _remove_below(tree: Tree, folder: str) -> None:
    for path in [path for path in tree if path.startswith(f"{folder.rstrip('/')}/")]:
        del tree[path]


def _path(name: str) -> str:
    return posixpath.normpath("/" + name)


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    words = [_KINDS.get(member.type, "file")]
    if member.issym():
        return f"link {member.uid}:{member.gid} to {member.linkname}"
    words += [f"{member.mode & 0o7777:04o}", f"{member.uid}:{member.gid}"]
    if member.isfile():
        content = tar.extractfile(member)
        assert content is not None
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        words += [str(member.size), digest[:16]]
    elif member.isdev() and not member.isfifo():
        words.append(f"{member.devmajor},{member.devminor}")
    for key, value in sorted(member.pax_headers.items()):
        if key.startswith(_XATTR):
            raw = value.encode("utf-8", "surrogateescape")
            words.append(f"{key.removeprefix(_XATTR)}={raw.hex()}")
    return " ".join(words)
