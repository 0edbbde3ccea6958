"""A busybox root, and a lab with each runtime in turn."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.kernel.runtime.runtime_lab import CGROUP_PARENT, HIERARCHIES, Lab, container_groups

from estiba.runtime.conmon import Conmon
from estiba.runtime.oci import OciRuntime


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root directory with the host's busybox; tests copy or only read it."""
    root = tmp_path_factory.mktemp("busybox")
    root.chmod(0o755)
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "lib64"):
        (root / name).mkdir()
    busybox = shutil.which("busybox")
    assert busybox
    shutil.copy(busybox, root / "bin/busybox")
    libraries = subprocess.run(["ldd", busybox], capture_output=True, text=True, check=False)
    for library in re.findall(r"(/\S+) \(", libraries.stdout):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        with contextlib.suppress(FileExistsError):
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nmail:x:8:12::/var:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nmail:x:12:\nextra:x:77:mail\n")
    return root


@pytest.fixture(params=["crun", "runc"])
async def lab(
    request: pytest.FixtureRequest, tmp_path: Path, busybox_root: Path
) -> AsyncIterator[Lab]:
    """Both runtimes in turn."""
    path = shutil.which(request.param)
    conmon = shutil.which("conmon")
    assert path, f"{request.param} is not installed"
    assert conmon, "conmon is not installed"
    root = tmp_path / "root"
    shutil.copytree(busybox_root, root, symlinks=True)
    # conmon's console sockets lie in the exit directory, whose path must be short.
    exits = Path(f"/tmp/estiba-exits-{os.getpid()}-{uuid.uuid4().hex[:6]}")
    runtime = OciRuntime(request.param, Path(path), tmp_path / "state")
    lab = Lab(runtime, Conmon(Path(conmon), exits), tmp_path, root)
    try:
        yield lab
    finally:
        await lab.clean()
        shutil.rmtree(exits, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_cgroups_left() -> Iterator[None]:
    yield
    assert not container_groups()


@pytest.fixture(scope="session", autouse=True)
def no_cgroup_parent_left() -> Iterator[None]:
    yield
    HIERARCHIES.remove(CGROUP_PARENT)
