"""From a path to an endpoint of distribution-spec 1.1; names are checked before anybody uses them.

A repository's name may hold words such as `blobs`: the last ones of the path tell what is meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from estiba.model.digest import Digest, parse_digest
from estiba.model.errors import InvalidArgument
from estiba.registry.errors import NameInvalid, PathUnknown, TagInvalid
from estiba.registry.storage.errors import DigestInvalid, UploadUnknown

MAX_NAME_LENGTH = 255
_MAX_PATH_LENGTH = 1024
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_UPLOAD = re.compile(r"[A-Za-z0-9-]{1,64}")


class Endpoint(StrEnum):
    """The kinds of paths below /v2/; the values name them in metrics and logs."""

    BASE = "base"
    CATALOG = "catalog"
    TAGS = "tags"
    MANIFEST = "manifest"
    BLOB = "blob"
    UPLOADS = "uploads"
    UPLOAD = "upload"
    REFERRERS = "referrers"


@dataclass(frozen=True, slots=True)
class Route:
    """`reference` is the tag, digest or upload that the path ends with."""

    endpoint: Endpoint
    repository: str = ""
    reference: str = ""


def find_route(path: str) -> Route:
    """Raises PathUnknown, NameInvalid, TagInvalid, DigestInvalid, UploadUnknown."""
    if len(path) > _MAX_PATH_LENGTH:
        raise PathUnknown(f"the path is longer than {_MAX_PATH_LENGTH} characters")
    return _find_route(path)


@lru_cache(maxsize=4096)
def _find_route(path: str) -> Route:
    words = path.split("/")
    if words[:2] != ["", "v2"]:
        raise PathUnknown("no such path: the registry's API is below /v2/")
    words = words[2:]
    if words in ([], [""]):
        return Route(Endpoint.BASE)
    if words == ["_catalog"]:
        return Route(Endpoint.CATALOG)
    if words[-2:] == ["tags", "list"]:
        return Route(Endpoint.TAGS, check_name(words[:-2]))
    if words[-2:] == ["blobs", "uploads"]:
        return Route(Endpoint.UPLOADS, check_name(words[:-2]))
    if words[-3:-1] == ["blobs", "uploads"]:
        name, upload = check_name(words[:-3]), words[-1]
        return Route(Endpoint.UPLOAD, name, _upload(upload)) if upload else _uploads(name)
    kind, reference = "".join(words[-2:-1]), words[-1]
    if kind == "manifests":
        return Route(Endpoint.MANIFEST, check_name(words[:-2]), check_reference(reference))
    if kind == "blobs":
        return Route(Endpoint.BLOB, check_name(words[:-2]), check_digest(reference))
    if kind == "referrers":
        return Route(Endpoint.REFERRERS, check_name(words[:-2]), check_digest(reference))
    raise PathUnknown("no such path: see the endpoints of the OCI distribution-spec")


def _uploads(name: str) -> Route:
    return Route(Endpoint.UPLOADS, name)


def check_name(words: list[str]) -> str:
    """The name of a repository out of its components. Raises NameInvalid."""
    name = "/".join(words)
    if not is_name(name):
        raise NameInvalid(
            f"invalid repository name {name[:64]!r}: lower case letters, digits and single "
            "separators, components divided by slashes, at most 255 characters"
        )
    return name


def is_name(name: str) -> bool:
    """Whether it can be a repository's."""
    return len(name) <= MAX_NAME_LENGTH and _NAME.fullmatch(name) is not None


def is_tag(text: str) -> bool:
    """Whether it can be a tag."""
    return _TAG.fullmatch(text) is not None


def check_reference(text: str) -> str:
    """A tag or a digest. Raises TagInvalid, DigestInvalid."""
    if ":" in text:
        return check_digest(text)
    if not is_tag(text):
        raise TagInvalid(f"invalid tag {text[:64]!r}: letters, digits, '_', '.', '-'; at most 128")
    return text


def check_digest(text: str) -> Digest:
    """Raises DigestInvalid."""
    try:
        return parse_digest(text)
    except InvalidArgument as error:
        raise DigestInvalid(error.message) from error


def _upload(text: str) -> str:
    if not _UPLOAD.fullmatch(text):
        raise UploadUnknown("no such upload: begin it again")
    return text
