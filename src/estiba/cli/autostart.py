"""Starting the daemon when none answers on the default socket."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time

from estiba.client.errors import NoDaemon

_LOG = "/run/estiba/estibad.log"
_DEADLINE_S = 15.0


def start_daemon(path: str) -> None:
    """Starts `estibad` in the background and waits until it answers.

    Raises NoDaemon naming the log when it does not.
    """
    beside = os.path.join(os.path.dirname(sys.executable), "estibad")
    program = beside if os.path.exists(beside) else shutil.which("estibad")
    if program is None:
        raise NoDaemon("estibad is not installed beside this client: start the daemon by hand")
    os.makedirs(os.path.dirname(_LOG), exist_ok=True)
    with open(_LOG, "ab") as log:
        process = subprocess.Popen(
            [program], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    end = time.monotonic() + _DEADLINE_S
    while time.monotonic() < end and process.poll() is None:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                return
        time.sleep(0.05)
    raise NoDaemon(f"estibad did not start: see {_LOG}")
