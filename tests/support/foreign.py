"""Programs of another architecture: an arm64 busybox from Debian, and its emulator."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ARCHITECTURE = "arm64"
_CACHE = Path("/var/cache/estiba-debs")
_EMULATOR = "/usr/bin/qemu-aarch64-static"
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_CONTROL = ("register", "status")
_NAME = "estiba-test-aarch64"
_MAGIC = rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
_APT = """\
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "root";
Dir::State::Lists "{0}/lists";
Dir::State::status "/dev/null";
Dir::Cache "{0}";
Acquire::Languages "none";
Acquire::Retries "5";
"""


def arm64_busybox(folder: Path) -> bytes:
    """A root file system as a tar: one static program and its names."""
    program = _package(folder) / "bin" / "busybox"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(program, "bin/busybox")
        for name in ("sh", "uname", "echo", "cat", "mkdir"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return buffer.getvalue()


def _package(folder: Path) -> Path:
    """Debian's package, unpacked; kept for the next time."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    if not list(_CACHE.glob("busybox-static_*_arm64.deb")):
        for name in ("lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "apt.conf").write_text(_APT.replace("{0}", str(folder)))
        for words in (["update", "-q"], ["download", "-q", "busybox-static"]):
            done = subprocess.run(
                ["apt-get", *words],
                cwd=_CACHE,
                env={**os.environ, "APT_CONFIG": str(folder / "apt.conf")},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    root = folder / "root"
    package = next(_CACHE.glob("busybox-static_*_arm64.deb"))
    subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    return root


def is_emulated() -> bool:
    """Whether some entry of the kernel's has arm64 programs run already."""
    entries = (path.read_text() for path in _BINFMT.iterdir() if path.name not in _CONTROL)
    return any("aarch64" in text and text.startswith("enabled") for text in entries)


@contextmanager
def emulated() -> Iterator[None]:
    """The kernel runs arm64 programs by qemu, as Debian's binfmt-support has it, meanwhile.

    With F among the flags the kernel opens the emulator now, so containers need not have it.
    """
    had_mount = (_BINFMT / "register").exists()
    if not had_mount:
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)], check=True)
    entry = _BINFMT / _NAME
    try:
        if entry.exists():
            entry.write_text("-1")
        line = b":" + _NAME.encode() + b":M::" + _MAGIC + b":" + _MASK
        (_BINFMT / "register").write_bytes(line + b":" + _EMULATOR.encode() + b":POCF")
        yield
    finally:
        if entry.exists():
            entry.write_text("-1")
        if not had_mount:
            subprocess.run(["umount", str(_BINFMT)], check=True)
