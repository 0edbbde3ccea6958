"""Packages of a root: what each package manager wrote down, whatever else is in the tree."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PATIENCE

from estiba.build.attest.databases import dpkg_packages
from estiba.build.attest.packages import Package, System, purl
from estiba.build.attest.sbom import Scan, sbom, scan_root, spdx
from estiba.build.attest.tree import TreeLimits
from estiba.images.attestations import SPDX
from estiba.model.errors import LimitExceeded

OS_RELEASE = 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n'
STATUS = """\
Package: bash
Status: install ok installed
Architecture: amd64
Maintainer: Matthias Klose <doko@debian.org>
Version: 5.2.15-2+b2
Description: a shell
 Package: not-one
 .
 Version: 9

Package: gone
Status: deinstall ok config-files
Version: 1

Package: libc6
Status: install ok installed
Source: glibc (2.36-9)
Version: 2.36-9
"""
APK = """\
C:Q1abc=
P:musl
V:1.2.4-r2
A:x86_64
L:MIT
o:musl
m:Timo <timo@alpinelinux.org>
F:lib
R:ld.so

P:busybox
V:1.36.1-r5
A:x86_64
"""


def make(root: Path, files: Mapping[str, str | bytes]) -> Path:
    root.mkdir(exist_ok=True)
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return root


def names(scan: Scan) -> list[str]:
    return [f"{one.kind} {one.name} {one.version}" for one in scan.packages]


def go_program(modules: str, *, version: str = "go1.22.1", wide: bool = True) -> bytes:
    """An ELF file with the section that Go's linker makes, and the sections' names."""

    def text(data: bytes) -> bytes:
        length, head = len(data), b""
        while length > 0x7F:
            head += bytes([length & 0x7F | 0x80])
            length >>= 7
        return head + bytes([length]) + data

    framed = b"0" * 16 + modules.encode() + b"1" * 16
    info = b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16) + text(version.encode()) + text(framed)
    strings = b"\0.shstrtab\0.go.buildinfo\0"
    entry = struct.Struct("<IIQQQQ") if wide else struct.Struct("<IIIIII")
    size = 64 if wide else 40
    head_size = 64
    at_info, at_strings = head_size, head_size + len(info)
    table = at_strings + len(strings)
    head = bytearray(b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(57))
    if wide:
        struct.pack_into("<Q", head, 0x28, table)
        struct.pack_into("<HHH", head, 0x3A, size, 3, 1)
    else:
        struct.pack_into("<I", head, 0x20, table)
        struct.pack_into("<HHH", head, 0x2E, size, 3, 1)
    sections = [
        (0, 0, 0, 0, 0, 0),
        (1, 3, 0, 0, at_strings, len(strings)),
        (11, 1, 0, 0, at_info, len(info)),
    ]
    rows = b"".join(entry.pack(*row).ljust(size, b"\0") for row in sections)
    return bytes(head) + info + strings + rows


MODULES = (
    "path\texample.org/app\nmod\texample.org/app\t(devel)\t\n"
    "dep\tgithub.com/a/b\tv1.0.0\th1:x=\ndep\tgithub.com/c/d\tv2.0.0\n=>\tgithub.com/e/f\tv2.1.0\n"
    "dep\tgithub.com/g/h\tv3.0.0\n=>\t./local\t\n"
)


def test_debian_and_its_parts(tmp_path: Path) -> None:
    root = make(
        tmp_path / "root",
        {
            "usr/lib/os-release": OS_RELEASE,
            "var/lib/dpkg/status": STATUS,
            "var/lib/dpkg/status.d/tzdata": "Package: tzdata\nVersion: 2024a\n",
            "var/lib/dpkg/status.d/tzdata.md5sums": "Package: no\nVersion: 1\n",
        },
    )
    (root / "etc").mkdir()
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    scan = scan_root(root)
    assert scan.system == System("debian", "12", "Debian GNU/Linux 12")
    assert names(scan) == ["deb bash 5.2.15-2+b2", "deb libc6 2.36-9", "deb tzdata 2024a"]
    assert [purl(one, scan.system) for one in scan.packages] == [
        "pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=amd64&distro=debian-12",
        "pkg:deb/debian/libc6@2.36-9?distro=debian-12&upstream=glibc",
        "pkg:deb/debian/tzdata@2024a?distro=debian-12",
    ]
    assert scan.packages[0].supplier == "Person: Matthias Klose (doko@debian.org)"


def test_alpine(tmp_path: Path) -> None:
    root = make(
        tmp_path / "root",
        {"etc/os-release": "ID=alpine\nVERSION_ID=3.19\n", "lib/apk/db/installed": APK},
    )
    scan = scan_root(root)
    assert names(scan) == ["apk busybox 1.36.1-r5", "apk musl 1.2.4-r2"]
    found = purl(scan.packages[1], scan.system)
    assert found == "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64&distro=alpine-3.19"
    assert scan.packages[1].license == "MIT"


def test_python_and_npm(tmp_path: Path) -> None:
    site = "usr/lib/python3/dist-packages"
    modules = "srv/app/node_modules"
    root = make(
        tmp_path / "root",
        {
            f"{site}/Flask_Cors-4.0.0.dist-info/METADATA": (
                "Metadata-Version: 2.1\nName: Flask-Cors\nVersion: 4.0.0\nLicense: MIT\n\n"
                "Name: no\nVersion: 1\n"
            ),
            f"{site}/six-1.16.0.egg-info/PKG-INFO": "Name: six\nVersion: 1.16.0\n",
            f"{site}/idna-3.3.egg-info": "Name: idna\nVersion: 3.3\n",
            f"{site}/METADATA": "Name: no\nVersion: 1\n",
            f"{modules}/left-pad/package.json": '{"name": "left-pad", "version": "1.3.0"}',
            f"{modules}/@types/node/package.json": '{"name": "@types/node", "version": "20.1.0"}',
            f"{modules}/left-pad/test/package.json": '{"name": "no", "version": "1"}',
            "srv/app/package.json": '{"name": "app", "version": "1.0.0"}',
        },
    )
    scan = scan_root(root)
    assert [purl(one, scan.system) for one in scan.packages] == [
        "pkg:npm/%40types/node@20.1.0",
        "pkg:npm/left-pad@1.3.0",
        "pkg:pypi/flask-cors@4.0.0",
        "pkg:pypi/idna@3.3",
        "pkg:pypi/six@1.16.0",
    ]
    assert scan.packages[0].location == f"/{modules}/@types/node/package.json"


@pytest.mark.parametrize("wide", [True, False])
def test_modules_of_a_go_program(tmp_path: Path, wide: bool) -> None:
    root = make(tmp_path / "root", {"app": go_program(MODULES, wide=wide), "data": b""})
    (root / "data").write_bytes((root / "app").read_bytes())
    (root / "app").chmod(0o755)
    assert names(scan_root(root)) == [
        "golang example.org/app ",
        "golang github.com/a/b v1.0.0",
        "golang github.com/e/f v2.1.0",
        "golang github.com/g/h v3.0.0",
        "golang stdlib 1.22.1",
    ]


def test_go_programs_that_are_cut_off_or_lie(tmp_path: Path) -> None:
    whole = go_program(MODULES)
    root = make(tmp_path / "root", {f"cut{at}": whole[:at] for at in range(0, len(whole), 7)})
    changed = {}
    for at in range(64):
        lying = bytearray(whole)
        lying[at] ^= 0xFF
        changed[f"lie{at}"] = bytes(lying)
    for path in make(root, changed).iterdir():
        path.chmod(0o755)
    assert set(names(scan_root(root))) <= set(names(scan_root_of(tmp_path / "good", whole)))


def scan_root_of(root: Path, program: bytes) -> Scan:
    make(root, {"app": program})
    (root / "app").chmod(0o755)
    return scan_root(root)


def test_rpm_is_only_told_of(tmp_path: Path) -> None:
    root = make(tmp_path / "root", {"var/lib/rpm/rpmdb.sqlite": b"SQLite format 3\0"})
    scan = scan_root(root)
    assert scan.packages == () and "rpm" in scan.notes[0]
    assert "rpm" in json.loads(spdx(scan, name="x", created_s=0))["comment"]


def test_nothing_at_all(tmp_path: Path) -> None:
    document = json.loads(spdx(scan_root(make(tmp_path / "root", {})), name="x", created_s=0))
    assert [one["name"] for one in document["packages"]] == ["x"]


def test_the_document(tmp_path: Path) -> None:
    root = make(tmp_path / "root", {"etc/os-release": OS_RELEASE, "var/lib/dpkg/status": STATUS})
    made = sbom(root, "team/app", 1_700_000_000)
    document: dict[str, Any] = json.loads(made.body)
    assert made.type == SPDX
    assert document["spdxVersion"] == "SPDX-2.3"
    assert document["creationInfo"]["created"] == "2023-11-14T22:13:20Z"
    ids = [one["SPDXID"] for one in document["packages"]]
    assert len(set(ids)) == len(ids) == 4
    assert ids[:2] == ["SPDXRef-Image", "SPDXRef-OperatingSystem"]
    related = [
        (one["spdxElementId"], one["relationshipType"], one["relatedSpdxElement"])
        for one in document["relationships"]
    ]
    assert related[0] == ("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image")
    assert [other for _, kind, other in related if kind == "CONTAINS"] == ids[1:]


def test_the_same_tree_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    files = {"var/lib/dpkg/status": STATUS, "lib/apk/db/installed": APK}
    one, two = make(tmp_path / "one", files), make(tmp_path / "two", dict(reversed(files.items())))
    os.utime(two / "var/lib/dpkg/status", (1, 1))
    assert sbom(one, "x", 7) == sbom(two, "x", 7)
    assert sbom(one, "x", 7) != sbom(one, "y", 7)


# -- hostile roots -------------------------------------------------------------------------


def test_no_link_leads_out(tmp_path: Path) -> None:
    secret = make(tmp_path / "host", {"status": "Package: secret\nVersion: 1\n"})
    root = make(tmp_path / "root", {"var/lib/dpkg/x": "", "lib/apk/db/x": ""})
    (root / "var/lib/dpkg/status").symlink_to(secret / "status")
    (root / "var/lib/dpkg/status.d").symlink_to("../../../../host")
    (root / "lib/apk/db/installed").symlink_to("../../../../host/status")
    (root / "usr").symlink_to(secret)
    (root / "etc").symlink_to("/proc/self/root/etc")
    scan = scan_root(root)
    assert scan.packages == () and scan.system == System()


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    root = make(tmp_path / "root", {"etc/x": "", "a.dist-info/x": "", "var/lib/dpkg/x": ""})
    for name in ("etc/os-release", "a.dist-info/METADATA", "var/lib/dpkg/status"):
        os.mkfifo(root / name, 0o755)
    (root / "lib").symlink_to("lib")
    assert scan_root(root).packages == ()


def test_names_that_are_no_text(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "root") + b"/node_modules/\xff\n"
    os.makedirs(folder)
    with open(folder + b"/package.json", "wb") as file:
        file.write(b'{"name": "x", "version": "1"}')
    scan = scan_root(tmp_path / "root")
    assert names(scan) == ["npm x 1"]
    assert json.loads(spdx(scan, name="x", created_s=0))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"name": 1, "version": 2}',
        b'{"name": "a\\u0000b", "version": "1"}',
        b'{"name": "' + b"x" * 1000 + b'", "version": "1"}',
        b'{"name": "x", "version": "1"}' + b" " * (300 << 10),
    ],
)
def test_damaged_packages_are_left_out(tmp_path: Path, data: bytes) -> None:
    root = make(
        tmp_path / "root",
        {
            "node_modules/x/package.json": data,
            "x.dist-info/METADATA": data,
            "var/lib/dpkg/status": data,
            "lib/apk/db/installed": data,
            "etc/os-release": data,
        },
    )
    assert scan_root(root).packages == ()


def test_a_text_cannot_become_lines(tmp_path: Path) -> None:
    root = make(
        tmp_path / "root",
        {"node_modules/x/package.json": '{"name":"x","version":"1","license":"a\\nb\\u001b[2J"}'},
    )
    assert scan_root(root).packages[0].license == "a b [2J"


def test_too_much_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "root", {f"f{number}": "" for number in range(20)})
    with pytest.raises(LimitExceeded, match="more than 10 files"):
        scan_root(root, TreeLimits(entries=10))
    with pytest.raises(LimitExceeded, match="not listed within 0 seconds"):
        scan_root(root, TreeLimits(seconds=0))
    make(root, {"var/lib/dpkg/status": STATUS})
    with pytest.raises(LimitExceeded, match="more than 100 bytes"):
        scan_root(root, TreeLimits(total_bytes=100))
    os.truncate(root / "var/lib/dpkg/status", 1 << 40)
    with pytest.raises(LimitExceeded, match="128 MiB"):
        scan_root(root)


def test_a_million_packages_are_refused(tmp_path: Path) -> None:
    text = "".join(f"Package: p{number}\nVersion: 1\n\n" for number in range(100_001))
    with pytest.raises(LimitExceeded, match="100000 packages"):
        scan_root(make(tmp_path / "root", {"var/lib/dpkg/status": text}))


def test_a_package_of_another_kind_has_a_plain_name() -> None:
    package = Package("golang", "github.com/A/B", "v1.0.0+incompatible")
    assert purl(package, System()) == "pkg:golang/github.com/a/b@v1.0.0%2Bincompatible"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Ana B <ana@x.example>", "Person: Ana B (ana@x.example)"),
        ("<ana@x.example> ", "Person: ana@x.example (ana@x.example)"),
        ("Ana <B> <ana@x.example>", "Person: Ana <B> (ana@x.example)"),
        ("Ana B", "Person: Ana B"),
        ("Ana <ana@x.example", "Person: Ana <ana@x.example"),
        ("Ana <a@x> B", "Person: Ana <a@x> B"),
        (f"Ana{' ' * 500_000}B", f"Person: Ana{' ' * 500_000}B"),
    ],
)
def test_whom_a_package_is_from(written: str, shown: str) -> None:
    stanza = f"Package: a\nVersion: 1\nMaintainer: {written}\n"
    begin = time.process_time()
    (package,) = dpkg_packages(stanza.encode(), "")
    assert package.supplier == shown
    assert time.process_time() - begin < PATIENCE
