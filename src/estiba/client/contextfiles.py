"""Contexts as archives in docker's form: `meta.json` and `tls/ENDPOINT/FILE`, in a tar or a zip."""

from __future__ import annotations

import io
import os
import tarfile

from estiba.client import contexts
from estiba.client.errors import ClientError
from estiba.client.jsonlite import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_MOST_BYTES = 10 << 20
_META = "meta.json"
_TAR_END = 1536
"""The rest of a block, and two empty ones."""


def pack(name: str) -> bytes:
    """Raises ClientError when there is no such context; the default one is no file."""
    if name == "default":
        raise ClientError('the context "default" is made of the environment: nothing to export')
    meta = dumps(contexts.load(name)).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, _META, meta)
        _add_directory(tar, "tls")
        top = os.path.dirname(contexts.tls_directory(name))
        for place in sorted(os.listdir(top)) if os.path.isdir(top) else []:
            _add_directory(tar, f"tls/{place}")
            for file in sorted(os.listdir(os.path.join(top, place))):
                with open(os.path.join(top, place, file), "rb") as source:
                    _add(tar, f"tls/{place}/{file}", source.read())
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644 if name == _META else 0o600
    tar.addfile(info, io.BytesIO(data))


def _add_directory(tar: tarfile.TarFile, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o700
    tar.addfile(info)


def unpack(name: str, file: BinaryIO) -> None:
    """Makes the context. Raises ClientError for an archive that is none, and for strange names."""
    data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ClientError(f"not a context: the archive has more than {_MOST_BYTES >> 20} MiB")
    meta = None
    files: dict[tuple[str, str], bytes] = {}
    for path, content in _members(data):
        words = path.split("/")
        if path == _META:
            meta = content
        elif len(words) == 3 and words[0] == "tls" and not {"", ".", ".."} & set(words):
            files[words[1], words[2]] = content
        else:
            raise ClientError(f"not a context: unexpected file in the archive: {path!r}")
    try:
        parsed = loads(meta) if meta is not None else None
    except ValueError as error:
        raise ClientError(f"not a context: {_META}: {error}") from None
    if not isinstance(parsed, dict):
        raise ClientError(f"not a context: there is no {_META} in the archive")
    contexts.restore(name, parsed, files)


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Regular files of a tar or a zip. Raises ClientError."""
    try:
        if data.startswith(b"PK"):
            import zipfile

            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for entry in archive.infolist():
                    if entry.file_size > _MOST_BYTES:
                        raise ClientError(f"not a context: {entry.filename} is too big")
                    if not entry.is_dir():
                        yield entry.filename, archive.read(entry)
            return
        # docker leaves out the zeros after the last file.
        with tarfile.open(fileobj=io.BytesIO(data + bytes(_TAR_END))) as tar:
            for member in tar:
                if member.isreg():
                    content = tar.extractfile(member)
                    yield member.name, content.read(_MOST_BYTES) if content else b""
    except (tarfile.TarError, ValueError, OSError, EOFError) as error:
        raise ClientError(f"not a context: neither tar nor zip: {error}") from None
