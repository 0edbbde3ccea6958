"""Images of real software, built from Debian's packages and PyPI's, and run until they answer."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.bases import make_debian
from tests.support.building import ESTIBA
from tests.support.daemon import PATIENCE, PrivateDaemon, wait_until
from tests.support.fastcgi import fetch

pytestmark = pytest.mark.e2e
_TOP = Path(__file__).parent.parent.parent
_EXAMPLES = _TOP / "docs/examples"
_GOLANG = _TOP / "tests/support/golang"
_BUILD_S = 240 * PATIENCE


class _Builder:
    """Both doors of one daemon, by name."""

    def __init__(self, daemon: PrivateDaemon) -> None:
        self.daemon = daemon

    def build(self, door: str, tag: str, context: Path, *words: str) -> str:
        """What the client said."""
        program = ["docker"] if door == "classic" else ESTIBA
        done = subprocess.run(
            [*program, "build", "-t", tag, *words, str(context)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**self.daemon.client_environment(), "DOCKER_BUILDKIT": "0"},
            timeout=_BUILD_S, check=False,
        )  # fmt: skip
        output = done.stdout.decode(errors="replace")
        assert done.returncode == 0, output[-6000:]
        return output

    def build_by_both(self, first: str, tag: str, context: Path, *words: str) -> None:
        """The second door finds in the cache what came through the first."""
        second = "estiba" if first == "classic" else "classic"
        self.build(first, tag, context, *words)
        layers = self.layers(tag)
        self.build(second, f"{tag}-again", context, *words)
        assert self.layers(f"{tag}-again") == layers

    def layers(self, image: str) -> list[str]:
        status, answer = self.daemon.request("GET", f"/images/{image}/json")
        assert status == 200, answer
        return list(answer["RootFS"]["Layers"])

    def start(self, name: str, *words: str) -> str:
        """Starts a container of that image; its address."""
        self.daemon.docker("run", "-d", "--name", name, *words)
        address = self.daemon.inspect(name)["NetworkSettings"]["IPAddress"]
        assert address
        return str(address)

    def logs(self, name: str) -> str:
        done = self.daemon.docker("logs", name, check=False)
        return (done.stdout + done.stderr).decode(errors="replace")


@pytest.fixture(scope="module")
def builder(daemon: PrivateDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Builder]:
    tar = make_debian(tmp_path_factory.mktemp("debian"))
    daemon.docker("import", "-c", 'CMD ["bash"]', str(tar), "debian:bookworm", timeout_s=120)
    tar.unlink()
    yield _Builder(daemon)


def _page(address: str, port: int, path: str) -> bytes | None:
    """The body of an answer 200; None while nobody answers."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.read() if answer.status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()


def test_a_go_program_from_scratch(builder: _Builder) -> None:
    builder.build_by_both("estiba", "golang:1.16-alpine", _GOLANG)
    builder.build_by_both("classic", "project", _EXAMPLES / "go-to-scratch")
    assert len(builder.layers("project")) == 1
    assert builder.daemon.run("project") == "usage: project NUMBER...\n"
    assert builder.daemon.run("project", "1", "20", "300") == "321\n"
    failed = builder.daemon.docker("run", "--rm", "project", "one", check=False)
    assert failed.returncode == 1
    assert b'cannot add "one"' in failed.stderr


def test_nginx(builder: _Builder) -> None:
    builder.build_by_both("classic", "nginx", _EXAMPLES / "nginx")
    address = builder.start("web", "nginx")
    page = wait_until(lambda: _page(address, 80, "/"), what="nginx")
    assert b"Stowed and served." in page
    assert _page(address, 80, "/health") == b"well\n"
    wait_until(lambda: '"GET / HTTP/1.1" 200' in builder.logs("web"), what="its log")
    builder.daemon.docker("stop", "web")
    assert builder.daemon.inspect("web")["State"]["ExitCode"] == 0


def test_php_fpm(builder: _Builder) -> None:
    builder.build_by_both("estiba", "php", _EXAMPLES / "php-fpm")
    address = builder.start("fpm", "php")
    variables = {
        "REQUEST_METHOD": "GET", "SCRIPT_FILENAME": "/srv/index.php", "SCRIPT_NAME": "/index.php",
        "QUERY_STRING": "", "SERVER_PROTOCOL": "HTTP/1.1",
    }  # fmt: skip
    wait_until(lambda: _listens(address, 9000), what="PHP-FPM")
    head, body = fetch((address, 9000), variables)
    assert "application/json" in head
    assert json.loads(body) == {"php": 8, "sum": 6}


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def test_mariadb(builder: _Builder) -> None:
    builder.build_by_both("classic", "mariadb", _EXAMPLES / "mariadb")
    builder.start("database", "mariadb")
    select = ["exec", "database", "mariadb", "-N", "-e"]

    def answers() -> bool:
        done = builder.daemon.docker(*select, "SELECT 1", check=False)
        running = builder.daemon.inspect("database")["State"]["Running"]
        assert running, builder.logs("database")
        return done.stdout == b"1\n"

    wait_until(answers, what="MariaDB", deadline_s=60 * PATIENCE)
    words = "CREATE DATABASE d; CREATE TABLE d.t (n INT); INSERT INTO d.t VALUES (40), (2);"
    builder.daemon.docker(*select, f"{words} SELECT SUM(n) FROM d.t")
    assert builder.daemon.docker(*select, "SELECT SUM(n) FROM d.t").stdout == b"42\n"


def test_redis(builder: _Builder) -> None:
    builder.build_by_both("estiba", "redis", _EXAMPLES / "redis")
    address = builder.start("store", "redis")
    wait_until(lambda: _listens(address, 6379), what="Redis")
    with socket.create_connection((address, 6379), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(64) == b"+PONG\r\n"
        connection.sendall(b"SET ship stowed\r\n")
        assert connection.recv(64) == b"+OK\r\n"
    wait_until(
        lambda: builder.daemon.inspect("store")["State"]["Health"]["Status"] == "healthy",
        what="its health check",
    )


def test_a_python_web_application(builder: _Builder, tmp_path: Path) -> None:
    context = tmp_path / "context"
    shutil.copytree(_EXAMPLES / "python-web", context)
    builder.build_by_both("classic", "app", context)
    address = builder.start("app-1", "app")
    page = wait_until(lambda: _page(address, 8000, "/world"), what="the application")
    assert json.loads(page) == {"hello": "world"}

    source = context / "app.py"
    source.write_text(source.read_text().replace("hello", "goodbye"))
    before = builder.layers("app")
    output = builder.build("estiba", "app", context)
    assert "Collecting flask" not in output
    after = builder.layers("app")
    assert [old == new for old, new in zip(before, after, strict=True)].count(False) == 1
    address = builder.start("app-2", "app")
    page = wait_until(lambda: _page(address, 8000, "/world"), what="the changed application")
    assert json.loads(page) == {"goodbye": "world"}


def test_estiba_itself(builder: _Builder) -> None:
    dockerfile = str(_EXAMPLES / "estiba/Dockerfile")
    builder.build_by_both("estiba", "estiba", _TOP, "-f", dockerfile)
    builder.start("engine", "--privileged", "estiba")

    def answers() -> str:
        assert builder.daemon.inspect("engine")["State"]["Running"], builder.logs("engine")
        inner = ["exec", "engine", "estiba", "version", "--format", "{{.Server.Version}}"]
        return builder.daemon.docker(*inner, check=False).stdout.decode().strip()

    version = wait_until(answers, what="the engine within")
    assert version == _version(builder.daemon)


def _version(daemon: PrivateDaemon) -> str:
    status, answer = daemon.request("GET", "/version")
    assert status == 200
    return str(answer["Version"])
