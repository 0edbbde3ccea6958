"""The data directory of a managed plugin: config.json, and a rootfs with Python and a plugin."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_PACKAGES = ("encodings", "json", "collections", "re", "importlib", "urllib")
_MODULES = (
    "__future__ abc ast base64 bisect codecs contextlib copyreg datetime dis enum fnmatch "
    "functools genericpath hashlib heapq inspect io ipaddress keyword linecache locale opcode "
    "operator os "
    "posixpath random reprlib selectors shutil signal site socket socketserver stat "
    "string struct subprocess tempfile textwrap threading token tokenize traceback types typing "
    "warnings weakref _collections_abc _sitebuiltins _weakrefset _compression bz2 lzma zipfile"
).split()


def plugin_tree(path: Path, program: str = "volumes", **config: Any) -> Path:
    """A directory for `docker plugin create`; `config` is laid over the usual one."""
    rootfs = path / "rootfs"
    _python(rootfs)
    for name in ("serving.py", f"{program}.py"):
        (rootfs / name).write_bytes((_HERE / name).read_bytes())
    for name in ("data", "run/docker/plugins", "tmp", "dev", "proc", "sys", "etc"):
        (rootfs / name).mkdir(parents=True, exist_ok=True)
    whole = {
        "description": "Volumes of the test",
        "documentation": "https://example.test/volumes",
        "entrypoint": [f"/usr/bin/{_name()}", "-S", f"/{program}.py"],
        "workdir": "/",
        "interface": {"socket": "vol.sock", "types": ["docker.volumedriver/1.0"]},
        "network": {"type": "none"},
        "linux": {"capabilities": [], "allowAllDevices": False, "devices": []},
        "mounts": [],
        "env": [
            {"name": "PLUGIN_SOCKET", "value": "/run/docker/plugins/vol.sock"},
            {"name": "PLUGIN_ROOT", "value": "/data"},
            {"name": "COLOUR", "value": "blue", "settable": ["value"]},
            {"name": "FIXED", "value": "1"},
        ],
        "args": {"name": "args", "settable": ["value"], "value": ["one"]},
        "propagatedMount": "",
        **config,
    }
    (path / "config.json").write_text(json.dumps(whole))
    return path


def _name() -> str:
    return Path(os.path.realpath(sys.executable)).name


def _python(rootfs: Path) -> None:
    program = Path(os.path.realpath(sys.executable))
    (rootfs / "usr/bin").mkdir(parents=True)
    shutil.copy2(program, rootfs / "usr/bin" / program.name)
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    target = rootfs / str(library).lstrip("/")
    target.mkdir(parents=True)
    for package in _PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__", "test*")
        shutil.copytree(library / package, target / package, ignore=ignore)
    for module in _MODULES:
        if (library / f"{module}.py").exists():
            shutil.copy2(library / f"{module}.py", target)
    extensions = list((library / "lib-dynload").glob("*.so"))
    (target / "lib-dynload").mkdir()
    for extension in extensions:
        shutil.copy2(extension, target / "lib-dynload")
    for needed in (program, *extensions):
        _add_libraries(rootfs, needed)


def add_program(rootfs: Path, program: Path) -> None:
    """A program of the host, found in PATH inside, with its libraries."""
    shutil.copy2(os.path.realpath(program), rootfs / "usr/bin" / program.name)
    _add_libraries(rootfs, program)


def _add_libraries(rootfs: Path, program: Path) -> None:
    for needed in _libraries(program):
        place = rootfs / str(needed).lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            shutil.copy2(os.path.realpath(needed), place)


def _libraries(program: Path) -> list[Path]:
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", done.stdout)]
