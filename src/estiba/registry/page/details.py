"""What a page shows of a manifest and its config. Both are whatever somebody pushed: nothing in
them is taken to be of the type that it should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from estiba.registry.storage.ports import StoredManifest

MAX_CONFIG_BYTES = 4 << 20
MAX_ROWS = 200
_MAX_TEXT = 2000
_MAX_SIZE = 1 << 62


@dataclass(frozen=True, slots=True)
class Part:
    """A descriptor: a layer, or one image of an index."""

    digest: str
    size: int
    media_type: str
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of the history."""

    created: str
    command: str
    comment: str
    is_empty: bool


@dataclass(frozen=True, slots=True)
class Details:
    """`size` is that of the layers and the config, or of the images' manifests in an index."""

    digest: str
    media_type: str
    artifact_type: str = ""
    platform: str = ""
    created: str = ""
    size: int = 0
    config: str = ""
    parts: list[Part] = field(default_factory=list)
    images: list[Part] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    history: list[Step] = field(default_factory=list)


def config_of(manifest: StoredManifest) -> tuple[str, int]:
    """Digest and size of the manifest's config; ("", 0) without one."""
    config = _table(_parse(manifest.body).get("config"))
    return _text(config.get("digest")), _number(config.get("size"))


def details_of(manifest: StoredManifest, config_data: bytes) -> Details:
    """`config_data` is the config blob, or empty where there is none to be shown."""
    content, config = _parse(manifest.body), _parse(config_data)
    described = _table(content.get("config"))
    parts = [_part(item) for item in _rows(content.get("layers"))]
    images = [_part(item) for item in _rows(content.get("manifests"))]
    own = _table(config.get("config"))
    return Details(
        digest=manifest.digest,
        media_type=manifest.media_type,
        artifact_type=_text(content.get("artifactType")),
        platform=_platform(config) or ", ".join(part.platform for part in images if part.platform),
        created=_moment(config.get("created")),
        size=sum(part.size for part in parts + images) + _number(described.get("size")),
        config=_text(described.get("digest")),
        parts=parts,
        images=images,
        labels=_texts(own.get("Labels")),
        annotations=_texts(content.get("annotations")),
        history=[_step(item) for item in _rows(config.get("history"))],
    )


def _part(item: Mapping[str, Any]) -> Part:
    return Part(
        digest=_text(item.get("digest")),
        size=_number(item.get("size")),
        media_type=_text(item.get("mediaType")),
        platform=_platform(_table(item.get("platform"))),
    )


def _step(item: Mapping[str, Any]) -> Step:
    return Step(
        created=_moment(item.get("created")),
        command=_text(item.get("created_by")),
        comment=_text(item.get("comment")),
        is_empty=item.get("empty_layer") is True,
    )


def _platform(table: Mapping[str, Any]) -> str:
    names = (_text(table.get(key)) for key in ("os", "architecture", "variant"))
    return "/".join(name for name in names if name and name != "unknown")


def _parse(data: bytes) -> Mapping[str, Any]:
    try:
        return _table(msgspec.json.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(value: object) -> list[Mapping[str, Any]]:
    return [_table(item) for item in value[:MAX_ROWS]] if isinstance(value, list) else []


def _texts(value: object) -> dict[str, str]:
    items = list(_table(value).items())[:MAX_ROWS]
    return {_text(key): _text(item) for key, item in items}


def _text(value: object) -> str:
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _moment(value: object) -> str:
    """To the second."""
    return _text(value)[:19].replace("T", " ")


def _number(value: object) -> int:
    return value if type(value) is int and 0 <= value < _MAX_SIZE else 0
