"""The bill of materials of a root file system: its packages, and SPDX 2.3 of them.

    scan = scan_root(path)                       # what package managers say is there
    body = spdx(scan, name="team/app", created_s=0)

The root is an image's and may hold anything: see `tree.py`. What this reads is what package
managers wrote down; a program that was copied in is not found, but for Go's. The same tree, name
and time give the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

import estiba
from estiba.build.attest.databases import (
    apk_packages,
    dpkg_packages,
    npm_package,
    python_package,
    read_system,
)
from estiba.build.attest.gobuild import MAX_INFO_BYTES, go_packages, is_elf
from estiba.build.attest.packages import Package, System, clean, purl
from estiba.build.attest.tree import DEFAULT_LIMITS, Tree, TreeLimits, opened_tree, printable
from estiba.images.attestations import SPDX, Predicate
from estiba.kernel.trees import Found
from estiba.model.errors import LimitExceeded

_MAX_PACKAGES = 100_000
_MAX_DATABASE_BYTES = 128 << 20
_MAX_METADATA_BYTES = 256 << 10
_DPKG = "var/lib/dpkg/status"
_APK = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_RPM = ("var/lib/rpm", "usr/lib/sysimage/rpm")
_RPM_FILES = {"rpmdb.sqlite", "Packages", "Packages.db"}
_NPM = re.compile(r"(?:\A|.*/)node_modules/(?:@[^/]+/)?[^/]+/package\.json")
_PYTHON = re.compile(r"(?:\A|.*/)(?:[^/]+\.dist-info/METADATA|[^/]+\.egg-info(?:/PKG-INFO)?)")
_EXECUTABLE = 0o111
_NONE = "NOASSERTION"


@dataclass(frozen=True, slots=True)
class Scan:
    """`packages` in a fixed order; `notes` say what was there and not read."""

    system: System
    packages: tuple[Package, ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Finds:
    packages: set[Package] = field(default_factory=set)

    def add(self, package: Package | None) -> None:
        kept = clean(package) if package is not None else None
        if kept is not None:
            self.packages.add(kept)
        if len(self.packages) > _MAX_PACKAGES:
            raise LimitExceeded(f"the image has more than {_MAX_PACKAGES} packages")

    def add_all(self, packages: Iterator[Package]) -> None:
        for package in packages:
            self.add(package)


def sbom(
    root: Path,
    name: str,
    created_s: int,
    limits: TreeLimits = DEFAULT_LIMITS,
) -> Predicate:
    """The statement's own part for the image whose root stands at `root`. Blocks.

    Raises LimitExceeded for a root that takes too much to look through.
    """
    return Predicate(SPDX, spdx(scan_root(root, limits), name=name, created_s=created_s))


def scan_root(root: Path, limits: TreeLimits = DEFAULT_LIMITS) -> Scan:
    """Raises LimitExceeded. Blocks."""
    with opened_tree(root, limits) as tree:
        finds = _Finds()
        _read_databases(tree, finds)
        for found in tree.files():
            _look_at(tree, found, finds)
        system = _system(tree)
        notes = _notes(tree)
        return Scan(system, tuple(sorted(finds.packages)), notes)


def _system(tree: Tree) -> System:
    for path in ("etc/os-release", "usr/lib/os-release"):
        data = tree.read(path, _MAX_METADATA_BYTES)
        if data is not None:
            system = read_system(data)
            texts = (system.id, system.version, system.title)
            return System(*(re.sub(r"[^ -~]+", " ", text)[:128] for text in texts))
    return System()


def _read_databases(tree: Tree, finds: _Finds) -> None:
    readers: list[tuple[str, Callable[[bytes, str], Iterator[Package]]]] = [(_DPKG, dpkg_packages)]
    readers += [(path, apk_packages) for path in _APK]
    for name in tree.names(f"{_DPKG}.d"):
        if not name.endswith(".md5sums"):
            readers.append((f"{_DPKG}.d/{name}", dpkg_packages))
    for path, reader in readers:
        data = tree.read(path, _MAX_DATABASE_BYTES + 1)
        if data is None:
            continue
        if len(data) > _MAX_DATABASE_BYTES:
            raise LimitExceeded(f"{printable(path)} in the image is over 128 MiB")
        finds.add_all(reader(data, "/" + printable(path)))


def _look_at(tree: Tree, found: Found, finds: _Finds) -> None:
    path, place = found.path, f"/{printable(found.path)}"
    if _PYTHON.fullmatch(path):
        if (data := tree.read_found(found, _MAX_METADATA_BYTES)) is not None:
            finds.add(python_package(data, place))
    elif found.name == "package.json":
        is_whole = found.status.st_size <= _MAX_METADATA_BYTES
        if _NPM.fullmatch(path) and is_whole:
            data = tree.read_found(found, _MAX_METADATA_BYTES)
            finds.add(npm_package(data, place) if data is not None else None)
    elif found.status.st_mode & _EXECUTABLE and found.status.st_size > 64:
        with tree.opened(found) as file:
            if file is not None and is_elf(os.pread(file, 16, 0)):
                tree.count(64 << 10)
                for package in go_packages(file, place):
                    tree.count(min(MAX_INFO_BYTES, len(package.name)))
                    finds.add(package)


def _notes(tree: Tree) -> tuple[str, ...]:
    for path in _RPM:
        if _RPM_FILES & set(tree.names(path)):
            return (f"Packages of rpm are not listed: its database in /{path} is not read.",)
    return ()


# -- SPDX ----------------------------------------------------------------------------------


def spdx(scan: Scan, *, name: str, created_s: int, namespace: str = "") -> bytes:
    """SPDX 2.3 as JSON. `namespace` is a URI of this document alone, made of what is in it if
    none is given.
    """
    listed = [_package(package, scan.system) for package in scan.packages]
    image: dict[str, Any] = {
        "SPDXID": "SPDXRef-Image",
        "name": name,
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": _NONE,
        "licenseDeclared": _NONE,
        "copyrightText": _NONE,
        "primaryPackagePurpose": "CONTAINER",
    }
    top = [image, *_operating_system(scan.system)]
    document: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": namespace,
        "creationInfo": {
            "created": _time(created_s),
            "creators": [f"Tool: estiba-{estiba.__version__}"],
        },
        "packages": [*top, *listed],
        "relationships": _relationships([one["SPDXID"] for one in [*top[1:], *listed]]),
    }
    if scan.notes:
        document["comment"] = " ".join(scan.notes)
    if not namespace:
        digest = hashlib.sha256(msgspec.json.encode(document)).hexdigest()
        document["documentNamespace"] = f"https://spdx.org/spdxdocs/estiba-{digest[:32]}"
    return msgspec.json.encode(document)


def _operating_system(system: System) -> list[dict[str, Any]]:
    if not system.id:
        return []
    return [
        {
            "SPDXID": "SPDXRef-OperatingSystem",
            "name": system.id,
            **({"versionInfo": system.version} if system.version else {}),
            **({"summary": system.title} if system.title else {}),
            "downloadLocation": _NONE,
            "filesAnalyzed": False,
            "licenseConcluded": _NONE,
            "licenseDeclared": _NONE,
            "copyrightText": _NONE,
            "primaryPackagePurpose": "OPERATING-SYSTEM",
        }
    ]


def _package(package: Package, system: System) -> dict[str, Any]:
    locator = purl(package, system)
    key = hashlib.sha256(f"{locator}\0{package.location}".encode()).hexdigest()[:16]
    shown = re.sub(r"[^A-Za-z0-9.-]+", "-", package.name)[:64]
    notes = {
        "versionInfo": package.version,
        "supplier": package.supplier,
        "licenseComments": package.license and f"As the package says: {package.license}",
        "sourceInfo": package.location and f"Found in {package.location}",
    }
    return {
        "SPDXID": f"SPDXRef-Package-{package.kind}-{shown}-{key}",
        "name": package.name,
        **{key: value for key, value in notes.items() if value},
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": _NONE,
        "licenseDeclared": _NONE,
        "copyrightText": _NONE,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": locator,
            }
        ],
    }


def _relationships(contained: list[str]) -> list[dict[str, str]]:
    related = [("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image")]
    related += [("SPDXRef-Image", "CONTAINS", one) for one in contained]
    return [
        {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
        for one, kind, other in related
    ]


def _time(seconds: int) -> str:
    """SPDX 6.9: UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
