"""ufw and firewalld as they are installed, in the caller's network namespace.

Each gets folders of its own in place of /etc and /run, in a mount namespace that ends with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.daemon import wait_until

_SETTINGS = ("/etc/ufw", "/etc/default/ufw")
_DBUS = """<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_type="method_call"/>
    <allow send_type="signal"/><allow receive_type="signal"/>
    <allow send_requested_reply="true"/><allow receive_requested_reply="true"/>
  </policy>
</busconfig>
"""


class Ufw:
    """Debian's, with its files as they come."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir()
        for name in _SETTINGS:
            copy = shutil.copytree if Path(name).is_dir() else shutil.copy
            copy(name, root / name.replace("/", "_"))
        # One command does not wait for another's lock on the whole machine.
        (root / "run").mkdir()

    @staticmethod
    def is_installed() -> bool:
        return bool(shutil.which("ufw")) and all(Path(each).exists() for each in _SETTINGS)

    def __call__(self, *words: str) -> str:
        binds = [f"mount --bind {self._root / name.replace('/', '_')} {name}" for name in _SETTINGS]
        script = " && ".join([*binds, f"mount --bind {self._root / 'run'} /run", 'exec ufw "$@"'])
        command = ["unshare", "--mount", "sh", "-c", script, "ufw", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"ufw {words}: {done.stdout}{done.stderr}"
        return done.stdout


class Firewalld:
    """With a message bus of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir()
        self._bus = root / "bus"
        self._running: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def is_installed() -> bool:
        return all(map(shutil.which, ("firewalld", "firewall-cmd", "dbus-daemon")))

    def start(self) -> None:
        settings = self._root / "bus.conf"
        settings.write_text(_DBUS.format(socket=self._bus))
        self._begin("dbus-daemon", f"--config-file={settings}", "--nofork", "--nopidfile")
        wait_until(self._bus.exists, what="the message bus")
        shutil.copytree("/etc/firewalld", self._root / "etc")
        folders = "--system-config", str(self._root / "etc")
        log = "--log-file", str(self._root / "log")
        self._begin("firewalld", "--nofork", "--nopid", *folders, *log)
        wait_until(lambda: self._ask("--state").returncode == 0, what="firewalld", deadline_s=30)

    def _begin(self, *command: str) -> None:
        with (self._root / "output").open("ab") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=self._environment()
            )
        self._running.append(process)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self._bus}"}

    def _ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["firewall-cmd", *words], capture_output=True, text=True, timeout=60, check=False,
            env=self._environment(),
        )  # fmt: skip

    def __call__(self, *words: str) -> str:
        done = self._ask(*words)
        assert done.returncode == 0, f"firewall-cmd {words}: {done.stdout}{done.stderr}"
        return done.stdout

    def close(self) -> None:
        for process in reversed(self._running):
            process.terminate()
            process.wait(timeout=30)
        self._running.clear()
