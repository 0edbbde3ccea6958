"""A daemon with roots, socket, bridge and subnet of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from estiba.kernel.trees import discard_tree
from tests.support.busybox import busybox_tar
from tests.support.ports import worker

PATIENCE = float(os.environ.get("ESTIBA_TEST_PATIENCE", "1"))
"""How many times longer than on an idle machine of today things may take."""
DEADLINE_S = 30.0 * PATIENCE
_STORY_CHARACTERS = 6000
_FAULTS = [-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGILL, -signal.SIGFPE]


def wait_until(condition: Callable[[], Any], *, what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Polls until `condition()` is true and returns it; fails naming `what` otherwise."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline_s:g} s in vain for {what}")
        time.sleep(0.02)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("estiba.test", timeout=DEADLINE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def needs_docker(major: int) -> pytest.MarkDecorator:
    """For tests of what older docker clients, such as 20.10 of Debian 12, cannot ask for."""
    done = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\d+)", done.stdout) if done.returncode == 0 else None
    return pytest.mark.skipif(
        found is None or int(found[1]) < major,
        reason=f"needs a docker client {major} or newer, here is {found[1] if found else 'none'}",
    )


_SUBNETS: set[str] = set()


def _own_subnet() -> str:
    """The beginning of one that no other daemon of this run has had, in any of its processes."""
    number, count = worker()
    while True:
        third = secrets.randbelow(250 // count) * count + number
        subnet = f"10.{200 + secrets.randbelow(50)}.{third}"
        if subnet not in _SUBNETS:
            _SUBNETS.add(subnet)
            return subnet


class PrivateDaemon:
    """Start it, use it, stop it; `close` leaves nothing behind."""

    opened: ClassVar[set[PrivateDaemon]] = set()
    """Those that are not closed yet."""

    def __init__(self, root: Path, *flags: str) -> None:
        self.tag = tag = secrets.token_hex(3)
        self.root = root
        self.bridge = f"et{tag}"
        self.data_root = root / "data"
        # Sockets below it must stay within 108 bytes.
        self.exec_root = Path(f"/run/estiba-test-{tag}")
        self.socket = self.exec_root / "api.sock"
        self.log = root / "daemon.log"
        self.subnet = _own_subnet()
        self.flags = flags
        self.prefix: list[str] = []
        """A program, and its arguments, that becomes the daemon."""
        self.process: subprocess.Popen[bytes] | None = None
        self.opened.add(self)

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def command(self) -> list[str]:
        command = [*self.prefix, sys.executable, "-m", "estiba.daemon.main", "-H", self.url]
        command += ["--data-root", str(self.data_root), "--exec-root", str(self.exec_root)]
        command += ["-b", self.bridge, "--bip", f"{self.subnet}.1/24"]
        command += ["--cgroup-parent", f"/estiba-test-{self.bridge}", "-D", *self.flags]
        return command

    def start(self, environment: Mapping[str, str] | None = None, *, wait: bool = True) -> None:
        """Starts the daemon and waits until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        def is_ready() -> bool:
            ended = self.process is not None and self.process.poll() is not None
            assert not ended, f"the daemon ended:\n{self.log.read_text()}"
            with contextlib.suppress(OSError):
                return self.request("GET", "/_ping")[0] == 200
            return False

        wait_until(is_ready, what="the daemon")

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(DEADLINE_S)
            self.process = None

    def kill9(self) -> None:
        self.stop(signal.SIGKILL)

    def restart(self, environment: Mapping[str, str] | None = None) -> None:
        self.stop()
        self.start(environment)

    def wait_death(self) -> int:
        """Waits until the daemon has ended by itself; its return code."""
        assert self.process is not None
        code = self.process.wait(DEADLINE_S)
        self.process = None
        return code

    def story(self) -> str:
        """How it is and what it said last, for a test that failed."""
        code = self.process and self.process.poll()
        state = "stopped by the test" if self.process is None else "running"
        state = state if code is None else f"ended by itself, {code}"
        log = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"daemon {self.tag}: {state}\n{log[-_STORY_CHARACTERS:]}"

    # -- talking to it ---------------------------------------------------------------------

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """One request; the status and the decoded JSON, or bytes."""
        connection = UnixConnection(self.socket)
        try:
            data = json.dumps(body) if isinstance(body, dict | list) else body
            kind = {"Content-Type": "application/json"} if isinstance(body, dict | list) else {}
            connection.request(method, path, data, {**kind, **(headers or {})})
            response = connection.getresponse()
            content = response.read()
            if response.headers.get_content_type() == "application/json" and content.strip():
                with contextlib.suppress(ValueError):
                    return response.status, json.loads(content)
            return response.status, content
        finally:
            connection.close()

    def import_busybox(self) -> None:
        self.import_image("busybox:latest", busybox_tar())

    def import_image(self, name: str, root: bytes) -> None:
        """An image of that name from a tar of its root; its command is sh."""
        repository, _, tag = name.rpartition(":")
        status, answer = self.request(
            "POST",
            f"/images/create?fromSrc=-&repo={repository}&tag={tag}&changes=CMD%20%5B%22sh%22%5D",
            root,
            {"Content-Type": "application/x-tar"},
        )
        assert status == 200, answer

    def docker(
        self, *arguments: str, stdin: bytes | None = b"", check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """The real docker client against this daemon."""
        done = subprocess.run(
            ["docker", *arguments],
            input=stdin,
            capture_output=True,
            env=self.client_environment(),
            timeout=timeout_s * PATIENCE,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"docker {arguments}: {done.stderr.decode()}"
        return done

    def client_environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DOCKER_HOST": self.url,
            "DOCKER_CONFIG": str(self.root / "docker-config"),
            "DOCKER_CLI_HINTS": "false",
        }

    def run(self, *arguments: str, stdin: bytes | None = b"") -> str:
        """`docker run --rm …`, its output."""
        return self.docker("run", "--rm", *arguments, stdin=stdin).stdout.decode()

    def inspect(self, name: str) -> dict[str, Any]:
        status, answer = self.request("GET", f"/containers/{name}/json")
        assert status == 200, answer
        return dict(answer)

    def events(self, container: str) -> bytes:
        """Its events so far, as JSON lines."""
        filters = json.dumps({"container": [container]}).replace(" ", "")
        quoted = urllib.parse.quote(filters)
        path = f"/events?since=1&until={time.time():.6f}&filters={quoted}"
        content = self.request("GET", path, headers={"Accept": "text/plain"})[1]
        return content if isinstance(content, bytes) else json.dumps(content).encode()

    def wait_state(self, name: str, state: str) -> None:
        wait_until(
            lambda: self.inspect(name)["State"]["Status"] == state, what=f"{name} to be {state}"
        )

    # -- leaving ---------------------------------------------------------------------------

    def close(self) -> None:
        """Removes all containers, ends the daemon, and takes away bridge, table and roots.

        Raises AssertionError, after that, when it had died of a signal that no test sends.
        """
        self.opened.discard(self)
        code = self.process.poll() if self.process is not None else None
        story = self.story() if code in _FAULTS else ""
        if self.process is None or code is not None:
            self.start()
        self._clear()
        assert not story, story

    def _clear(self) -> None:
        status, containers = self.request("GET", "/containers/json?all=1")
        for container in containers if status == 200 else []:
            self.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        status, networks = self.request("GET", "/networks")
        for network in networks if status == 200 else []:
            self.request("DELETE", f"/networks/{network['Id']}")
        status, plugins = self.request("GET", "/plugins")
        for plugin in plugins if status == 200 else []:
            self.request("DELETE", f"/plugins/{plugin['Id']}?force=1")
        self.stop()
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)
        table = f"estiba_{self.bridge}"
        for family in "inet", "bridge":
            command = ["nft", "delete", "table", family, table]
            subprocess.run(command, capture_output=True, check=False)
        _remove_admission(table)
        _remove_stand_in()
        _remove_cgroups(f"estiba-test-{self.bridge}")
        discard_tree(self.exec_root)
        discard_tree(self.data_root)


def _remove_stand_in() -> None:
    """The route that engines share, once no other one has a table."""
    tables = subprocess.run(["nft", "list", "tables", "inet"], capture_output=True, check=False)
    if b"estiba_" not in tables.stdout:
        route = ["local", "fd65:7374:6962:61::1", "dev", "lo", "table", "local"]
        subprocess.run(["ip", "-6", "route", "del", *route], capture_output=True, check=False)


def _remove_admission(table: str) -> None:
    """The rules that let the bridges pass beside a Docker Engine."""
    chain = ["ip", "filter", "DOCKER-USER"]
    listed = subprocess.run(
        ["nft", "-a", "list", "chain", *chain], capture_output=True, text=True, check=False
    )
    for line in listed.stdout.splitlines():
        if f'comment "{table} ' in line:
            words = ["nft", "delete", "rule", *chain, "handle", line.split()[-1]]
            subprocess.run(words, capture_output=True, check=False)


def _remove_cgroups(name: str) -> None:
    for group in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        with contextlib.suppress(OSError):
            group.rmdir()
    with contextlib.suppress(OSError):
        Path("/sys/fs/cgroup", name).rmdir()
