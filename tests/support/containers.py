"""podman and skopeo with storage and credentials of their own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

needs_containers = pytest.mark.skipif(
    not all(shutil.which(name) for name in ("podman", "skopeo")),
    reason="needs podman and skopeo",
)


class Containers:
    """`root` holds their storage, temporary files and `auth.json`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            **os.environ,
            "REGISTRY_AUTH_FILE": str(root / "auth.json"),
            "TMPDIR": str(root),
        }
        # At most 50 characters.
        self.run_root = Path(f"/run/estiba-test-podman-{secrets.token_hex(3)}")
        self._storage = ["--root", str(root / "storage"), "--runroot", str(self.run_root)]

    def run(self, *command: str, status: int = 0) -> str:
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, timeout=120, check=False
        )
        assert done.returncode == status, (command, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def skopeo(self, *arguments: str, status: int = 0) -> str:
        return self.run("skopeo", "--insecure-policy", *arguments, status=status)

    def copy(self, source: str, destination: str, *flags: str) -> None:
        """`skopeo copy` between places of which none needs TLS."""
        plain = ["--src-tls-verify=false", "--dest-tls-verify=false"]
        self.skopeo("copy", *plain, *flags, source, destination)

    def look(self, name: str, *flags: str) -> Any:
        """`skopeo inspect`, decoded."""
        return json.loads(self.skopeo("inspect", "--tls-verify=false", *flags, name))

    def podman(self, *arguments: str, status: int = 0) -> str:
        drivers = ["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]
        return self.run("podman", *self._storage, *drivers, *arguments, status=status)


@contextlib.contextmanager
def private_containers(root: Path) -> Iterator[Containers]:
    root.mkdir()
    (root / "auth.json").write_text("{}")
    made = Containers(root)
    try:
        yield made
    finally:
        shutil.rmtree(made.run_root, ignore_errors=True)
