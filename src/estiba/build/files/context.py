"""Build contexts that a client sends, and what is read from them first.

Owners are root's whatever the archive says; devices and the capabilities of files are left out.
Nothing here decides what a build does with its context.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from estiba.build.files.model import shown_path
from estiba.distribution.cancel import CancelToken
from estiba.kernel.confined import open_in_root, opened_root
from estiba.kernel.trees import opened_directory, remove_tree
from estiba.model.errors import EstibaError, InvalidArgument, LimitExceeded, NotFound
from estiba.model.ignore import MAX_BYTES as MAX_IGNORE_BYTES
from estiba.model.ignore import IgnoreRules
from estiba.storage.compress import Decompressed
from estiba.storage.tar import Entry, Kind, Source, TarReader
from estiba.storage.unpack import Limits, Unpacker, UnpackOptions, clean_name

MAX_REQUEST_BYTES = 8 << 20
MAX_DOCKERFILE_BYTES = 16 << 20
DEFAULT_DOCKERFILE = "Dockerfile"
IGNORE_FILE = ".dockerignore"

_TREES = ("contexts", "caches")
_LEFT_OUT = (Kind.CHAR, Kind.BLOCK)
_CAPABILITY = b"security.capability"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_BELOW = _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK
_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EXDEV)
_CACHE_NUMBER = re.compile(r"[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class Bundle:
    """What `estiba build` sends. `contexts` by name, `caches` by their place in the request.

    None: no such member came.
    """

    request: bytes
    dockerfile: bytes | None = None
    dockerignore: bytes | None = None
    contexts: dict[str, Path] = field(default_factory=dict)
    caches: dict[int, Path] = field(default_factory=dict)


def receive(source: Source, directory: Path, limits: Limits = Limits()) -> None:  # noqa: B008
    """Unpacks a tar, compressed or not, into the empty `directory`. Blocks.

    Raises InvalidArgument for a damaged or hostile archive, LimitExceeded, what `source`
    raises, OSError.
    """
    with opened_root(directory) as root:
        unpacker = Unpacker(root, UnpackOptions(keep_owner=False, limits=limits))
        try:
            reader = TarReader(Decompressed(source))
            for entry in reader:
                _apply(entry, reader, unpacker)
            unpacker.finish()
        except InvalidArgument as error:
            raise InvalidArgument(f"the build context cannot be read: {error}") from error
        finally:
            unpacker.close()


def receive_bundle(
    source: Source,
    directory: Path,
    limits: Limits = Limits(),  # noqa: B008
) -> Bundle:
    """Unpacks what `estiba build` sends into the empty `directory`. Blocks.

    A context's name is percent-encoded in the archive, as it may hold slashes. Raises as
    `receive`.
    """
    with opened_root(directory) as root:
        unpacker = Unpacker(root, UnpackOptions(keep_owner=False, limits=limits))
        parts: dict[str, bytes] = {}
        try:
            reader = TarReader(source)
            for entry in reader:
                _bundled(entry, reader, unpacker, parts, limits)
            unpacker.finish()
        except InvalidArgument as error:
            raise InvalidArgument(f"the build request cannot be read: {error}") from error
        finally:
            unpacker.close()
    if "request.json" not in parts:
        raise InvalidArgument("the build request is empty: request.json is missing")
    numbers = _trees(directory / "caches")
    return Bundle(
        request=parts["request.json"],
        dockerfile=parts.get("dockerfile"),
        dockerignore=parts.get("dockerignore"),
        contexts={unquote(name): path for name, path in _trees(directory / "contexts").items()},
        caches={int(name): path for name, path in numbers.items()},
    )


_MEMBERS = {
    "request.json": MAX_REQUEST_BYTES,
    "dockerfile": MAX_DOCKERFILE_BYTES,
    "dockerignore": MAX_IGNORE_BYTES,
}


def _bundled(
    entry: Entry, reader: TarReader, unpacker: Unpacker, parts: dict[str, bytes], limits: Limits
) -> None:
    name = os.fsdecode(clean_name(entry.name, limits))
    if not parts and name != "request.json":
        raise InvalidArgument(f"its first member is {name[:64]!r}, not request.json")
    if name in _MEMBERS:
        if entry.kind is not Kind.FILE or name in parts:
            raise InvalidArgument(f"{name} is no file, or stands there twice")
        parts[name] = _member(reader, entry, _MEMBERS[name])
        return
    tree, _, below = name.partition("/")
    top, _, rest = below.partition("/")
    if tree not in _TREES or (tree == "caches" and top and not _CACHE_NUMBER.fullmatch(top)):
        raise InvalidArgument(f"{name[:64]!r} belongs neither to a context nor to a cache")
    # Later these directories are roots themselves, opened by name.
    if not rest and entry.kind is not Kind.DIRECTORY:
        raise InvalidArgument(f"{name[:64]!r} is no directory")
    _apply(entry, reader, unpacker)


def _apply(entry: Entry, reader: TarReader, unpacker: Unpacker) -> None:
    if entry.kind not in _LEFT_OUT:
        # Of all clients only the classic one sends it, and no engine passes it on to the image.
        entry.xattrs.pop(_CAPABILITY, None)
        unpacker.apply(entry, reader)


def _member(reader: TarReader, entry: Entry, limit: int) -> bytes:
    if entry.size > limit:
        raise LimitExceeded(f"{entry.name.decode(errors='replace')}: over {limit >> 20} MiB")
    data = bytearray()
    while piece := reader.data():
        data += piece
    return bytes(data)


def _trees(directory: Path) -> dict[str, Path]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return {}
    paths = {name: directory / name for name in sorted(names)}
    for path in paths.values():
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise InvalidArgument(f"{path.name[:64]!r} is no directory")
    return paths


# -- what is left out ----------------------------------------------------------------------


def apply_ignore(directory: Path, rules: IgnoreRules, cancel: CancelToken | None = None) -> None:
    """Removes what the rules leave out, and directories that lead to nothing else. Blocks.

    Raises Cancelled, OSError.
    """
    if not rules:
        return
    with opened_directory(directory) as top:
        _remove(top, rules, cancel or CancelToken())


def _remove(top: int, rules: IgnoreRules, cancel: CancelToken) -> None:
    levels = [(top, "", "", os.listdir(top))]
    try:
        while levels:
            fd, before, own, names = levels[-1]
            if not names:
                levels.pop()
                if levels:
                    os.close(fd)
                    if own and rules.excludes(before.rstrip("/")):
                        with contextlib.suppress(OSError):  # not empty: an exception is in it
                            os.rmdir(own, dir_fd=levels[-1][0])
                continue
            cancel.check()
            name = names.pop()
            path = before + name
            is_directory = stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
            is_out = rules.excludes(path)
            if is_out and not (is_directory and rules.may_hold_exceptions(path)):
                if is_directory:
                    remove_tree(name, dir_fd=fd)
                else:
                    os.unlink(name, dir_fd=fd)
            elif is_directory:
                below = os.open(name, _BELOW, dir_fd=fd)
                levels.append((below, f"{path}/", name, os.listdir(below)))
    finally:
        for fd, _, _, _ in levels[1:]:
            os.close(fd)


# -- the first files that a build reads ----------------------------------------------------


def read_dockerfile(directory: Path, path: str = "") -> bytes:
    """The Dockerfile at `path` in the context, `Dockerfile` or `dockerfile` without one.

    Raises NotFound with near matches, InvalidArgument for what is no file, LimitExceeded.
    """
    with opened_root(directory) as root:
        data = _read(root, path or DEFAULT_DOCKERFILE, MAX_DOCKERFILE_BYTES)
        if data is None and path in ("", DEFAULT_DOCKERFILE):
            data = _read(root, DEFAULT_DOCKERFILE.lower(), MAX_DOCKERFILE_BYTES)
        if data is None:
            wanted = path or DEFAULT_DOCKERFILE
            message = f"Cannot locate specified Dockerfile: {shown_path(wanted)}"
            if os.path.normpath(wanted.lstrip("/")).split("/")[0] == "..":
                raise NotFound(f"{message}: it leads out of the build context")
            near = _near_dockerfiles(root, wanted)
            raise NotFound(f"{message}; did you mean {' or '.join(near)}?" if near else message)
    return data


def read_ignore(directory: Path, dockerfile: str = "") -> IgnoreRules:
    """`X.dockerignore` beside the Dockerfile X, else `.dockerignore` at the top, else no rules.

    Raises InvalidArgument with the line of a bad pattern, LimitExceeded.
    """
    beside = f"{dockerfile or DEFAULT_DOCKERFILE}{IGNORE_FILE}"
    with opened_root(directory) as root:
        for name in (beside, IGNORE_FILE):
            data = _read(root, name, MAX_IGNORE_BYTES)
            if data is not None:
                return parse_ignore(data, name)
    return IgnoreRules()


def parse_ignore(data: bytes, name: str = IGNORE_FILE) -> IgnoreRules:
    """Names are bytes to the kernel, so those that are no UTF-8 match too."""
    return IgnoreRules.parse(data.decode(errors="surrogateescape"), name)


def _read(root: int, path: str, limit: int) -> bytes | None:
    """None when nothing is there, whatever links lead to."""
    if "\0" in path:
        raise InvalidArgument(f"a path with a zero byte: {path[:64]!r}")
    try:
        fd = open_in_root(root, os.path.normpath("/" + path), _FILE)
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidArgument(f"{shown_path(path)}: it is no file")
    with os.fdopen(fd, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise LimitExceeded(f"{shown_path(path)}: over {limit >> 20} MiB")
    return data


def _near_dockerfiles(root: int, wanted: str) -> list[str]:
    """Like names in its directory, then whatever calls itself a Dockerfile near the top."""
    before, _, name = wanted.strip("/").rpartition("/")
    found: list[str] = []
    for directory in dict.fromkeys([before, ""]):
        names = _names(root, directory)
        like = [each for each in names if "dockerfile" in each.lower()]
        near = difflib.get_close_matches(name, names, 2) if directory == before else []
        for each in [*near, *sorted(like)]:
            path = f"{directory}/{each}" if directory else each
            with contextlib.suppress(EstibaError, OSError):
                if not path.endswith(IGNORE_FILE) and _read(root, path, MAX_DOCKERFILE_BYTES):
                    found.append(f'"{shown_path(path)}"')
    return list(dict.fromkeys(found))[:3]


def _names(root: int, directory: str) -> list[str]:
    try:
        fd = open_in_root(root, directory or "/", _DIRECTORY)
    except OSError:
        return []
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)
