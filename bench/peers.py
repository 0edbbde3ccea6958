"""The engines that are compared, each with private roots and a bridge of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DEADLINE_S = 60.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket, kept open between requests."""

    def __init__(self, path: Path) -> None:
        super().__init__("bench", timeout=600)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = json.dumps(body) if body is not None else None
        self.request(method, f"/v1.41{path}", data, {"Content-Type": "application/json"})
        response = self.getresponse()
        content = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {content[:200]!r}")
        return json.loads(content) if content.strip() else None


@dataclass
class Engine:
    """One engine that speaks the Docker Engine API."""

    name: str
    root: Path
    command: list[str]
    bridge: str
    makes_bridge: bool
    process: subprocess.Popen[bytes] | None = None
    rounds: int = 0

    @property
    def socket(self) -> Path:
        return self.root / "api.sock"

    def start(self) -> None:
        if not self.makes_bridge:
            subprocess.run(["ip", "link", "add", self.bridge, "type", "bridge"], check=True)
            number = 240 if self.name == "docker" else 241
            subprocess.run(
                ["ip", "addr", "add", f"10.{number}.0.1/24", "dev", self.bridge], check=True
            )
            subprocess.run(["ip", "link", "set", self.bridge, "up"], check=True)
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + _DEADLINE_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError, RuntimeError):
                self.connection().call("GET", "/version")
                return
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} did not start: {(self.root / 'log').read_text()[-2000:]}")

    def connection(self) -> UnixConnection:
        return UnixConnection(self.socket)

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_API_VERSION": "1.41",
            "DOCKER_CONFIG": str(self.root / "config"),
        }

    def docker(self, *arguments: str, stdin: Any = subprocess.DEVNULL) -> bytes:
        """The same docker client for every engine."""
        return subprocess.run(
            ["docker", *arguments], stdin=stdin, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=self.environment(), check=True,
        ).stdout  # fmt: skip

    def processes(self) -> list[int]:
        """The daemon and all helpers that name its root in their command line."""
        words = (str(self.root).encode(), self.bridge.encode())
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if any(word in line for word in words):
                    found.append(int(entry.name))
        return found

    def pss_bytes(self) -> int:
        """Proportional set size of all its processes (proc(5), smaps_rollup)."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        return total

    def close(self) -> None:
        with contextlib.suppress(Exception):
            connection = self.connection()
            for container in connection.call("GET", "/containers/json?all=1"):
                connection.call("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)
        subprocess.run(
            ["nft", "delete", "table", "inet", f"estiba_{self.bridge}"],
            capture_output=True, check=False,
        )  # fmt: skip
        shutil.rmtree(self.root, ignore_errors=True)


def estiba(program: Path) -> Engine:
    root = Path("/var/tmp/estiba-bench/estiba")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    command = [str(program), "-H", f"unix://{root}/api.sock", "--data-root", f"{root}/data"]
    command += ["--exec-root", f"{root}/exec", "-b", "ebench0", "--bip", "10.241.0.1/24"]
    command += ["--log-level", "warn"]
    return Engine("estiba", root, command, "ebench0", makes_bridge=True)


def docker_engine() -> Engine | None:
    """None when dockerd is not installed."""
    program = shutil.which("dockerd")
    if program is None:
        return None
    root = Path("/var/tmp/estiba-bench/docker")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    command = [program, "-H", f"unix://{root}/api.sock", "--data-root", f"{root}/data"]
    command += ["--exec-root", f"{root}/exec", "-p", f"{root}/pid", "-b", "dbench0"]
    return Engine("docker", root, command, "dbench0", makes_bridge=False)


def podman_works(busybox: bytes) -> str:
    """Empty when podman can run a container here, else why not."""
    if shutil.which("podman") is None:
        return "podman is not installed"
    name = "localhost/estiba-bench"
    subprocess.run(["podman", "import", "-", name], input=busybox, capture_output=True, check=False)
    done = subprocess.run(
        ["podman", "run", "--rm", "--pull=never", name, "true"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    subprocess.run(["podman", "rmi", "-f", name], capture_output=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
