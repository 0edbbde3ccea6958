"""What to tell of a source that is not there: near matches, and the rule that hides it."""

from __future__ import annotations

import difflib
import os
import posixpath

from estiba.build.files.model import CopySource, shown_path
from estiba.kernel.confined import exists_in_root, open_in_root
from estiba.model.errors import NotFound
from estiba.model.wildcards import unescape

_MAX_NAMES = 10_000
_MAX_NEAR = 3


def not_found(source: CopySource, root: int, pattern: str, path: str) -> NotFound:
    """`path` is the cleaned `pattern`, relative to the open `root`."""
    shown = f'"/{shown_path(path)}"'
    message = f"{shown}: not found in {source.shown}"
    if os.path.normpath(pattern.lstrip("/")).split("/")[0] == "..":
        message += (
            f"; {pattern!r} leads out of {source.shown}, which is all that the builder sees: "
            "copy the file into it, or name its directory with --build-context"
        )
    return NotFound(message + _hint(source, root, unescape(path)))


def _hint(source: CopySource, root: int, path: str) -> str:
    rule = source.ignore.reason(path) if source.ignore and path else None
    if rule is not None:
        return f"; it is left out by {rule}"
    target = _link_target(root, path)
    if target is not None:
        return f'; it is a symbolic link to "{shown_path(target)}", where nothing is'
    near = _near(source, root, path)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _link_target(root: int, path: str) -> str | None:
    parent, name = posixpath.split(path)
    try:
        fd = open_in_root(root, parent or "/", os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        return os.readlink(name, dir_fd=fd) if name else None
    except OSError:
        return None
    finally:
        os.close(fd)


def _near(source: CopySource, root: int, path: str) -> list[str]:
    """Names that resemble the first part of the path that is missing."""
    before = ""
    parts = path.split("/")
    for index, part in enumerate(parts):
        following = f"{before}/{part}"
        if exists_in_root(root, following):
            before = following
            continue
        rest = "/".join(["", *parts[index + 1 :]])
        names = _names(source, root, before)
        same = [name for name in names if name.lower() == part.lower()]
        near = list(dict.fromkeys(same + difflib.get_close_matches(part, names, _MAX_NEAR)))
        paths = [f"{before}/{name}" for name in near[:_MAX_NEAR]]
        whole = [f"{each}{rest}" for each in paths if exists_in_root(root, f"{each}{rest}")]
        return [f'"{shown_path(each)}"' for each in whole or paths]
    return []


def _names(source: CopySource, root: int, directory: str) -> list[str]:
    try:
        fd = open_in_root(root, directory or "/", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return []
    try:
        names = os.listdir(fd)[:_MAX_NAMES]
    finally:
        os.close(fd)
    before = f"{directory}/".lstrip("/")
    ignore = source.ignore
    return sorted(name for name in names if not (ignore and ignore.excludes(before + name)))
