"""Real plugins in processes of their own, and what they were asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.daemon import wait_until

_HERE = Path(__file__).parent


class PluginProcess:
    """`kind` is a program of this folder; `root` holds its state, its socket is `socket`."""

    def __init__(self, kind: str, socket: Path, root: Path, **settings: str) -> None:
        """`settings` are PLUGIN_… variables of the program."""
        self.kind, self.socket, self.root = kind, socket, root
        self.settings = {f"PLUGIN_{name.upper()}": value for name, value in settings.items()}
        self.process: subprocess.Popen[bytes] | None = None
        root.mkdir(parents=True, exist_ok=True)
        socket.parent.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-S", str(_HERE / f"{self.kind}.py")],
                env={
                    **os.environ,
                    "PLUGIN_SOCKET": str(self.socket),
                    "PLUGIN_ROOT": str(self.root),
                    **self.settings,
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self.socket.exists, what=f"the plugin {self.kind}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def behave(self, **how: str) -> None:
        """What it does with a method from now on: `Mount="hang"`, `Create="die"`, or an error.

        Without arguments it behaves well again.
        """
        target = self.root / "behaviour"
        target.with_suffix(".new").write_text(json.dumps(how))
        target.with_suffix(".new").rename(target)

    def calls(self, method: str = "") -> list[dict[str, Any]]:
        """What it was asked, in order."""
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [call for call in found if not method or call["method"] == method]

    def state(self) -> Any:
        """What it keeps."""
        return json.loads((self.root / "state").read_text())

    def methods(self) -> list[str]:
        return [call["method"] for call in self.calls()]
