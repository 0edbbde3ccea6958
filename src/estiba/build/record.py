"""What the cache keeps of a step that was done."""

from __future__ import annotations

import msgspec

from estiba.model.decoding import from_json
from estiba.model.digest import Digest

KIND = "build-cache"


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
    return msgspec.json.encode(record)


def decode(body: bytes) -> CacheRecord:
    return from_json(body, CacheRecord)
