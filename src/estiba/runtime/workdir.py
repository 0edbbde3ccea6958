"""The working directory of a program, checked before a runtime changes into it.

A path below /proc/<pid>/fd or its kin would lead through a descriptor of the runtime itself to
the host's files (CVE-2024-21626). Runtimes guard against that since 2024; an older one may be
installed, so such paths never reach it, written out or behind symlinks of the image.
"""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from estiba.kernel.confined import open_in_root
from estiba.model.errors import InvalidArgument

_MAX_LINKS = 40


def check_working_directory(rootfs: Path, path: str) -> str:
    """`path` made normal; "" is /. It need not exist, the runtime makes it.

    Raises InvalidArgument for a relative path, and for one that leads into a process's part of
    /proc. What a running container swaps after this look is left to the runtime's own guard.
    """
    if not path:
        return "/"
    if not path.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{path[:256]}' is invalid, it needs to be an absolute path"
        )
    if "\0" in path or len(path) > 4095:
        raise InvalidArgument("the working directory is invalid: a NUL byte or over 4095 bytes")
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolved = _resolve(root, path)
    finally:
        os.close(root)
    parts = resolved.split("/")[1:]
    if parts[0] == "proc" and len(parts) > 1 and _is_process(parts[1]):
        raise InvalidArgument(
            f"the working directory '{path[:256]}' is invalid: it lies in a process's part of /proc"
        )
    return posixpath.normpath(path)


def _is_process(name: str) -> bool:
    return name in ("self", "thread-self") or name.isdigit()


def _resolve(root: int, path: str) -> str:
    """Follows the image's symlinks; /proc is not mounted here, so the walk ends before it."""
    waiting = path.split("/")[::-1]
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        target = _link_target(root, "/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise InvalidArgument(f"the working directory '{path[:256]}' has too many links")
        if target.startswith("/"):
            done.clear()
        waiting += target.split("/")[::-1]
    return "/" + "/".join(done)


def _link_target(root: int, path: str) -> str | None:
    try:
        fd = open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=fd)
    except OSError:
        return None
    finally:
        os.close(fd)
