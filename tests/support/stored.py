"""What tests of volumes with a file system or a cipher of their own share."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from estiba.store import Store
from estiba.store.events import EventBus
from estiba.volumes.stored import stored_kind
from estiba.volumes.volumes import Volumes


@contextlib.contextmanager
def opened(root: Path) -> Iterator[Volumes]:
    """The volumes of an engine that starts and finds nobody using them."""
    store = Store.open(root / "estiba.db", EventBus())
    try:
        volumes = Volumes(root / "volumes", store, kinds=[stored_kind(root / "keys")])
        volumes.start()
        volumes.restore({})
        yield volumes
    finally:
        store.close()


SCRIPT = """
import sys
from pathlib import Path
from tests.support.stored import opened
root = Path(sys.argv[1])
with opened(root) as volumes:
"""


def killed(root: Path, body: str, point: str) -> int:
    """Runs `body` in a process of its own that dies at the failpoint; the return code."""
    script = SCRIPT + textwrap.indent(textwrap.dedent(body), "    ")
    return subprocess.run(
        [sys.executable, "-c", script, os.fspath(root)],
        env={**os.environ, "ESTIBA_FAILPOINTS": f"{point}=kill"},
        check=False,
    ).returncode
