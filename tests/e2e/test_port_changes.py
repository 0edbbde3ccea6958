"""Ports of containers that run, are stopped or share another's network, changed after creation."""

# ruff: noqa: E501 - a refusal a line

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("emptied")]


def serve(daemon: PrivateDaemon, name: str, *flags: str) -> None:
    """A container that serves its own name at 80."""
    script = f"echo {name} > /tmp/index.html; httpd -f -p 80 -h /tmp"
    daemon.docker("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", script)


def estiba(
    daemon: PrivateDaemon, *arguments: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "estiba.cli.main", *arguments], capture_output=True, text=True,
        env={**daemon.client_environment(), "ESTIBA_HOST": daemon.url}, timeout=60, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done


def fetch(port: str | int) -> str:
    """What is served there; the server may be about to start."""

    def ask() -> str:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
        try:
            connection.request("GET", "/index.html")
            return connection.getresponse().read().decode().strip()
        except ConnectionRefusedError:
            return ""
        finally:
            connection.close()

    return str(wait_until(ask, what=f"port {port}"))


def is_closed(port: str | int) -> bool:
    with socket.socket() as client:
        client.settimeout(2)
        return client.connect_ex(("127.0.0.1", int(port))) != 0


def ports(daemon: PrivateDaemon, name: str) -> dict[str, Any]:
    return dict(daemon.inspect(name)["NetworkSettings"]["Ports"])


def update(daemon: PrivateDaemon, name: str, **fields: Any) -> tuple[int, Any]:
    return daemon.request("POST", f"/containers/{name}/update", fields)


def test_a_container_that_runs_gets_and_loses_ports(daemon: PrivateDaemon) -> None:
    first, second = str(free_port()), str(free_port())
    serve(daemon, "web", "-p", f"127.0.0.1:{first}:80")
    assert fetch(first) == "web"
    with socket.create_connection(("127.0.0.1", int(first))) as kept:
        estiba(daemon, "update", "--publish-add", f"127.0.0.1:{second}:80", "web")
        kept.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
        assert b"web" in kept.makefile("rb").read(), "what stays is not interrupted"
    assert fetch(first) == fetch(second) == "web"
    shown = estiba(daemon, "port", "web").stdout.splitlines()
    assert shown == [f"80/tcp -> 127.0.0.1:{first}", f"80/tcp -> 127.0.0.1:{second}"]
    assert f"127.0.0.1:{second}->80/tcp" in daemon.docker("ps").stdout.decode()
    estiba(daemon, "update", "--publish-rm", f"127.0.0.1:{first}:80", "web")
    assert is_closed(first) and fetch(second) == "web"
    daemon.docker("restart", "-t", "0", "web")
    daemon.restart()
    assert is_closed(first) and fetch(second) == "web"
    assert daemon.inspect("web")["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": second}]
    }
    estiba(daemon, "update", "--publish-rm", "80", "web")
    assert is_closed(second) and ports(daemon, "web").get("80/tcp") is None


def test_a_stopped_one_has_them_when_it_starts(daemon: PrivateDaemon) -> None:
    port = str(free_port())
    serve(daemon, "web")
    daemon.docker("kill", "web")
    status, answer = update(
        daemon, "web", PublishAdd={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]}
    )
    assert (status, answer["Ports"]) == (200, {})
    daemon.docker("start", "web")
    assert fetch(port) == "web"


def test_random_ports_stay_when_others_come(daemon: PrivateDaemon) -> None:
    serve(daemon, "web", "-p", "127.0.0.1::80")
    (before,) = ports(daemon, "web")["80/tcp"]
    status, answer = update(daemon, "web", PublishAdd={"81-82/udp": [{"HostIp": "127.0.0.1"}]})
    assert status == 200, answer
    assert answer["Ports"]["80/tcp"] == [before] and set(answer["Ports"]) == {
        "80/tcp", "81/udp", "82/udp",
    }  # fmt: skip
    assert fetch(before["HostPort"]) == "web"
    # One host port goes from a container's port to another one in a single step.
    status, answer = update(
        daemon, "web", PublishRemove={"80/tcp": []},
        PublishAdd={"81/tcp": [{"HostIp": "127.0.0.1", "HostPort": before["HostPort"]}]},
    )  # fmt: skip
    assert status == 200 and answer["Ports"]["81/tcp"] == [before]


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("web", {"PublishAdd": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "TAKEN"}]}}, 409, "already allocated"),
    ("web", {"PublishAdd": {"80/tcp": [{"HostIp": "192.0.2.1", "HostPort": "TAKEN"}]}}, 400, "192.0.2.1"),
    ("web", {"PublishAdd": {"0/tcp": []}}, 400, "invalid port"),
    ("web", {"PublishAdd": {"80/xyz": []}}, 400, "invalid proto"),
    ("web", {"PublishAdd": {"80": [{"HostPort": "99999"}]}}, 400, "invalid port"),
    ("web", {"PublishAdd": {"80": [{"HostIp": "nonsense"}]}}, 400, "is not an IP address"),
    ("web", {"PublishAdd": {"80-81": [{"HostPort": "8000-8002"}]}}, 400, "invalid ranges"),
    ("web", {"PublishAdd": ["80"]}, 400, "invalid JSON"),
    ("web", {"PublishRemove": {"90/tcp": []}}, 400, "port 90/tcp is not published"),
    ("web", {"PublishRemove": {"80/tcp": [{"HostPort": "9"}]}}, 400, "is not published at 9"),
    ("hosted", {"PublishAdd": {"80/tcp": []}}, 400, "host network mode"),
    ("sharing", {"PublishAdd": {"80/tcp": []}}, 400, "container type network mode"),
    ("lonely", {"PublishAdd": {"80/tcp": []}}, 409, "no network with a way to the outside"),
    ("nobody", {"PublishAdd": {"80/tcp": []}}, 404, "No such container"),
]  # fmt: skip


def test_what_cannot_be_published_changes_nothing(daemon: PrivateDaemon) -> None:
    own, taken = str(free_port()), str(free_port())
    serve(daemon, "web", "-p", f"127.0.0.1:{own}:80")
    for name, mode in (("hosted", "host"), ("sharing", "container:web"), ("lonely", "none")):
        daemon.docker("run", "-d", "--name", name, "--network", mode, "busybox", "sleep", "1000")
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(taken)))
        other.listen()
        for name, fields, status, words in REFUSED:
            body = _with_port(fields, taken)
            answer = update(daemon, name, **body)
            assert answer[0] == status and words in answer[1]["message"], (body, answer)
            assert fetch(own) == "web"
    assert list(ports(daemon, "web")) == ["80/tcp"]
    done = estiba(daemon, "update", "--publish-rm", "9:9", "web", check=False)
    assert done.returncode == 1 and "port 9/tcp is not published" in done.stderr


def _with_port(value: Any, port: str) -> Any:
    if isinstance(value, dict):
        return {key: _with_port(item, port) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_port(item, port) for item in value]
    return port if value == "TAKEN" else value


def test_ports_go_with_limits_in_one_update(daemon: PrivateDaemon) -> None:
    port = str(free_port())
    serve(daemon, "web")
    estiba(daemon, "update", "--publish-add", f"127.0.0.1:{port}:80", "--pids-limit", "50", "web")
    assert fetch(port) == "web"
    assert daemon.inspect("web")["HostConfig"]["PidsLimit"] == 50


def test_networks_by_the_estiba_client(daemon: PrivateDaemon) -> None:
    made = estiba(
        daemon, "network", "create", "--subnet", "10.172.1.0/24", "--gateway", "10.172.1.9",
        "--label", "a=b", "blue",
    )  # fmt: skip
    estiba(daemon, "network", "create", "--config-only", "--subnet", "10.172.2.0/24", "plan")
    estiba(daemon, "network", "create", "--config-from", "plan", "green")
    serve(daemon, "web")
    estiba(daemon, "network", "connect", "--ip", "10.172.1.77", "--alias", "x", "blue", "web")
    theirs = daemon.docker("network", "inspect", "blue", "green", "plan").stdout.decode()
    assert estiba(daemon, "network", "inspect", "blue", "green", "plan").stdout == theirs
    assert '"IPv4Address": "10.172.1.77/24"' in theirs and made.stdout.strip() in theirs
    assert '"Subnet": "10.172.2.0/24"' in theirs and '"ConfigOnly": true' in theirs
    for line in ("ls", "ls --no-trunc -q", "ls --filter label=a", "ls --filter name=^bl"):
        words = ["network", *line.split()]
        assert estiba(daemon, *words).stdout == daemon.docker(*words).stdout.decode()
    in_use = estiba(daemon, "network", "rm", "plan", check=False)
    assert 'configuration network "plan" is in use' in in_use.stderr
    in_use = estiba(daemon, "network", "rm", "blue", check=False)
    assert "has active endpoints" in in_use.stderr and in_use.returncode == 1
    estiba(daemon, "network", "disconnect", "blue", "web")
    estiba(daemon, "network", "rm", "green", "plan")
    assert estiba(daemon, "network", "prune", "-f").stdout == "Deleted Networks:\nblue\n\n"
