"""cp: files between a container and the user's file system, or a tar on a stream.

The rules of where a copy ends up are docker's: a target that is a directory takes the source
inside, `SOURCE/.` means the content, a missing target is the new name.
"""

from __future__ import annotations

import os
import sys

from estiba.cli.parse import Arguments, UsageError
from estiba.client.errors import ApiError, ClientError
from estiba.client.http import Client, Response, part
from estiba.client.jsonlite import loads
from estiba.client.streams import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_GO_DIRECTORY = 1 << 31
_GO_SYMLINK = 1 << 27
_MOST_LINKS = 40


def copy(client: Client, given: Arguments) -> int:
    (from_container, source), (to_container, target) = (split(word) for word in given.words)
    if from_container and to_container:
        raise UsageError("copying between containers is not supported")
    if not from_container and not to_container:
        raise UsageError("must specify at least one container source")
    if from_container:
        count = _download(client, from_container, source, target, given)
    else:
        count = _upload(client, source, to_container, target, given)
    if not given.quiet and "-" not in given.words and os.isatty(2):
        from estiba.cli.output import human_size

        print(f"Successfully copied {human_size(count)} to {given.words[1]}", file=sys.stderr)
    return 0


def split(word: str) -> tuple[str, str]:
    """Container and path; a local path has no container."""
    if word == "-" or word.startswith(("/", ".")):
        return "", word
    name, colon, path = word.partition(":")
    return (name, path or "/") if colon and "/" not in name else ("", word)


class _Stat:
    """What the archive API says of a path."""

    def __init__(self, response: Response) -> None:
        from base64 import b64decode

        value = loads(b64decode(response.headers.get("x-docker-container-path-stat", "e30=")))
        self.is_directory = bool(value.get("mode", 0) & _GO_DIRECTORY)
        self.is_link = bool(value.get("mode", 0) & _GO_SYMLINK)
        self.link_target = str(value.get("linkTarget", ""))


def _stat(client: Client, container: str, path: str) -> _Stat | None:
    url = f"/containers/{part(container)}/archive"
    try:
        return _Stat(client.call("HEAD", url, {"path": path}))
    except ApiError as error:
        if error.status not in (404, 500):
            raise
        # A loop of symlinks too: what is asked for next says what is wrong, HEAD cannot.
        return None


def _resolve(client: Client, container: str, path: str) -> tuple[str, _Stat | None]:
    """The path behind symlinks. The daemon resolves parents; only the last name can be a link."""
    for _ in range(_MOST_LINKS):
        found = _stat(client, container, path)
        if found is None or not found.is_link or not found.link_target:
            return path, found
        path = os.path.join(os.path.dirname(path.rstrip("/")), found.link_target)
    raise ClientError(f"too many levels of symbolic links: {path}")


# -- out of a container --------------------------------------------------------------------


def _download(client: Client, container: str, path: str, target: str, given: Arguments) -> int:
    if target != "-":
        parent = os.path.dirname(os.path.abspath(target.rstrip("/") or "/"))
        if not os.path.isdir(parent):
            raise ClientError(f'invalid output path: directory "{parent}" does not exist')
    source = _resolve(client, container, path)[0] if given.follow_link else path
    url = f"/containers/{part(container)}/archive"
    response = client.call("GET", url, {"path": source})
    if target == "-":
        for piece in response.pieces():
            write_all(1, piece)
        return 0
    from estiba.client.archive import unpack

    root = _local_target(path, target, is_directory=_Stat(response).is_directory)
    return unpack(response.pieces(), root, keep_owner=bool(given.archive))


def _local_target(path: str, target: str, *, is_directory: bool) -> str:
    """The name that the archive's root gets. Raises ClientError."""
    if os.path.isdir(target):
        name = os.path.basename(path.rstrip("/"))
        inside = name in ("", ".", "..") or path.endswith("/.")
        return os.path.realpath(target) if inside else os.path.join(target, name)
    if os.path.exists(target):
        if target.endswith("/"):
            raise ClientError("not a directory")
        if is_directory:
            raise ClientError("cannot copy directory")
        return os.path.realpath(target)
    if target.endswith("/") and not is_directory:
        raise ClientError("no such directory")
    return os.path.abspath(target.rstrip("/"))


# -- into a container ----------------------------------------------------------------------


def _upload(client: Client, source: str, container: str, path: str, given: Arguments) -> int:
    query = {"noOverwriteDirNonDir": "true", "copyUIDGID": given.archive}
    url = f"/containers/{part(container)}/archive"
    path, found = _resolve(client, container, path)
    if source == "-":
        if found is None or not found.is_directory:
            raise ClientError(f'destination "{container}:{path}" must be a directory')
        pieces: Iterator[bytes] = read_pieces(0)
        directory = path
    else:
        from estiba.client.archive import pack

        _check_local(source)
        real = os.path.realpath(source) if given.follow_link else source.rstrip("/") or "/"
        directory, name = _remote_target(source, path, found)
        pieces = pack(real, name)
    counted = _Counted(pieces)
    client.call("PUT", url, {**query, "path": directory}, source=counted).close()
    return counted.count


def _check_local(source: str) -> None:
    if not os.path.lexists(source.rstrip("/") or "/"):
        raise ClientError(f"lstat {os.path.abspath(source)}: no such file or directory")
    if source.endswith("/") and not os.path.isdir(source):
        raise ClientError("not a directory")


def _remote_target(source: str, path: str, found: _Stat | None) -> tuple[str, str]:
    """The directory to unpack in, and the name that the source gets there."""
    is_directory = os.path.isdir(source) and (source.endswith("/") or not os.path.islink(source))
    if found is not None and found.is_directory:
        content_only = source == "." or source.endswith("/.")
        return path, "." if content_only else os.path.basename(os.path.abspath(source))
    if found is not None and is_directory:
        raise ClientError("cannot copy directory")
    if path.endswith("/") and not is_directory:
        raise ClientError("no such directory" if found is None else "not a directory")
    trimmed = path.rstrip("/")
    return os.path.dirname(trimmed) or "/", os.path.basename(trimmed)


class _Counted:
    """Pieces, and how many bytes they were."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.count += len(piece)
            yield piece


def read_pieces(fd: int) -> Iterator[bytes]:
    """What comes from a descriptor until its end."""
    while data := os.read(fd, 1 << 18):
        yield data
