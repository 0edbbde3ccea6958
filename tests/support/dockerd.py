"""A genuine dockerd with roots and a socket of its own, to compare with."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from tests.support.busybox import busybox_tar
from tests.support.daemon import DEADLINE_S, wait_until


class GenuineDockerd:
    """Without networks of its own, so that it touches neither bridges nor the firewall, unless
    `network` has other flags.
    """

    def __init__(
        self, root: Path, network: tuple[str, ...] = ("--bridge", "none", "--iptables=false")
    ) -> None:
        self.root = root
        self.network = network
        # containerd's sockets below it must stay within 108 bytes.
        self.exec_root = Path(f"/run/estiba-test-dockerd-{secrets.token_hex(3)}")
        self.socket = self.exec_root / "api.sock"
        self.log = root / "dockerd.log"
        self.process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def is_installed() -> bool:
        return bool(shutil.which("dockerd") and shutil.which("docker"))

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        self.exec_root.mkdir(parents=True)
        command = ["dockerd", "-H", self.url, "--data-root", str(self.root / "data")]
        command += ["--exec-root", str(self.exec_root), "-p", str(self.root / "pid")]
        command += [*self.network, "--log-level", "warn"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_until(self._answers, what="dockerd")
        self.docker("import", "-c", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar())

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"dockerd ended:\n{self.log.read_text()}"
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def environment(self) -> dict[str, str]:
        """For both clients. 20.10 speaks 1.41, and its terminal is dumb."""
        return {
            **{name: value for name, value in os.environ.items() if name != "ESTIBA_HOST"},
            "DOCKER_HOST": self.url,
            "DOCKER_API_VERSION": "1.41",
            "DOCKER_CONFIG": str(self.root / "config"),
            "DOCKER_CLI_HINTS": "false",
        }

    def docker(self, *arguments: str, stdin: bytes = b"") -> bytes:
        done = subprocess.run(
            ["docker", *arguments], input=stdin, capture_output=True, env=self.environment(),
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def close(self) -> None:
        """Removes its containers, ends it and takes away what it leaves mounted."""
        if self.process is None:
            return
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            for line in self.docker("ps", "-aq").decode().split():
                self.docker("rm", "-fv", line)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE_S)
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            point = line.split()[4]
            if point.startswith((f"{self.exec_root}/", f"{self.root}/")):
                subprocess.run(["umount", "-l", point], check=False)
        shutil.rmtree(self.exec_root, ignore_errors=True)
        shutil.rmtree(self.root / "data", ignore_errors=True)
