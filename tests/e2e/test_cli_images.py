"""The estiba client with estibad and genuine registries: images come, go, grow old."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.daemon import DEADLINE_S, PrivateDaemon, wait_until
from tests.support.peers import PASSWORD, USER, random_layer
from tests.support.registries import GenuineRegistry, genuine_registry
from tests.support.terminal import Terminal

import estiba

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not GenuineRegistry.is_installed(), reason="docker-registry is not installed"
    ),
]
_SOURCE = Path(estiba.__file__).parent.parent
# As the launcher starts it: without packages, and without the user's variables for Python.
_LAUNCHED = [
    sys.executable, "-IS", "-c",
    f"import sys; sys.path.insert(0, {str(_SOURCE)!r})\n"
    "from estiba.cli.main import main\nmain()",
]  # fmt: skip


class Place(NamedTuple):
    daemon: PrivateDaemon
    plain: str
    auth: str

    def estiba(
        self, *words: str, code: int = 0, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*_LAUNCHED, *words], input=stdin, capture_output=True, timeout=60, check=False,
            env=self.environment(),
        )  # fmt: skip
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def environment(self) -> dict[str, str]:
        return {**self.daemon.client_environment(), "ESTIBA_HOST": self.daemon.url, "TERM": "xterm"}


@pytest.fixture(scope="module")
def place(daemon: PrivateDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("registries")
    with (
        genuine_registry(root / "plain") as plain,
        genuine_registry(root / "auth", users={USER: PASSWORD}) as auth,
    ):
        yield Place(daemon, plain.host, auth.host)


def test_there_and_back(place: Place) -> None:
    name = f"{place.plain}/team/box:1"
    place.estiba("tag", "busybox", name)
    pushed = place.estiba("push", name).stdout
    assert pushed.startswith(f"The push refers to repository [{place.plain}/team/box]\n")
    digest = pushed.splitlines()[-1].split()[2]
    assert place.estiba("push", "-q", name).stdout == f"{name}\n"
    place.estiba("rmi", name)
    pulled = place.estiba("pull", name).stdout.splitlines()
    assert pulled[0] == "1: Pulling from team/box"
    assert pulled[-3:] == [
        f"Digest: {digest}", f"Status: Downloaded newer image for {name}", name,
    ]  # fmt: skip
    again = place.estiba("pull", f"{place.plain}/team/box@{digest}").stdout
    assert "Image is up to date" in again
    shown = json.loads(place.estiba("manifest", "inspect", "-v", name).stdout)
    assert shown["Descriptor"]["digest"] == digest


def test_run_pulls_what_is_missing(place: Place) -> None:
    name = f"{place.plain}/missing:1"
    place.estiba("tag", "busybox", name)
    place.estiba("push", "-q", name)
    place.estiba("rmi", name)
    plain = ["run", "--rm", "--network", "none"]
    refused = place.estiba(*plain, "--pull", "never", name, "true", code=125)
    assert f"No such image: {name}" in refused.stderr
    ran = place.estiba(*plain, name, "echo", "hi")
    assert ran.stdout == "hi\n"
    lines = ran.stderr.splitlines()
    assert lines[0] == f"Unable to find image '{name}' locally"
    assert lines[-1] == f"Status: Downloaded newer image for {name}"
    assert place.estiba(*plain, name, "echo", "hi").stderr == ""
    assert "Pulling from" in place.estiba(*plain, "--pull", "always", name, "true").stderr
    assert place.estiba(*plain, "--pull", "always", "-q", name, "true").stderr == ""


def test_a_registry_with_a_password(place: Place) -> None:
    name = f"{place.auth}/secret:1"
    place.estiba("tag", "busybox", name)
    assert "no basic auth credentials" in place.estiba("push", name, code=1).stderr
    login = ["login", "-u", USER, "--password-stdin", place.auth]
    place.estiba(*login, stdin=b"wrong\n", code=1)
    done = place.estiba(*login, stdin=f"{PASSWORD}\n".encode())
    assert done.stdout == "Login Succeeded\n" and "stored unencrypted" in done.stderr
    place.estiba("push", "-q", name)
    # The docker client finds what estiba has kept, and the other way round.
    place.daemon.docker("pull", "-q", name)
    assert (
        place.estiba("image", "outdated", "-a", f"{place.auth}/secret").stdout.count("up to") == 1
    )
    assert f"{place.auth}/secret" in place.estiba("search", f"{place.auth}/sec").stdout
    place.estiba("logout", place.auth)
    assert "no basic auth credentials" in place.estiba("pull", name, code=1).stderr
    unknown = place.estiba("image", "outdated", f"{place.auth}/secret", code=2)
    assert "unknown" in unknown.stdout and f"{place.auth}/secret:1: " in unknown.stderr


def test_a_registry_of_ones_own(place: Place, tmp_path: Path) -> None:
    """`estiba registry` becomes the registry; images and manifest lists go there and back."""
    log = tmp_path / "log"
    command = [*_LAUNCHED, "registry", "serve", "--root", str(tmp_path / "root")]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "--addr", "127.0.0.1:0"], stdout=out, stderr=out)

    def address() -> str | None:
        assert process.poll() is None, log.read_text()
        found = re.search(r"serving .* on (127\.0\.0\.1:[0-9]+)", log.read_text())
        return found[1] if found else None

    try:
        host = str(wait_until(address, what="the registry"))
        name = f"{host}/own/box:1"
        place.estiba("tag", "busybox", name)
        place.estiba("push", name)
        place.estiba("rmi", name)
        assert place.estiba("pull", "-q", name).stdout == f"{name}\n"
        place.estiba("manifest", "create", f"{host}/own/list:1", name)
        pushed = place.estiba("manifest", "push", f"{host}/own/list:1").stdout.splitlines()
        assert pushed[0].startswith(f"Pushed ref {host}/own/list@sha256:")
        place.estiba("manifest", "rm", f"{host}/own/list:1")
        shown = json.loads(place.estiba("manifest", "inspect", f"{host}/own/list:1").stdout)
        assert [entry["platform"]["os"] for entry in shown["manifests"]] == ["linux"]
        assert place.estiba("pull", "-q", f"{host}/own/list:1").stdout == f"{host}/own/list:1\n"
        assert f"{host}/own/box" in place.estiba("search", f"{host}/own").stdout
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def test_bars_on_a_terminal(place: Place, tmp_path: Path) -> None:
    """Of a pull and a push, in a window that changes meanwhile."""
    name = f"{place.plain}/bars:1"
    place.daemon.import_image(name, random_layer(16 << 20))
    for verb, words in (("push", b"digest: sha256"), ("pull", b"Downloaded newer image")):
        with Terminal([*_LAUNCHED, verb, name], place.environment()) as terminal:
            terminal.wait_for(b"\x1b[K")
            terminal.resize(24, 60)
            terminal.wait_for(words)
            assert terminal.wait() == 0
            # Names and states alone, without what docker draws.
            assert b"[=" not in terminal.seen and b"\x1b[K" in terminal.seen
        place.estiba("rmi", name)


class _Stuck(BaseHTTPRequestHandler):
    """A daemon whose pull begins, and then ends or goes nowhere."""

    protocol_version = "HTTP/1.1"
    ends = threading.Event()

    def do_POST(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        line = {"status": "Downloading", "id": "a" * 12}
        line["progressDetail"] = {"current": 1, "total": 100}  # type: ignore[assignment]
        data = json.dumps(line).encode() + b"\n"
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        if not self.ends.is_set():
            self.rfile.read(1)
        self.close_connection = True

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on the test's output."""


def test_a_pull_that_goes_nowhere(place: Place) -> None:
    """The interrupt ends it, and so does the daemon's end; the prompt has a line of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Stuck)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [*_LAUNCHED, "-H", f"tcp://127.0.0.1:{server.server_port}", "pull", "host.example/x"]
    try:
        with Terminal(command, place.environment()) as terminal:
            terminal.wait_for(b"1B/100B")
            terminal.type("\x03")
            assert terminal.wait() == 130
            assert b"\n\x1b[J" in terminal.seen and b"Traceback" not in terminal.seen
        _Stuck.ends.set()
        with Terminal(command, place.environment()) as terminal:
            terminal.wait_for(b"in the middle of an answer")
            assert terminal.wait() == 1
    finally:
        server.shutdown()
        server.server_close()


def test_archives_of_either_form(place: Place, tmp_path: Path) -> None:
    found = {}
    for form in ("docker", "oci"):
        path = tmp_path / f"{form}.tar"
        place.estiba("save", "--format", form, "-o", str(path), "busybox")
        with tarfile.open(path) as tar:
            found[form] = {member.name for member in tar}
        assert (
            place.estiba("load", "-q", "-i", str(path)).stdout == "Loaded image: busybox:latest\n"
        )
    assert "manifest.json" in found["docker"] and "index.json" not in found["docker"]
    assert "index.json" in found["oci"] and "manifest.json" not in found["oci"]
    place.estiba("save", "--format", "zip", "-o", str(tmp_path / "x"), "busybox", code=1)


def test_what_was_used_least_goes_first(place: Place) -> None:
    old, new, used = (f"{name}:1" for name in ("oldest", "newest", "used"))
    for name in (used, old, new):
        place.daemon.import_image(name, random_layer(2 << 20))
    place.estiba("create", "--name", "user", "--network", "none", used, "x")
    place.estiba("tag", new, "newest:2")
    place.estiba("save", "-o", "/dev/null", new)
    listed = place.estiba("images", "--format", "{{.Repository}} {{.LastUsed}}").stdout
    assert all(line.endswith(("ago", "never")) for line in listed.splitlines())
    total = sum(int(image["Size"]) for image in place.daemon.request("GET", "/images/json")[1])
    keep = f"{total - (1 << 20)}B"
    assert "Are you sure" in place.estiba("image", "prune", "--lru", "--keep", keep).stdout
    pruned = place.estiba("image", "prune", "--lru", "--keep", keep, "-f").stdout
    names = place.estiba("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert used in names and new in names, pruned
    assert "Total reclaimed space" in pruned and old not in names
    for words in (["--lru"], ["--keep", "1GB"], ["--lru", "--keep", "1GB", "-a"]):
        place.estiba("image", "prune", *words, code=1)
    place.estiba("rm", "user")
