"""Which namespaces a container has of its own, shares with the host, or joins. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

NEW = Path("")
"""A namespace made for the container."""

Namespace = Path | None
"""NEW, the path of one to join, or None for the host's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """A container always has its own mount namespace, and there are no user namespaces yet."""

    network: Namespace
    pid: Namespace = NEW
    ipc: Namespace = NEW
    uts: Namespace = NEW
    cgroup: Namespace = NEW

    def to_spec(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = [{"type": "mount"}]
        for kind in ("pid", "ipc", "uts", "network", "cgroup"):
            namespace: Namespace = getattr(self, kind)
            if namespace is None:
                continue
            joined = {"path": str(namespace)} if namespace != NEW else {}
            entries.append({"type": kind, **joined})
        return entries


def namespace_of(pid: int, kind: str) -> Path:
    """The path of a process's namespace; `kind` is net, pid, ipc, uts or cgroup."""
    return Path(f"/proc/{pid}/ns/{kind}")
