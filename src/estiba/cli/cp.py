"""cp: files between a container and the user's file system, or a tar on a stream."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from collections.abc import Iterator
from typing import IO, Any

from estiba.cli.images import file_pieces
from estiba.cli.parse import Arguments, UsageError
from estiba.client.errors import ApiError, ClientError
from estiba.client.http import Client, Response
from estiba.client.streams import write_all

_GO_DIRECTORY = 1 << 31
_GO_SYMLINK = 1 << 27
_TAR = "application/x-tar"


def copy(client: Client, given: Arguments) -> int:
    source, target = (split(word) for word in given.words)
    if source[0] and target[0]:
        raise UsageError("copying between containers is not supported")
    if not source[0] and not target[0]:
        raise UsageError("must specify at least one container source")
    if source[0]:
        _from_container(client, source[0], source[1], target[1], follow=given.follow_link)
    else:
        _to_container(client, source[1], target[0], target[1], given)
    return 0


def split(word: str) -> tuple[str, str]:
    """Container and path; a local path has no container."""
    if word == "-" or word.startswith(("/", ".")):
        return "", word
    name, colon, path = word.partition(":")
    return (name, path) if colon and "/" not in name else ("", word)


def _stat(client: Client, container: str, path: str) -> dict[str, Any] | None:
    try:
        response = client.call("HEAD", f"/containers/{container}/archive", {"path": path})
    except ApiError as error:
        if error.status != 404:
            raise
        return None
    return _stat_of(response)


def _stat_of(response: Response) -> dict[str, Any]:
    header = response.headers.get("x-docker-container-path-stat", "")
    return dict(json.loads(base64.b64decode(header)))


# -- out of a container --------------------------------------------------------------------


def _from_container(
    client: Client, container: str, path: str, target: str, *, follow: bool
) -> None:
    if follow:
        stat = _stat(client, container, path)
        if stat and stat["mode"] & _GO_SYMLINK and stat["linkTarget"]:
            path = stat["linkTarget"]
    response = client.call("GET", f"/containers/{container}/archive", {"path": path})
    if target == "-":
        for piece in response.pieces():
            write_all(1, piece)
        return
    is_directory = bool(_stat_of(response)["mode"] & _GO_DIRECTORY)
    with tarfile.open(fileobj=_Reader(response.pieces()), mode="r|") as tar:
        _unpack(tar, path, target, is_directory=is_directory)


def _unpack(tar: tarfile.TarFile, path: str, target: str, *, is_directory: bool) -> None:
    """Docker's rules: into a directory that exists, else as the name given."""
    content_only = path.endswith("/.") and is_directory
    exists = os.path.isdir(target)
    if not exists and target.endswith("/") and not is_directory:
        raise ClientError(f"destination directory {target!r} must exist")
    if is_directory and os.path.exists(target) and not exists:
        raise ClientError("cannot copy directory to a file")
    parent = target if exists else os.path.dirname(os.path.abspath(target.rstrip("/")))
    if not os.path.isdir(parent):
        raise ClientError(f"the directory {parent!r} does not exist")
    new_name = "" if exists else os.path.basename(target.rstrip("/"))
    for member in tar:
        _, slash, rest = member.name.partition("/")
        if content_only:
            member.name = os.path.join(new_name, rest) if new_name else rest or "."
        elif new_name:
            member.name = new_name + slash + rest
            if member.islnk():
                member.linkname = new_name + "/" + member.linkname.partition("/")[2]
        check_inside(member, parent)
        tar.extract(member, parent, numeric_owner=True)


def check_inside(member: tarfile.TarInfo, parent: str) -> None:
    """A container may send anything: no name and no link may lead out of `parent`.

    Own code, because Debian 12's Python 3.11.2 has no extraction filters (PEP 706).
    Raises ClientError.
    """
    root = os.path.realpath(parent)

    def leads_out(path: str) -> bool:
        real = os.path.realpath(path)
        return real != root and not real.startswith(root.rstrip("/") + "/")

    name = os.path.join(parent, member.name)
    if os.path.isabs(member.name) or ".." in member.name.split("/"):
        raise ClientError(f"the container's archive names {member.name!r}, which leads elsewhere")
    if leads_out(os.path.dirname(name)):
        raise ClientError(f"{member.name!r} in the container's archive lies behind a symlink")
    if member.islnk() and leads_out(os.path.join(parent, member.linkname)):
        raise ClientError(f"{member.name!r} in the container's archive links out of it")
    if not member.issym() and os.path.islink(name):
        os.unlink(name)


class _Reader(io.RawIOBase):
    """A file over pieces, for tarfile."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._rest += piece
        if size < 0:
            size = len(self._rest)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


# -- into a container ----------------------------------------------------------------------


def _to_container(client: Client, source: str, container: str, path: str, given: Arguments) -> None:
    query = {"noOverwriteDirNonDir": "true", "copyUIDGID": given.archive}
    url = f"/containers/{container}/archive"
    if source == "-":
        client.call("PUT", url, {**query, "path": path}, source=file_pieces("-"), content_type=_TAR)
        return
    if not os.path.lexists(source):
        raise ClientError(f"lstat {source}: no such file or directory")
    directory, name = _destination(client, container, source, path)
    real = os.path.realpath(source) if given.follow_link else source
    pieces = _packed(real, name)
    client.call("PUT", url, {**query, "path": directory}, source=pieces, content_type=_TAR)


def _destination(client: Client, container: str, source: str, path: str) -> tuple[str, str]:
    """The directory to unpack in, and the name that the source gets there."""
    path = path or "/"
    stat = _stat(client, container, path)
    if stat and stat["mode"] & _GO_SYMLINK and stat["linkTarget"]:
        linked = _stat(client, container, stat["linkTarget"])
        if linked is not None:
            path, stat = stat["linkTarget"], linked
    is_directory = bool(stat and stat["mode"] & _GO_DIRECTORY)
    content_only = source.endswith("/.") and os.path.isdir(source)
    base = os.path.basename(os.path.abspath(source))
    if is_directory:
        return path, "." if content_only else base
    if stat and os.path.isdir(source):
        raise ClientError("cannot copy directory to a file")
    if not stat and path.endswith("/") and not os.path.isdir(source):
        raise ClientError(f"destination directory {path!r} must exist in the container")
    trimmed = path.rstrip("/")
    return os.path.dirname(trimmed) or "/", os.path.basename(trimmed)


def _packed(source: str, name: str) -> Iterator[bytes]:
    """A tar of the source under `name`, made as it is sent."""
    chunks: list[bytes] = []

    class Sink(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            chunks.append(bytes(data))
            return len(data)

    tar = tarfile.open(  # noqa: SIM115 - closed below, after the last piece
        fileobj=_as_file(Sink()), mode="w|", format=tarfile.PAX_FORMAT
    )
    for path, inside in _walk(source, name):
        tar.add(path, inside, recursive=False)
        yield b"".join(chunks)
        chunks.clear()
    tar.close()
    yield b"".join(chunks)


def _as_file(raw: io.RawIOBase) -> IO[bytes]:
    return raw  # type: ignore[return-value]


def _walk(source: str, name: str) -> Iterator[tuple[str, str]]:
    yield source, name
    if os.path.isdir(source) and not os.path.islink(source):
        for entry in sorted(os.listdir(source)):
            yield from _walk(os.path.join(source, entry), f"{name}/{entry}")
