"""OCI image-spec 1.1 records: descriptor, manifest, image config."""

from __future__ import annotations

import re

import msgspec

from estiba.model.container import HealthConfig
from estiba.model.decoding import from_json, from_plain, without_nulls
from estiba.model.digest import Digest
from estiba.model.errors import InvalidArgument

MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    os: str = "linux"
    architecture: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def serves(self, wanted: Platform) -> bool:
        """Whether an image of this platform is one of `wanted`; what that leaves open fits."""
        return all(
            asked in ("", own)
            for asked, own in (
                (wanted.os, self.os),
                (wanted.architecture, self.architecture),
                (wanted.variant, self.variant or wanted.variant),
            )
        )


_PART = re.compile(r"[A-Za-z0-9_.-]+")
_SYSTEMS = {"linux", "darwin", "macos", "windows", "freebsd", "netbsd", "openbsd", "solaris"}
_ARCHITECTURES = {
    "386", "amd64", "arm", "arm64", "loong64", "mips64", "mips64le", "ppc64le", "riscv64",
    "s390x",
}  # fmt: skip
_OTHER_NAMES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}


def parse_platform(text: str, architecture: str) -> Platform:
    """`os`, `architecture` or `os/architecture[/variant]`; `architecture` is the host's.

    Raises InvalidArgument, in Docker's words, also for a system other than Linux.
    """
    parts = [_OTHER_NAMES.get(part, part) for part in text.lower().split("/")]
    for part in parts:
        if not _PART.fullmatch(part):
            raise InvalidArgument(
                f'"{part[:32]}" is an invalid OS component of "{text[:64]}": '
                f"OSAndVersion specifier component must match {_PART.pattern}"
            )
    if len(parts) == 1 and parts[0] not in _SYSTEMS | _ARCHITECTURES:
        raise InvalidArgument(
            f'"{text[:64]}": unknown operating system or architecture: invalid argument'
        )
    if len(parts) > 3:
        raise InvalidArgument(f'"{text[:64]}": cannot parse platform specifier')
    if len(parts) == 1:
        parts = ["linux", *parts] if parts[0] in _ARCHITECTURES else [*parts, architecture]
    if parts[0] != "linux":
        raise InvalidArgument(f"operating system is not supported: {parts[0][:32]}")
    return Platform(architecture=parts[1], variant="".join(parts[2:]))


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


def encode_config(config: ImageConfig) -> bytes:
    """With what the specification requires, also where it is the default here."""
    required = {"architecture": config.architecture, "os": config.os}
    return msgspec.json.encode({**required, **msgspec.to_builtins(config)})


def encode_manifest(manifest: Manifest) -> bytes:
    """With what the specification requires, also of an image without layers."""
    if manifest.layers:
        return msgspec.json.encode(manifest)
    return msgspec.json.encode({**msgspec.to_builtins(manifest), "layers": []})


def parse_config(data: bytes | str) -> ImageConfig:
    """An image config; members that are null, as Docker writes them, are their zero values.

    Raises msgspec.DecodeError or UnicodeDecodeError for what is no image config.
    """
    try:
        return from_json(data, ImageConfig)
    except msgspec.ValidationError:
        return from_plain(without_nulls(msgspec.json.decode(data)), ImageConfig)
