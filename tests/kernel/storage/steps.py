"""Steps of builds without a build."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.daemon import wait_until

from estiba.storage.workspaces import Workspaces


def step(spaces: Workspaces, key: str, lower: list, script: str = "true") -> None:
    spaces.prepare(key, lower)
    with spaces.mounted(key) as root:
        subprocess.run(["sh", "-ec", script], cwd=root, check=True)


def done(spaces: Workspaces, key: str, lower: list, script: str) -> str:
    step(spaces, key, lower, script)
    return spaces.commit(spaces.freeze(key), ignored).diff_id


def ignored(_diff_id: str) -> None:
    """A lease that nobody needs here."""


def names(spaces: Workspaces, lower: list) -> list[str]:
    with spaces.view(lower) as root:
        return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def left(spaces: Workspaces) -> list[Path]:
    return [
        path
        for folder in (*(spaces.root / name for name in ("work", "views", "trash")),
                       spaces.layers.root / "ingest")
        for path in folder.iterdir()
    ]  # fmt: skip


def assert_nothing_left(spaces: Workspaces) -> None:
    wait_until(lambda: not left(spaces), what="what was removed to be gone")
