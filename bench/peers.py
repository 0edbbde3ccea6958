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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import memory

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
    variables: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.root / "api.sock"

    def start(self) -> None:
        if not self.makes_bridge:
            subprocess.run(["ip", "link", "add", self.bridge, "type", "bridge"], check=True)
            subprocess.run(["ip", "addr", "add", "10.240.0.1/24", "dev", self.bridge], check=True)
            subprocess.run(["ip", "link", "set", self.bridge, "up"], check=True)
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **self.variables},
            )  # fmt: skip
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
        """What the same docker client prints for every engine; raises RuntimeError."""
        done = subprocess.run(
            ["docker", *arguments], stdin=stdin, capture_output=True, env=self.environment(),
            check=False,
        )  # fmt: skip
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip()
            raise RuntimeError(f"docker {' '.join(arguments)}: {words[-300:]}")
        return done.stdout

    def processes(self) -> list[int]:
        """The daemon and all helpers that name its root in their command line."""
        return memory.processes_naming(str(self.root), self.bridge)

    def pss_bytes(self) -> int:
        return memory.pss_bytes(self.processes())

    def close(self) -> None:
        """Ends all of it but its files."""
        with contextlib.suppress(Exception):
            connection = self.connection()
            for container in connection.call("GET", "/containers/json?all=1"):
                connection.call("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        # Podman's execs leave their monitors waiting for five minutes.
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)
        for family in "inet", "bridge":
            command = ["nft", "delete", "table", family, f"estiba_{self.bridge}"]
            subprocess.run(command, capture_output=True, check=False)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            place = line.split()[4]
            if place.startswith(f"{self.root}/"):
                subprocess.run(["umount", place], check=False)


def estiba(program: Path, run: Path) -> Engine:
    root = run / "estiba"
    root.mkdir(parents=True)
    command = [str(program), "-H", f"unix://{root}/api.sock", "--data-root", f"{root}/data"]
    command += ["--exec-root", f"{root}/exec", "-b", "ebench0", "--bip", "10.241.0.1/24"]
    command += ["--log-level", "warn"]
    return Engine("estiba", root, command, "ebench0", makes_bridge=True)


def docker_engine(run: Path) -> Engine:
    """Raises RuntimeError when dockerd is not installed."""
    program = shutil.which("dockerd")
    if program is None:
        raise RuntimeError("dockerd is not installed: scripts/bench installs Debian's docker.io")
    root = run / "docker"
    root.mkdir(parents=True)
    command = [program, "-H", f"unix://{root}/api.sock", "--data-root", f"{root}/data"]
    command += ["--exec-root", f"{root}/exec", "-p", f"{root}/pid", "-b", "dbench0"]
    return Engine("docker", root, command, "dbench0", makes_bridge=False)


_PODMAN_CONF = """\
[containers]
# Its defaults raise limits, which a host without CAP_SYS_RESOURCE forbids.
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_config_dir = "{root}/cni"
"""

_PODMAN_NETWORK = {
    "cniVersion": "0.4.0",
    "name": "podman",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "pbench0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": "10.242.0.0/24", "gateway": "10.242.0.1"}]],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall"},
    ],
}


def podman(run: Path) -> Engine | None:
    """Podman behind its own service of the Docker API; None when it is not installed."""
    program = shutil.which("podman")
    if program is None:
        return None
    root = run / "podman"
    (root / "cni").mkdir(parents=True)
    (root / "containers.conf").write_text(_PODMAN_CONF.format(root=root))
    (root / "cni/87-podman.conflist").write_text(json.dumps(_PODMAN_NETWORK))
    command = [program, "--root", f"{root}/data", "--runroot", f"{root}/run"]
    command += ["system", "service", "--time", "0", f"unix://{root}/api.sock"]
    # It leaves what it spools in the directory for temporary files.
    variables = {"CONTAINERS_CONF": str(root / "containers.conf"), "TMPDIR": str(root / "tmp")}
    (root / "tmp").mkdir()
    return Engine("podman", root, command, "pbench0", makes_bridge=True, variables=variables)
