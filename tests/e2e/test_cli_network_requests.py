"""What `estiba` and `docker` ask a daemon for with the same flags about networks and ports.

A daemon that writes down what it is asked for stands in for both. What a client leaves out and
what it sends empty are the same to a daemon.
"""

# ruff: noqa: E501 - a command line a line

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import needs_docker

pytestmark = [pytest.mark.e2e, needs_docker(28)]

ESTIBA = [sys.executable, "-m", "estiba.cli.main"]
RELEVANT = ("NetworkMode", "Links", "PortBindings", "PublishAllPorts")

CREATIONS = """\
create busybox
create --network blue busybox
create --network name=blue busybox
create --network name=blue,ip=10.1.0.5,ip6=fd00::5,alias=a,alias=b,mac-address=02:42:ac:11:00:02 busybox
create --network name=blue,link-local-ip=169.254.1.1,driver-opt=a=b,driver-opt=c=d,gw-priority=7 busybox
create --network blue --network-alias a --network-alias b --ip 10.1.0.5 --ip6 fd00::5 --link-local-ip 169.254.1.1 busybox
create --network blue --network name=green,gw-priority=-3,alias=x busybox
create --network blue --link db --link web:www busybox
create --link db --link web:www busybox
create --network bridge --link db:x busybox
create --network bridge --ip 172.17.0.9 busybox
create --mac-address 02:42:ac:11:00:02 busybox
create --network blue --mac-address 02:42:ac:11:00:02 busybox
create --network host busybox
create --network container:db busybox
create --network none --network-alias a busybox
create --network default --network-alias a busybox
create --network blue --network blue busybox
create --network blue --network host busybox
create --network name=blue,ip=10.1.0.5 --ip 10.1.0.6 busybox
create --network name=blue,alias=a --network-alias b busybox
create --network name=blue,mac-address=02:42:ac:11:00:02 --mac-address 02:42:ac:11:00:03 busybox
create --network name=blue,ip6=fd00::5 --ip6 fd00::6 busybox
create --network name=blue,link-local-ip=169.254.1.1 --link-local-ip 169.254.1.2 busybox
create --network name=blue,colour=blue busybox
create --network alias=a busybox
create --network name=blue,ip busybox
create --network name=blue,gw-priority=x busybox
create -p 80 busybox
create -p 8080:80 -p 8443:443/tcp -p 53:53/udp -p 9:9/sctp busybox
create -p 127.0.0.1:8080:80 -p [::1]:8080:80 -p [::]::81 busybox
create -p 8000-8002:80-82 -p 9000-9002:90 busybox
create -p 127.0.0.1::80-81 busybox
create -p 80:70000 busybox
create -p 8000-8001:80-82 busybox
create -p localhost:80:80 busybox
create -P --expose 80 --expose 81-82/udp busybox
"""
OTHERS = """\
network create blue
network create -d bridge --internal --attachable --label a=b --label c -o x=y blue
network create --subnet 10.1.0.0/16 --ip-range 10.1.2.0/24 --gateway 10.1.0.9 --aux-address a=10.1.0.2 --aux-address b=10.1.0.3 blue
network create --subnet 10.1.0.0/16 --subnet 10.2.0.0/16 --gateway 10.2.0.9 --gateway 10.1.0.9 blue
network create --ipv6 --subnet fd00::/64 --subnet 10.1.0.0/16 --gateway fd00::9 blue
network create --ipv4=false --ipv6 blue
network create --ipam-driver x --ipam-opt a=b blue
network create --config-only --subnet 10.1.0.0/16 blue
network create --config-from template blue
network create --scope swarm --ingress blue
network create --gateway 10.1.0.9 blue
network create --subnet 10.1.0.0/16 --subnet 10.1.2.0/24 blue
network create --subnet 10.1.0.0/16 --gateway 10.2.0.9 blue
network create --subnet 10.1.0.0/16 --gateway 10.1.0.9 --gateway 10.1.0.8 blue
network create --subnet 10.1.0.0/16 --ip-range 10.1.1.0/24 --ip-range 10.1.2.0/24 blue
network create --subnet nonsense blue
network create --subnet 10.1.0.0/16 --aux-address a=10.2.0.2 blue
network create --subnet 10.1.0.0/16 --subnet 10.2.0.0/16 --gateway 10.1.0.9 --gateway 10.1.0.8 blue
network create --subnet 10.1.0.0/16 --subnet 10.2.0.0/16 --ip-range 10.1.1.0/24 --ip-range 10.1.2.0/24 blue
network create
network connect blue web
network connect --ip 10.1.0.5 --ip6 fd00::5 --alias a --alias b --link db:x --link-local-ip 169.254.1.1 blue web
network connect --driver-opt a=b --gw-priority 3 blue web
network connect blue
network disconnect blue web
network disconnect -f blue web
network disconnect blue
network rm blue green
network rm -f blue
network prune -f --filter label=a --filter until=1h
network ls --filter driver=bridge --filter name=x
network inspect --verbose blue
"""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        path = re.sub(r"^/v[0-9.]+", "", self.path)
        if not path.endswith(("/_ping", "/info", "/version")):
            self.server.asked.append((self.command, path, body))  # type: ignore[attr-defined]
        answer: Any = {"Id": "ab" * 32, "Warnings": None}
        if self.command == "GET":
            answer = [] if path.startswith("/networks?") or path == "/networks" else {"Name": "x"}
        data = b"OK" if path == "/_ping" else json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Api-Version", "1.51")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_POST = do_DELETE = do_HEAD = _answer

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    made.asked = []  # type: ignore[attr-defined]
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def ask(
    server: ThreadingHTTPServer, program: list[str], line: str, root: Path
) -> tuple[int, str, list[Any]]:
    server.asked.clear()  # type: ignore[attr-defined]
    url = f"tcp://127.0.0.1:{server.server_address[1]}"
    environment = {**os.environ, "DOCKER_HOST": url, "DOCKER_CONFIG": str(root)}
    done = subprocess.run(
        [*program, *shlex.split(line)], capture_output=True, text=True, check=False, timeout=60,
        env=environment,
    )  # fmt: skip
    return done.returncode, done.stderr, list(server.asked)  # type: ignore[attr-defined]


def bare(value: Any) -> Any:
    """Without what is empty."""
    if isinstance(value, dict):
        inner = {key: bare(item) for key, item in value.items()}
        return {
            key: item for key, item in inner.items() if item not in (None, "", 0, [], {}, False)
        }
    if isinstance(value, list):
        return [bare(item) for item in value]
    return value


def of_creation(asked: list[Any]) -> list[Any]:
    """What matters here; one network with no settings is the same as none."""
    found = []
    for method, path, body in asked:
        host = bare(body["HostConfig"])
        endpoints = body["NetworkingConfig"]["EndpointsConfig"] or {}
        endpoints = {name: bare(settings) for name, settings in endpoints.items()}
        if list(endpoints.values()) == [{}]:
            endpoints = {}
        chosen = {key: host.get(key) for key in RELEVANT}
        exposed = sorted(body.get("ExposedPorts") or ())
        found.append((method, path, chosen, endpoints, exposed, body.get("MacAddress")))
    return found


def of_networks(asked: list[Any]) -> list[Any]:
    """Docker's client looks at a network before it removes it, and walks its pools in any order."""
    if any(method == "DELETE" for method, _, _ in asked):
        asked = [one for one in asked if one[0] == "DELETE"]
    for _, _, body in asked:
        if isinstance(body, dict) and body.get("IPAM"):
            body["IPAM"]["Config"] = sorted(body["IPAM"]["Config"] or [], key=str)
    return [(method, path.replace("=true", "=1"), bare(body)) for method, path, body in asked]


@pytest.mark.parametrize("line", CREATIONS.splitlines())
def test_creation(server: ThreadingHTTPServer, tmp_path: Path, line: str) -> None:
    code, words, theirs = ask(server, ["docker"], line, tmp_path)
    own_code, own_words, ours = ask(server, ESTIBA, line, tmp_path)
    assert of_creation(ours) == of_creation(theirs)
    assert own_words.replace("estiba", "docker") == words
    assert own_code == code


@pytest.mark.parametrize("line", OTHERS.splitlines())
def test_networks(server: ThreadingHTTPServer, tmp_path: Path, line: str) -> None:
    code, words, theirs = ask(server, ["docker"], line, tmp_path)
    own_code, own_words, ours = ask(server, ESTIBA, line, tmp_path)
    assert of_networks(ours) == of_networks(theirs)
    assert own_words.replace("estiba", "docker") == words
    assert own_code == code
