"""The table of networks: what packets, connections and changes cost beside a genuine Docker Engine
with its userland proxy, which is its default."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from bench import material, traffic
from bench.peers import Engine, docker_engine, estiba
from bench.rows import Table, at_least, at_most
from bench.works import timed

_BIN = Path(sys.executable).parent
NAME = "networks"
COLUMNS = ("estiba", "Docker Engine 20.10")

_INSIDE = 7000
_BYTES = 4 << 30
_REQUESTS = 2000
_NETWORKS = 50
# Below the ports that the kernel gives to whoever connects.
_HOST_PORT = {"estiba": 27001, "docker": 27002}


def measure(table: Table, run: Path) -> dict[str, str]:
    """Fills the table; what there is to say about the peer."""
    ours, docker = estiba(_BIN / "estibad", run), docker_engine(run)
    both = (ours, docker)
    table.header()
    try:
        for engine in both:
            _prepare(engine)
        _traffic_rows(table, both)
        table.row(
            "networks", f"{_NETWORKS} networks made and removed, API", at_most(0.3), 5,
            lambda engine, _: _networks(engine), both,
        )  # fmt: skip
        for engine in both:
            engine.docker("network", "create", "other")
        table.row(
            "connect", "a running container joins a network, API", at_most(0.5), 30,
            lambda engine, _: _connect(engine), both,
        )  # fmt: skip
    finally:
        for engine in both:
            _remove_networks(engine)
            engine.close()
    return {
        "docker": "Docker Engine 20.10 (Debian's docker.io) with its userland proxy; both ends of "
        "the traffic are the same program in the containers' namespaces"
    }


def _prepare(engine: Engine) -> None:
    engine.start()
    material.import_busybox(engine)
    engine.docker("network", "create", "talk")
    published = f"{_HOST_PORT[engine.name]}:{_INSIDE}"
    for name, words in (("server", ["-p", published]), ("client", [])):
        command = ["--name", name, "--network", "talk", *words, "busybox", "sleep", "100000"]
        engine.docker("run", "-d", *command)


def _traffic_rows(table: Table, both: tuple[Engine, Engine]) -> None:
    def row(name: str, title: str, rounds: int, unit: str, work: Callable[[Engine], float]) -> None:
        table.row(name, title, at_least(1.0), rounds, lambda e, _: work(e), both, unit=unit)

    row("between", "TCP between two containers", 9, "B/s", _between)
    row("published", "TCP from the host to a published port", 9, "B/s", _published)
    row("requests", "HTTP requests by a published port, a connection each", 9, "1/s", _requests)


def _inspect(engine: Engine, name: str) -> tuple[int, str]:
    """Its process and its address."""
    (found,) = json.loads(engine.docker("inspect", name))
    return found["State"]["Pid"], found["NetworkSettings"]["Networks"]["talk"]["IPAddress"]


def _between(engine: Engine) -> float:
    (server, address), (client, _) = _inspect(engine, "server"), _inspect(engine, "client")
    with traffic.served(server, _INSIDE):
        return _BYTES / traffic.seconds(client, "send", address, str(_INSIDE), str(_BYTES))


def _published(engine: Engine) -> float:
    server, _ = _inspect(engine, "server")
    port = str(_HOST_PORT[engine.name])
    with traffic.served(server, _INSIDE):
        return _BYTES / traffic.seconds(os.getpid(), "send", "127.0.0.1", port, str(_BYTES))


def _requests(engine: Engine) -> float:
    server, _ = _inspect(engine, "server")
    port = str(_HOST_PORT[engine.name])
    with traffic.served(server, _INSIDE):
        return _REQUESTS / traffic.seconds(os.getpid(), "ask", "127.0.0.1", port, str(_REQUESTS))


def _networks(engine: Engine) -> float:
    connection = engine.connection()

    def whole() -> None:
        # More than the default pools have room for, beside what the host routes.
        for number in range(_NETWORKS):
            config = [{"Subnet": f"10.243.{number}.0/24"}]
            body = {"Name": f"many{number}", "IPAM": {"Config": config}}
            connection.call("POST", "/networks/create", body)
        for number in range(_NETWORKS):
            connection.call("DELETE", f"/networks/many{number}")

    return timed(whole)


def _connect(engine: Engine) -> float:
    """The joining alone; it leaves again, untimed."""
    connection = engine.connection()
    body = {"Container": "client"}
    taken = timed(lambda: connection.call("POST", "/networks/other/connect", body))
    connection.call("POST", "/networks/other/disconnect", body)
    return taken


def _remove_networks(engine: Engine) -> None:
    for name in ("server", "client"):
        _quietly(engine, "rm", "-f", name)
    for name in ("talk", "other"):
        _quietly(engine, "network", "rm", name)


def _quietly(engine: Engine, *words: str) -> None:
    with contextlib.suppress(RuntimeError):
        engine.docker(*words)
