"""Base images for real software: Debian from its mirrors, made once a session."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SUITE = "bookworm"
_DEBS = Path("/var/cache/estiba-debs")
"""debootstrap keeps there what it fetched."""
_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_FILES = {
    # As Debian's own images: packages are not worth an fsync each, nor their manuals a layer.
    "etc/dpkg/dpkg.cfg.d/container": (
        "force-unsafe-io\n"
        "path-exclude /usr/share/doc/*\n"
        "path-exclude /usr/share/man/*\n"
        "path-exclude /usr/share/locale/*\n"
    ),
    "etc/apt/apt.conf.d/container": (
        'Acquire::Retries "5";\n'
        'Acquire::Languages "none";\n'
        'APT::Install-Suggests "false";\n'
        'DPkg::Options { "--force-confold"; };\n'
        # The cache mounts of the examples keep them.
        'Binary::apt::APT::Keep-Downloaded-Packages "true";\n'
    ),
    "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
}


def make_debian(folder: Path) -> Path:
    """A tar of a minimal Debian that trusts whom this host trusts."""
    root, tar = folder / "debian", folder / "debian.tar"
    _DEBS.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--variant=minbase", f"--cache-dir={_DEBS}", SUITE, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr}"
    for name, text in _FILES.items():
        (root / name).write_text(text)
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    if _CERTIFICATES.is_dir():
        # A host whose way out is inspected has authorities of its own.
        shutil.copytree(_CERTIFICATES, root / "usr/local/share/ca-certificates", dirs_exist_ok=True)
    subprocess.run(["tar", "-C", str(root), "-cf", str(tar), "."], check=True)
    shutil.rmtree(root)
    return tar
