"""OCI image-spec 1.1 records: descriptor, manifest, image config."""

from __future__ import annotations

from typing import Any

import msgspec

from estiba.model.container import HealthConfig
from estiba.model.digest import Digest

MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"


_NULLS_DEPTH = 8
"""No member that is read lies deeper."""


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    os: str = "linux"
    architecture: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    media_type: str
    digest: Digest
    size: int
    urls: list[str] = []
    annotations: dict[str, str] = {}
    platform: Platform | None = None
    artifact_type: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor
    layers: list[Descriptor] = []
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class Index(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    schema_version: int
    media_type: str = ""
    manifests: list[Descriptor] = []
    annotations: dict[str, str] = {}


class ImageProcessConfig(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"
):
    """The `config` member of an image config, with Docker's extensions."""

    user: str = ""
    exposed_ports: dict[str, dict[str, object]] = {}
    env: list[str] = []
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, dict[str, object]] = {}
    working_dir: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: HealthConfig | None = None
    on_build: list[str] = []
    shell: list[str] = []


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class RootFs(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "layers"
    diff_ids: list[Digest] = []


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """image-spec 1.1 config.md. `created` is RFC 3339."""

    created: str = ""
    author: str = ""
    architecture: str = "amd64"
    variant: str = ""
    os: str = "linux"
    os_version: str = msgspec.field(default="", name="os.version")
    config: ImageProcessConfig = ImageProcessConfig()
    rootfs: RootFs = RootFs()
    history: list[HistoryEntry] = []
    comment: str = ""
    docker_version: str = ""


def parse_config(data: bytes | str) -> ImageConfig:
    """An image config; members that are null, as Docker writes them, are their zero values.

    Raises msgspec.DecodeError or UnicodeDecodeError for what is no image config.
    """
    try:
        return msgspec.json.decode(data, type=ImageConfig)
    except msgspec.ValidationError:
        return msgspec.convert(without_nulls(msgspec.json.decode(data)), ImageConfig)


def without_nulls(value: Any, depth: int = _NULLS_DEPTH) -> Any:
    """`value` without members that are null; what lies deeper than `depth` stays as it is."""
    if depth == 0:
        return value
    if isinstance(value, dict):
        return {
            key: without_nulls(item, depth - 1) for key, item in value.items() if item is not None
        }
    if isinstance(value, list):
        return [without_nulls(item, depth - 1) for item in value]
    return value
