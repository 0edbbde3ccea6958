"""A package of an image, and how others call it (package-url). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

_MAX_FIELD = 256
_MAX_TEXT = 512
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """`kind` is the type of its package-url: deb, apk, pypi, npm, golang.

    `source` is the package that it was built from, `location` the file that says that it is here.
    """

    kind: str
    name: str
    version: str
    architecture: str = ""
    location: str = ""
    source: str = ""
    license: str = ""
    supplier: str = ""


@dataclass(frozen=True, slots=True)
class System:
    """From os-release: `id` as `debian`, `version` as `12`; empty without one."""

    id: str = ""
    version: str = ""
    title: str = ""


def clean(package: Package) -> Package | None:
    """What an image says of a package, fit for show; None for what cannot be a package."""
    fields = (package.name, package.version, package.architecture)
    if not package.name or any(len(text) > _MAX_FIELD or _CONTROL.search(text) for text in fields):
        return None
    return Package(
        package.kind,
        package.name,
        package.version,
        package.architecture,
        package.location,
        _text(package.source)[:_MAX_FIELD],
        _text(package.license),
        _text(package.supplier),
    )


def _text(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()[:_MAX_TEXT]


def purl(package: Package, system: System) -> str:
    """As `pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=amd64&distro=debian-12`."""
    name = package.name
    if package.kind == "pypi":
        name = re.sub(r"[-_.]+", "-", name).lower()
    elif package.kind == "golang":
        name = name.lower()
    path = "/".join(_quoted(part) for part in name.split("/") if part)
    notes = {}
    if package.kind in ("deb", "apk"):
        vendor = system.id or {"deb": "debian", "apk": "alpine"}[package.kind]
        path = f"{_quoted(vendor)}/{_quoted(name)}"
        notes["arch"] = package.architecture
        notes["distro"] = f"{system.id}-{system.version}" if system.version else system.id
        notes["upstream"] = package.source if package.source != package.name else ""
    query = "&".join(f"{key}={_quoted(value)}" for key, value in sorted(notes.items()) if value)
    version = f"@{_quoted(package.version)}" if package.version else ""
    return f"pkg:{package.kind}/{path}{version}{'?' if query else ''}{query}"


def _quoted(text: str) -> str:
    return quote(text, safe=":")
