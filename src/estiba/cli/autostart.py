"""Starting the daemon when none answers on the default socket."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time

from estiba.client.errors import NoDaemon

_LOGS = ("/var/log/estiba.log", "/run/estiba/estibad.log")
_DEADLINE_S = 30.0


def start_daemon(path: str) -> None:
    """Starts `estibad` in the background and waits until it answers.

    Raises NoDaemon naming the log when it does not.
    """
    descriptor, log = _open_log()
    with open(descriptor, "ab") as file:
        process = subprocess.Popen(
            _command(), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    end = time.monotonic() + _DEADLINE_S
    while time.monotonic() < end and process.poll() is None:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                return
        time.sleep(0.01)
    raise NoDaemon(f"estibad did not start: {_last_line(log)}(the log is {log})")


def _open_log() -> tuple[int, str]:
    """The first place that can be written."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    for path in _LOGS:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            return os.open(path, flags, 0o640), path
        except OSError:
            continue
    raise NoDaemon(f"cannot write a log of the daemon: tried {' and '.join(_LOGS)}")


def _last_line(log: str) -> str:
    with open(log, errors="replace") as file:
        lines = file.read().splitlines()
    return f"{lines[-1].removeprefix('estibad: ')} " if lines else ""


def shown() -> str:
    """What a user types to start the daemon: its name alone when PATH leads to it."""
    words = _command()
    return "estibad" if words[0] == shutil.which("estibad") else shlex.join(words)


def _command() -> list[str]:
    """`estibad` beside this program, on PATH, or by this interpreter."""
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "estibad")
    for program in (beside, os.path.join(os.path.dirname(sys.executable), "estibad")):
        if os.access(program, os.X_OK):
            return [program]
    found = shutil.which("estibad")
    return [found] if found else [sys.executable, "-m", "estiba.daemon.main"]
