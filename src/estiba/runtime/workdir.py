"""The working directory of a program, made and checked before a runtime changes into it.

A path below /proc/<pid>/fd or its kin would lead through a descriptor of the runtime itself to
the host's files (CVE-2024-21626). Runtimes guard against that since 2024; an older one may be
installed, so such paths never reach it, written out or behind symlinks of the image.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from estiba.kernel.confined import ensure_directory_in_root, opened_root
from estiba.model.errors import InvalidArgument

_DESCRIPTORS = re.compile(r"proc/(self|thread-self|\d+)/(fd|root|cwd|exe|task)(/|$)")


def ensure_working_directory(rootfs: Path, path: str) -> None:
    """Makes the working directory in the container's root, as Docker does.

    Raises InvalidArgument for one that leads into a process's descriptors (CVE-2024-21626),
    and for a file in its place.
    """
    if not path or path == "/":
        return
    with opened_root(rootfs) as root:
        try:
            fd = ensure_directory_in_root(root, posixpath.normpath(path))
        except NotADirectoryError as error:
            raise InvalidArgument(
                f"cannot mkdir: {path} is not a directory: choose another working directory"
            ) from error
        except OSError as error:
            raise InvalidArgument(
                f"cannot use working directory {path!r}: {error.strerror}: "
                "choose a directory, or one that can be made"
            ) from error
        try:
            inside = os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), rootfs)
        finally:
            os.close(fd)
    _refuse_descriptors(inside, path)


def exec_directory(path: str) -> str:
    """Made normal: what a runtime changes into, `..` could leave again by a descriptor of its own.

    Where symlinks of a running container lead is for the runtime's guard to see. Raises
    InvalidArgument for one that leads into a process's descriptors.
    """
    if not path:
        return ""
    plain = posixpath.normpath(path)
    _refuse_descriptors(plain.lstrip("/"), path)
    return plain


def _refuse_descriptors(inside: str, path: str) -> None:
    if _DESCRIPTORS.match(inside):
        raise InvalidArgument(
            f"working directory {path!r} leads into the descriptors of a process: refused"
        )
