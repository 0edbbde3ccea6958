"""A small root file system from the host's own busybox, as a tar in memory."""

from __future__ import annotations

import functools
import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

_DIRECTORIES = ("dev", "etc", "home", "lib", "proc", "root", "sys", "tmp", "usr", "usr/bin", "var")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n",
    "etc/group": "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}


@functools.cache
def busybox_tar() -> bytes:
    """The tar; needs Debian's package busybox on the host."""
    return _tar(_DIRECTORIES, _FILES)


@functools.cache
def standin_tar() -> bytes:
    """The same, with what other projects' tests take for granted in alpine."""
    files = dict(_FILES)
    files["etc/passwd"] += "daemon:x:2:2::/sbin:/sbin/nologin\npostgres:x:70:70::/:/bin/sh\n"
    files["etc/group"] += "daemon:x:2:\npostgres:x:70:\n"
    return _tar((*_DIRECTORIES, "mnt", "opt", "srv", "var/opt"), files)


def _tar(directories: tuple[str, ...], files: dict[str, str]) -> bytes:
    program = shutil.which("busybox") or "/bin/busybox"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in (*directories, "bin"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(info)
        for name, text in files.items():
            _add(tar, name, text.encode(), 0o644)
        _add(tar, "bin/busybox", Path(program).read_bytes(), 0o755)
        for library in _libraries(program):
            _add(tar, library.lstrip("/"), Path(library).resolve().read_bytes(), 0o755)
        for applet in _applets(program):
            info = tarfile.TarInfo(f"bin/{applet}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def _libraries(program: str) -> list[str]:
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return re.findall(r"(/lib\S+)", done.stdout)


def _applets(program: str) -> list[str]:
    done = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split() if name not in ("busybox", "[", "[[")] + ["["]
