"""Manifest lists under way, in the files where docker keeps them.

    manifests/LIST/MANIFEST     below the configuration; references, with `-` for `:`, `_` for `/`
    {"Ref", "Descriptor", "Raw": base64, "SchemaV2Manifest" or "OCIManifest"}

`Raw` is what the registry holds, byte for byte; the last member is the same for readers.
"""

from __future__ import annotations

import binascii
import os
import shutil
from dataclasses import dataclass

from estiba.client.errors import ClientError
from estiba.client.host import config_directory
from estiba.client.jsonlite import dumps, loads
from estiba.model.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class NoManifest(ClientError):
    """The store has no such list, or the list no such manifest."""

    def __init__(self, reference: Reference) -> None:
        super().__init__(f"No such manifest: {reference}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A manifest of a list. `descriptor` has the names of the image-spec."""

    reference: str
    descriptor: dict[str, Any]
    raw: bytes

    @property
    def view(self) -> dict[str, Any]:
        """As it is stored and shown."""
        is_docker = self.descriptor["mediaType"] == DOCKER_MANIFEST
        return {
            "Ref": self.reference,
            "Descriptor": self.descriptor,
            "Raw": binascii.b2a_base64(self.raw, newline=False).decode(),
            "SchemaV2Manifest" if is_docker else "OCIManifest": loads(self.raw),
        }


def _folder(target: Reference) -> str:
    return os.path.join(config_directory(), "manifests", _file_name(target))


def _file_name(reference: Reference) -> str:
    return str(reference).replace(":", "-").replace("/", "_")


def exists(target: Reference) -> bool:
    return os.path.isdir(_folder(target))


def get(target: Reference, member: Reference) -> Entry:
    """Raises NoManifest, ClientError for a damaged file."""
    path = os.path.join(_folder(target), _file_name(member))
    try:
        with open(path, "rb") as file:
            return _parsed(path, file.read())
    except FileNotFoundError:
        raise NoManifest(member) from None
    except OSError as error:
        raise ClientError(f"cannot read {path}: {error.strerror}") from error


def get_all(target: Reference) -> list[Entry]:
    """In the order of their names. Raises NoManifest, ClientError for a damaged file."""
    folder = _folder(target)
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        raise NoManifest(target) from None
    found = []
    for name in names:
        path = os.path.join(folder, name)
        with open(path, "rb") as file:
            found.append(_parsed(path, file.read()))
    return found


def _parsed(path: str, data: bytes) -> Entry:
    try:
        content = loads(data)
        descriptor = dict(content["Descriptor"])
        if not isinstance(descriptor["mediaType"], str):
            raise TypeError("mediaType")
        raw = binascii.a2b_base64(content["Raw"])
        return Entry(str(content["Ref"]), descriptor, raw)
    except (ValueError, KeyError, TypeError) as error:
        raise ClientError(
            f"{path} is damaged ({error!r}): remove the list with `estiba manifest rm`"
        ) from None


def save(target: Reference, member: Reference, entry: Entry) -> None:
    """Raises ClientError."""
    path = os.path.join(_folder(target), _file_name(member))
    temporary = os.path.join(config_directory(), f"manifests.{os.getpid()}.tmp")
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "w", encoding="utf-8", errors="replace") as file:
            file.write(dumps(entry.view, html=True))
        os.rename(temporary, path)
    except OSError as error:
        raise ClientError(f"cannot write {path}: {error.strerror}") from error


def remove(target: Reference) -> None:
    """Raises NoManifest."""
    if not exists(target):
        raise NoManifest(target)
    shutil.rmtree(_folder(target))
