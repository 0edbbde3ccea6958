"""Base images from the distribution's own packages, for people with no registry at hand."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator

from estiba.client.errors import ClientError

_DIRECTORIES = (
    "bin", "dev", "etc", "home", "lib", "proc", "root", "run", "sbin", "sys", "tmp", "usr",
    "usr/bin", "usr/sbin", "var", "var/log", "var/www",
)  # fmt: skip
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    "www-data:x:33:33:www-data:/var/www:/bin/false\n",
    "etc/group": "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*::0:::::\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/services": "http 80/tcp\nhttps 443/tcp\ndomain 53/udp\ndomain 53/tcp\n",
}
_NAME_SERVICE = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
_CHUNK = 1 << 18
_MIRROR = "http://deb.debian.org/debian"


def busybox() -> Iterator[bytes]:
    """The tar of an image around the host's busybox and the libraries that it needs.

    Raises ClientError when the package is not installed.
    """
    program = shutil.which("busybox")
    if program is None:
        raise ClientError("busybox is not installed here: `apt-get install busybox`")
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in _DIRECTORIES:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            info.mode = {"tmp": 0o1777, "root": 0o700}.get(name, 0o755)
            tar.addfile(info)
        for name, text in _FILES.items():
            _add(tar, name, text.encode(), 0o640 if name == "etc/shadow" else 0o644)
        _add_file(tar, "bin/busybox", program)
        for library in _libraries(program):
            _add_file(tar, library.lstrip("/"), library)
        for applet in applets.stdout.split():
            if applet != "busybox":
                info = tarfile.TarInfo(f"bin/{applet}")
                info.type, info.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(info)
    yield buffer.getvalue()


def _libraries(program: str) -> list[str]:
    """What the loader names, and what glibc loads for name lookups."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    found = [word for line in listed.stdout.splitlines() for word in line.split() if word[0] == "/"]
    if not found:
        return []
    folder = os.path.dirname(next((path for path in found if "libc.so" in path), found[0]))
    extra = [os.path.join(folder, name) for name in _NAME_SERVICE]
    return list(dict.fromkeys(found + [path for path in extra if os.path.exists(path)]))


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def _add_file(tar: tarfile.TarFile, name: str, path: str) -> None:
    with open(path, "rb") as file:
        _add(tar, name, file.read(), 0o755)


def debian(suite: str) -> Iterator[bytes]:
    """The tar of a minimal Debian, made by debootstrap.

    Raises ClientError when debootstrap is missing or fails.
    """
    if shutil.which("debootstrap") is None:
        raise ClientError("debootstrap is not installed here: `apt-get install debootstrap`")
    with tempfile.TemporaryDirectory(prefix="estiba-debian-") as folder:
        root = os.path.join(folder, "root")
        command = ["debootstrap", "--variant=minbase", suite, root, _MIRROR]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:]
            raise ClientError(f"debootstrap {suite} failed: {''.join(last)}")
        _clean(root)
        yield from _tar_of(root)


def _clean(root: str) -> None:
    """Drops what only the making needed."""
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists", "var/log"):
        path = os.path.join(root, folder)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path, exist_ok=True)


def _tar_of(root: str) -> Iterator[bytes]:
    command = ["tar", "--numeric-owner", "--xattrs", "--one-file-system", "-C", root, "-c", "."]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while data := process.stdout.read(_CHUNK):
            yield data
    if process.returncode != 0:
        raise ClientError(f"tar of {root} failed with exit code {process.returncode}")
