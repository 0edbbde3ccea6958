"""The frozen state of an image: what the database keeps."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from estiba.model.digest import Digest
from estiba.model.image import ImageConfig, ImageProcessConfig, parse_config

KIND = "image"


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`id` is the digest of `config_json`, whose bytes are kept as they came."""

    id: Digest
    config_json: str
    chain_ids: list[Digest]
    repo_tags: list[str] = []
    """Familiar references with tag, for example `busybox:latest`."""

    repo_digests: list[str] = []
    size_bytes: int = 0
    created_ns: int = 0
    tagged_ns: int = 0
    parent: Digest = ""

    @property
    def config(self) -> ImageConfig:
        return parse_config(self.config_json)

    @property
    def process_config(self) -> ImageProcessConfig:
        return self.config.config

    @property
    def diff_ids(self) -> list[Digest]:
        return self.config.rootfs.diff_ids


def encode(record: ImageRecord) -> bytes:
    return msgspec.json.encode(record)


def decode(body: bytes) -> ImageRecord:
    return msgspec.json.decode(body, type=ImageRecord)


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time; 0 for what is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1e9)


def now_text() -> str:
    """The present moment as image configs write it (RFC 3339)."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
