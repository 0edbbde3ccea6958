"""What came of a build, fetched from the daemon and written where the user wants it.

Files appear whole; a directory is filled by `client.archive`, which follows no symlink and never
leaves it.
"""

from __future__ import annotations

import os
import sys

from estiba.cli.buildboard import SENDING
from estiba.cli.buildspecs import Cache, Output
from estiba.cli.parse import UsageError
from estiba.client.errors import ClientError
from estiba.client.http import Client, part
from estiba.client.streams import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from estiba.cli.buildview import View

_CACHE = "cache"
"""The type of an output that is asked for with --cache-to."""


def check_places(outputs: list[Output]) -> None:
    """Before the build begins. Raises UsageError for a place where nothing can be written."""
    for output in outputs:
        if output.dest == "-":
            if sys.stdout.isatty():
                raise UsageError(
                    f"an output of type {output.kind} is not written to a terminal: give it a "
                    "dest=FILE, or send STDOUT into a file"
                )
        elif output.kind == "local":
            if os.path.exists(output.dest) and not os.path.isdir(output.dest):
                raise UsageError(f"{output.dest} is no directory, as an output of type local needs")
        elif output.dest and os.path.isdir(output.dest):
            raise UsageError(f"{output.dest} is a directory: type {output.kind} makes a file")


class Fetcher:
    """Takes what the daemon holds ready, each thing once."""

    def __init__(
        self, client: Client, outputs: list[Output], caches: list[Cache], view: View
    ) -> None:
        self._client = client
        self._outputs = outputs
        self._caches = caches
        self._view = view

    def fetch(self, told: list[dict[str, Any]]) -> None:
        """Raises ClientError."""
        self._check(told)
        for number, entry in enumerate(told, 1):
            token = str(entry.get("token") or "")
            if not token:
                continue
            index, kind = int(entry.get("index", 0)), str(entry.get("type") or "")
            is_cache = kind == _CACHE
            known: list[Any] = list(self._caches if is_cache else self._outputs)
            if not 0 <= index < len(known):
                raise ClientError(f"the daemon has made an output that was not asked for: {entry}")
            response = self._client.call("GET", f"/build/outputs/{part(token)}")
            dest = known[index].folder if is_cache else known[index].dest
            name = f"[internal] write {kind} to {'STDOUT' if dest == '-' else dest}"
            pieces = self._counted(response.pieces(), SENDING - number, name)
            if is_cache or kind == "local":
                _fill(pieces, dest)
            elif dest == "-":
                _to_stdout(pieces)
            else:
                write_whole(dest, pieces)
            self._view.moved_all(SENDING - number)

    def _check(self, told: list[dict[str, Any]]) -> None:
        """All that is to be written here must be there. Raises ClientError."""
        made = {(entry.get("type") == _CACHE, entry.get("index")) for entry in told}
        for index, output in enumerate(self._outputs):
            if output.dest and (False, index) not in made:
                raise ClientError(f"the daemon has made no output of type {output.kind}")
        for index, cache in enumerate(self._caches):
            if cache.folder and (True, index) not in made:
                raise ClientError(f"the daemon has made no cache for {cache.folder}")

    def _counted(self, pieces: Iterable[bytes], step: int, name: str) -> Iterator[bytes]:
        size = 0
        for piece in pieces:
            size += len(piece)
            self._view.moved(step, name, size)
            yield piece


def _to_stdout(pieces: Iterable[bytes]) -> None:
    sys.stdout.flush()
    for piece in pieces:
        write_all(1, piece)


def _fill(pieces: Iterable[bytes], folder: str) -> None:
    from estiba.client.archive import unpack_into

    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ClientError(f"cannot make {folder}: {error.strerror}") from error
    unpack_into(pieces, folder, keep_owner=os.geteuid() == 0)


def write_whole(path: str, pieces: Iterable[bytes]) -> None:
    """In place of what was there, when all of it is there. Raises ClientError.

    What is no regular file, such as /dev/stdout or a FIFO, is written to.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "wb", buffering=0) as file:
                for piece in pieces:
                    write_all(file.fileno(), piece)
            return
        path = os.path.realpath(path)
        temporary = f"{path}.{os.getpid()}.tmp"
        try:
            with open(temporary, "xb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise ClientError(f"cannot write {path}: {error.strerror or error}") from error


def write_metadata(path: str, metadata: dict[str, Any]) -> None:
    from estiba.client.jsonlite import dumps

    text = dumps(metadata, indent="  ") + "\n"
    write_whole(path, [text.encode(errors="surrogateescape")])
