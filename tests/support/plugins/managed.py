"""What is there of plugins that a daemon runs itself."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from tests.support.daemon import PrivateDaemon

NAME = "test/vol:latest"


def inspect(daemon: PrivateDaemon, name: str = NAME) -> dict[str, Any]:
    return dict(json.loads(daemon.docker("plugin", "inspect", name).stdout)[0])


def pids_of(daemon: PrivateDaemon) -> list[int]:
    """Processes of plugins of that daemon: those in their groups."""
    found = set()
    group = f"estiba-test-{daemon.bridge}/plugin-*/cgroup.procs"
    root = Path("/sys/fs/cgroup")
    for path in (*root.glob(group), *root.glob(f"*/{group}")):
        with contextlib.suppress(FileNotFoundError):
            found |= {int(line) for line in path.read_text().split()}
    return sorted(found)


def root_of(daemon: PrivateDaemon) -> Path:
    """The root file system of the only plugin."""
    (place,) = (daemon.data_root / "plugins/content").iterdir()
    return place / "rootfs"


def calls(daemon: PrivateDaemon) -> list[str]:
    path = root_of(daemon) / "data/calls"
    return [json.loads(line)["method"] for line in path.read_text().splitlines()]


def is_serving(daemon: PrivateDaemon) -> bool:
    words = ("run", "--rm", "-v", "kept:/a", "busybox", "true")
    return daemon.docker(*words, check=False).returncode == 0
