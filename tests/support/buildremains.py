"""What builds may leave behind: nothing but finished steps and images."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.support.daemon import PrivateDaemon, wait_until

_KEPT = ("work", "views", "trash", "empty", "empty/0", "empty/1")


def remains(daemon: PrivateDaemon) -> list[str]:
    """Mounts, control groups, namespaces, processes, folders and containers of builds."""
    found = []
    roots = (str(daemon.data_root), str(daemon.exec_root))
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4]
        if place.startswith(roots) and place not in roots:
            found.append(f"mount {place}")
    for group in Path("/sys/fs/cgroup").glob(f"*/estiba-test-{daemon.bridge}/*/"):
        found.append(f"cgroup {group}")
    for group in Path("/sys/fs/cgroup").glob(f"estiba-test-{daemon.bridge}/*/"):
        found.append(f"cgroup {group}")
    for folder in ("build/work", "tmp", "images/ingest"):
        place = daemon.data_root / folder
        found += [f"folder {entry}" for entry in _entries(place)]
    found += _processes(daemon)
    containers = daemon.request("GET", "/containers/json?all=1")[1]
    return found + [f"container {json.dumps(one)}" for one in containers]


def _entries(place: Path) -> list[str]:
    """Whatever is below it, but for the folders that the engine keeps there."""
    found, kept = [], {str(place / name) for name in _KEPT}
    for folder, folders, files in os.walk(place):
        at = Path(folder)
        found += [str(at / name) for name in [*files, *folders] if str(at / name) not in kept]
    return found


def _processes(daemon: PrivateDaemon) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and daemon.process and int(entry.name) != daemon.process.pid:
            try:
                root = (entry / "root").readlink()
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if (
                str(root).startswith(str(daemon.data_root))
                or str(daemon.exec_root).encode() in words
            ):
                found.append(f"process {entry.name} {words!r}")
    return found


def wait_nothing_remains(daemon: PrivateDaemon) -> None:
    try:
        wait_until(lambda: not remains(daemon), what="nothing to remain")
    except AssertionError:
        raise AssertionError(
            "\n".join(remains(daemon)) + "\n" + daemon.log.read_text()[-3000:]
        ) from None
