"""What COPY and ADD are asked for, and what they found: plain data. Nothing here has effects."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from estiba.model.ignore import IgnoreRules

_MAX_SHOWN_BYTES = 400
MAX_ENTRIES = 2_000_000
MAX_DEPTH = 256


@dataclass(frozen=True, kw_only=True)
class CopySource:
    """One tree and what is taken of it.

    `root` is the mounted tree or the context's directory; `shown` names it to the user, as
    "the build context" or "stage build". `patterns` are what the instruction says, variables
    expanded. What `ignore` leaves out is not there. `keeps_owner`: files of stages and images
    keep their owners, those of a context become root's. `is_remote_file`: a download, which
    only `unpacks_remote` unpacks. `shares_files`: nobody changes a file there any more, so that one
    may become the tree's without a copy.
    """

    root: Path
    patterns: tuple[str, ...]
    shown: str
    ignore: IgnoreRules | None = None
    is_remote_file: bool = False
    keeps_owner: bool = False
    shares_files: bool = False


@dataclass(frozen=True, kw_only=True)
class CopyOptions:
    """`owner` and `mode` as `--chown` and `--chmod` have them.

    With `follows_destination_links` false (`--link`) what stands in the way is replaced. No
    file gets a time later than `newest_ns`.
    """

    destination: str
    working_dir: str = "/"
    owner: str = ""
    mode: str = ""
    parents: bool = False
    excludes: tuple[str, ...] = ()
    unpacks: bool = False
    unpacks_remote: bool = False
    follows_destination_links: bool = True
    newest_ns: int | None = None


class Form(Enum):
    """How a source gets to its destination."""

    FILE = "file"
    CONTENTS = "contents of a directory"
    ARCHIVE = "archive"
    NOTHING = "excluded, or a socket"


@dataclass(slots=True)
class Entry:
    """One file, directory or link. `path` is below its source, empty for the source itself.

    `content` is the digest of a file's bytes; `inode` is set when the file has several names.
    """

    path: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    inode: tuple[int, int] | None = None
    rdev: int = 0
    link: str = ""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    content: str = ""


@dataclass(slots=True)
class Selected:
    """One source after wildcards. `path` is resolved in `root`, links followed."""

    root: Path
    path: str
    name: str
    form: Form
    keeps_owner: bool
    shares_files: bool = False
    entries: list[Entry] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Taken:
    """`digest` covers what `put` would make, times aside; `files` says it file by file, for
    people: short digests of the first thousands."""

    selected: tuple[Selected, ...]
    digest: str
    files: dict[str, str]


def shown_path(path: str) -> str:
    """For a message: names are any bytes, messages are text."""
    return os.fsencode(path)[:_MAX_SHOWN_BYTES].decode(errors="replace")
