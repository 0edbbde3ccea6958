"""The registries that are compared: Debian's docker-registry and our own, on loopback."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench import memory

_DEADLINE_S = 30.0

_CONFIG = """\
version: 0.1
log: {{fields: {{service: registry}}}}
storage:
  cache: {{blobdescriptor: inmemory}}
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http:
  addr: {address}
  headers: {{X-Content-Type-Options: [nosniff]}}
health:
  storagedriver: {{enabled: true, interval: 10s, threshold: 3}}
"""
"""What Debian's package configures, without the password file."""


@dataclass
class Registry:
    """One registry with its own root."""

    name: str
    command: list[str]
    address: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Raises RuntimeError when it does not answer."""
        # What a registry logs of each request costs it time, so both write it, to nobody.
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        end = time.monotonic() + _DEADLINE_S
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                connection = self.connection()
                connection.request("GET", "/v2/")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not start: {' '.join(self.command)}")

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address, timeout=600)

    def absolute(self, location: str) -> str:
        """A Location header, which may be a path alone, as a URL."""
        return location if "://" in location else f"http://{self.address}{location}"

    def processes(self) -> list[int]:
        return memory.processes_naming(self.address)

    def close(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def docker_registry(root: Path) -> Registry:
    """Raises RuntimeError when it is not installed."""
    program = shutil.which("docker-registry")
    if program is None:
        raise RuntimeError("docker-registry is not installed: scripts/bench installs it")
    address = _free_address()
    root.mkdir(parents=True, exist_ok=True)
    # The address in its name tells its processes from those of others.
    config = root / f"{address}.yml"
    for leftover in root.glob("*.yml"):
        leftover.unlink()
    config.write_text(_CONFIG.format(root=root / "data", address=address))
    return Registry("docker-registry", [program, "serve", str(config)], address)


def our_registry(root: Path) -> Registry:
    address = _free_address()
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "estiba.registry", "serve", "--allow-anonymous"]
    command += ["--root", str(root / "data"), "--addr", address]
    return Registry("estiba", command, address)


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
