"""What the cache keeps of a step that was done."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from estiba.model.digest import Digest

KIND = "build-cache"

_SURROGATE = re.compile("[\ud800-\udfff]")


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went into the key, kept to explain later misses.

    `files` is path → digest of what a COPY or ADD took, left out when there are very many.
    """

    kind: str
    text: str
    stage: str = ""
    env: dict[str, str] = {}
    args: dict[str, str] = {}
    files: dict[str, str] = {}
    other: dict[str, str] = {}


class CacheRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`keys` find it; `parent` is the record below it, or the base image's chain.

    `layer` is empty for a step that changed nothing. A cache mount is a record too, of type
    `exec.cachemount`, without keys; its files are at `mount`.
    """

    id: str
    keys: list[str] = []
    parent: str = ""
    layer: Digest = ""
    type: str = "regular"
    description: str = ""
    facts: Facts | None = None
    mount: str = ""
    size_bytes: int = 0
    created_ns: int = 0
    last_used_ns: int = 0
    uses: int = 0


def encode(record: CacheRecord) -> bytes:
    """What in a Dockerfile is no UTF-8 is kept as U+FFFD: it is for show."""
    try:
        return msgspec.json.encode(record)
    except UnicodeEncodeError:
        return msgspec.json.encode(printable(msgspec.to_builtins(record)))


def printable(value: Any) -> Any:
    """The same lists, objects and strings, but all of them UTF-8."""
    match value:
        case str():
            return _SURROGATE.sub("\ufffd", value)
        case list():
            return [printable(one) for one in value]
        case dict():
            return {printable(name): printable(one) for name, one in value.items()}
        case _:
            return value


def decode(body: bytes) -> CacheRecord:
    return msgspec.json.decode(body, type=CacheRecord)
