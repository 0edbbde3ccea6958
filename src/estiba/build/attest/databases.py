"""What package managers wrote down, read: dpkg, apk, Python, npm, os-release. Pure.

All of it comes out of an image: whatever is damaged is left out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import msgspec

from estiba.build.attest.packages import Package, System
from estiba.model.decoding import from_json


def read_system(data: bytes) -> System:
    """os-release(5)."""
    values = {}
    for line in data.decode(errors="replace").splitlines()[:200]:
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values[key.strip()] = _unquoted(value)
    return System(values.get("ID", ""), values.get("VERSION_ID", ""), values.get("PRETTY_NAME", ""))


def _unquoted(value: str) -> str:
    try:
        words = shlex.split(value)
    except ValueError:
        return ""
    return words[0] if words else ""


def dpkg_packages(data: bytes, location: str) -> Iterator[Package]:
    """`status`, or one file of `status.d`, whose entries have no Status."""
    for fields in _stanzas(data):
        status = fields.get("status", "").split()
        if status and status[-1] != "installed":
            continue
        name, version = fields.get("package", ""), fields.get("version", "")
        if name and version:
            yield Package(
                "deb",
                name,
                version,
                fields.get("architecture", ""),
                location,
                source=fields.get("source", "").partition(" ")[0],
                supplier=_person(fields.get("maintainer", "")),
            )


def _stanzas(data: bytes) -> Iterator[dict[str, str]]:
    """deb822(5), without continuation lines."""
    fields: dict[str, str] = {}
    for line in data.split(b"\n"):
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif not line.startswith((b" ", b"\t")):
            key, _, value = line.partition(b":")
            text = value.decode(errors="replace").strip()
            fields.setdefault(key.decode(errors="replace").lower(), text)
    if fields:
        yield fields


def apk_packages(data: bytes, location: str) -> Iterator[Package]:
    """`installed` of apk: one letter a line."""
    for stanza in re.split(rb"\n{2,}", data):
        fields: dict[str, str] = {}
        for line in stanza.split(b"\n"):
            if line[1:2] == b":" and line[:1] in b"PVALomU":
                letter = line[:1].decode()
                fields.setdefault(letter, line[2:].decode(errors="replace").strip())
        if fields.get("P") and fields.get("V"):
            yield Package(
                "apk",
                fields["P"],
                fields["V"],
                fields.get("A", ""),
                location,
                source=fields.get("o", ""),
                license=fields.get("L", ""),
                supplier=_person(fields.get("m", "")),
            )


def python_package(data: bytes, location: str) -> Package | None:
    """METADATA or PKG-INFO (core metadata specification): its head alone."""
    head = re.split(rb"\r?\n\r?\n", data, maxsplit=1)[0]
    fields: dict[str, str] = {}
    for line in head.decode(errors="replace").splitlines():
        key, colon, value = line.partition(":")
        if colon and not line.startswith((" ", "\t")):
            fields.setdefault(key.lower(), value.strip())
    name, version = fields.get("name", ""), fields.get("version", "")
    if not name or not version:
        return None
    author = fields.get("author", "")
    return Package(
        "pypi",
        name,
        version,
        location=location,
        license=fields.get("license-expression", "") or fields.get("license", ""),
        supplier=f"Person: {author}" if author and author != "UNKNOWN" else "",
    )


class _PackageJson(msgspec.Struct, frozen=True):
    name: object = None
    version: object = None
    license: object = None


def npm_package(data: bytes, location: str) -> Package | None:
    """package.json of a module; one without a version is a part of another."""
    try:
        value = from_json(data, _PackageJson)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(value.name, str) or not isinstance(value.version, str):
        return None
    if not value.name or not value.version:
        return None
    known = value.license if isinstance(value.license, str) else ""
    return Package("npm", value.name, value.version, location=location, license=known)


def _person(text: str) -> str:
    """As SPDX writes whom something is from (7.5, package supplier)."""
    if not text:
        return ""
    name, bracket, rest = text.rstrip().rpartition("<")
    address = rest.removesuffix(">")
    if not bracket or address == rest or ">" in address:
        return f"Person: {text}"
    return f"Person: {name.strip() or address} ({address})"
