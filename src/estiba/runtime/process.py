"""A program in a container in the runtime-spec's form: the first one, or an exec. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estiba.runtime.users import User

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build_env(wanted: Sequence[str], *, hostname: str, tty: bool, home: str) -> list[str]:
    """The environment: what every program gets, and `wanted` over it.

    A later entry wins; a bare `NAME` takes the variable away.
    """
    base = [DEFAULT_PATH, f"HOSTNAME={hostname}"]
    if tty:
        base.append("TERM=xterm")
    named = {entry.partition("=")[0]: entry for entry in [*base, *wanted]}
    if named.get("HOME", "HOME=") == "HOME=":
        named["HOME"] = f"HOME={home}"
    return [entry for entry in named.values() if "=" in entry]


def build_process(
    *,
    args: Sequence[str],
    env: Sequence[str],
    cwd: str,
    user: User,
    capabilities: Sequence[str],
    no_new_privileges: bool,
    rlimits: Sequence[dict[str, object]] = (),
    oom_score_adj: int | None = None,
    tty: bool = False,
    console_size: Sequence[int] = (0, 0),
) -> dict[str, Any]:
    """The process object; `console_size` is (height, width), (0, 0) when unknown."""
    process: dict[str, Any] = {
        "terminal": tty,
        "args": list(args),
        "env": list(env),
        "cwd": cwd or "/",
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "capabilities": _capabilities(capabilities, user),
        "noNewPrivileges": no_new_privileges,
    }
    if rlimits:
        process["rlimits"] = list(rlimits)
    if oom_score_adj is not None:
        process["oomScoreAdj"] = oom_score_adj
    if tty and all(console_size):
        process["consoleSize"] = {"height": console_size[0], "width": console_size[1]}
    return process


def _capabilities(names: Sequence[str], user: User) -> dict[str, list[str]]:
    """Inheritable and ambient stay empty: a program keeps no capability by an exec of its own.

    For another user than root effective and permitted are empty too, as execve(2) makes them.
    """
    held = list(names) if user.uid == 0 else []
    return {
        "bounding": list(names),
        "effective": held,
        "permitted": held,
        "inheritable": [],
        "ambient": [],
    }
