"""The table of names: the embedded name servers of both engines, asked from containers.

The clients are the same program in the containers' namespaces: `ask NAME SERVER SECONDS …` prints
what it measured as JSON, `serve ADDRESS` is the server outside.
"""

from __future__ import annotations

import json
import select
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import material
from bench.peers import Engine, docker_engine, estiba
from bench.rows import Table, at_most, rate_at_least, seconds_at_most

_BIN = Path(sys.executable).parent
NAME = "names"
COLUMNS = ("estiba", "Docker Engine 20.10")

_EMBEDDED = "127.0.0.11"
_ASKERS = 4
_SECONDS = 3.0
_RATE = 5000
_PAIRS = 300
_HEADER = struct.Struct("!HHHHHH")


def measure(table: Table, run: Path) -> dict[str, str]:
    """Fills the table; what there is to say about it."""
    both = (estiba(_BIN / "estibad", run), docker_engine(run))
    table.header()
    try:
        for engine in both:
            _prepare(engine)
        table.row(
            "rate", f"answers to {_ASKERS} containers at once, local names",
            rate_at_least(_RATE), 5, lambda engine, _: _rate(engine), both, unit="1/s",
        )  # fmt: skip
        table.row(
            "p99", f"99 of 100 answers within, at {_RATE:,} a second",
            seconds_at_most(0.005), 5, lambda engine, _: _p99(engine), both,
        )  # fmt: skip
        table.row(
            "forward", "what forwarding adds to asking the server itself",
            seconds_at_most(0.002), 5, lambda engine, _: _added(engine), both,
        )  # fmt: skip
        table.row(
            "start", "start of a container on a network with names, API",
            at_most(0.5), 20, lambda engine, _: _start(engine, "talk"), both,
        )  # fmt: skip
        table.row(
            "plain", "start of a container on the default bridge, API",
            at_most(0.5), 20, lambda engine, _: _start(engine, "bridge"), both,
        )  # fmt: skip
    finally:
        for engine in both:
            _clear(engine)
            engine.close()
    return {"load": f"{_ASKERS} clients in Python, on the same CPUs as the engine"}


def _prepare(engine: Engine) -> None:
    engine.start()
    material.import_busybox(engine)
    engine.docker("network", "create", "talk")
    for number in range(_ASKERS):
        words = ["--name", f"asker{number}", "--network", "talk", "--dns", _gateway(engine)]
        engine.docker("run", "-d", *words, "busybox", "sleep", "100000")


def _clear(engine: Engine) -> None:
    """Whatever there is: an engine that did not start has neither."""
    names = [f"asker{number}" for number in range(_ASKERS)]
    for words in (["rm", "-f", *names], ["network", "rm", "talk"]):
        command = ["docker", *words]
        subprocess.run(command, env=engine.environment(), capture_output=True, check=False)


def _gateway(engine: Engine) -> str:
    (found,) = json.loads(engine.docker("network", "inspect", "talk"))
    return str(found["IPAM"]["Config"][0]["Gateway"])


def _pids(engine: Engine) -> list[int]:
    names = [f"asker{number}" for number in range(_ASKERS)]
    return [each["State"]["Pid"] for each in json.loads(engine.docker("inspect", *names))]


def _asked(pids: list[int], *words: str) -> list[dict[str, float]]:
    """What clients in these namespaces measured, all at once."""
    processes = [
        subprocess.Popen(
            ["nsenter", "-t", str(pid), "-n", sys.executable, "-m", "bench.dns", *words],
            stdout=subprocess.PIPE,
        )
        for pid in pids
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("a client failed")
    return [json.loads(output) for output in outputs]


def _rate(engine: Engine) -> float:
    found = _asked(_pids(engine), "ask", "asker1", _EMBEDDED, str(_SECONDS), "0")
    return sum(each["rate"] for each in found)


def _p99(engine: Engine) -> float:
    share = str(_RATE / _ASKERS)
    found = _asked(_pids(engine), "ask", "asker1", _EMBEDDED, str(_SECONDS), share)
    return statistics.mean(each["p99"] for each in found)


def _added(engine: Engine) -> float:
    address = _gateway(engine)
    with _served(address):
        (found,) = _asked(_pids(engine)[:1], "compare", address)
    return found["added"]


def _start(engine: Engine, network: str) -> float:
    connection = engine.connection()
    body = {"Image": "busybox", "Cmd": ["sleep", "100"], "HostConfig": {"NetworkMode": network}}
    made = connection.call("POST", "/containers/create", body)["Id"]
    try:
        began = time.perf_counter()
        connection.call("POST", f"/containers/{made}/start")
        return time.perf_counter() - began
    finally:
        connection.call("DELETE", f"/containers/{made}?force=1")


@contextmanager
def _served(address: str) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.dns", "serve", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            yield
        finally:
            server.kill()


# -- the clients and the server --------------------------------------------------------------


def _question(name: str) -> bytes:
    """All but the id."""
    labels = b"".join(bytes((len(part),)) + part.encode() for part in name.split("."))
    return _HEADER.pack(0, 0x0100, 1, 0, 0, 0)[2:] + labels + b"\0\0\1\0\1"


def _connected(server: str) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect((server, 53))
    return client


def _ask(name: str, server: str, seconds: float, rate: float) -> dict[str, float]:
    """Asks `rate` times a second whatever comes back, or with 0 as soon as the answer is there,
    with four questions under way.
    """
    body, client = _question(name), _connected(server)
    sent: dict[int, float] = {}
    took: list[float] = []
    number = 0
    began = time.perf_counter()
    while (now := time.perf_counter() - began) < seconds:
        due = number + 1 if rate and now * rate > number else 0
        if due or (not rate and len(sent) < 4):
            number += 1
            sent[number & 0xFFFF] = time.perf_counter()
            client.send((number & 0xFFFF).to_bytes(2, "big") + body)
            if not rate:
                continue
        wait_s = max(0.0, (number / rate) - now) if rate else 1.0
        if select.select([client], [], [], wait_s)[0]:
            answer = client.recv(4096)
            started = sent.pop(answer[0] << 8 | answer[1], None)
            if started is not None and answer[7]:
                took.append(time.perf_counter() - started)
        elif not rate:
            sent.clear()
    if rate and len(took) < 0.98 * seconds * rate:
        raise SystemExit(f"only {len(took)} answers")
    took.sort()
    return {"rate": len(took) / seconds, "p99": took[len(took) * 99 // 100]}


def _compare(server: str) -> dict[str, float]:
    """The difference of medians, taken in turn."""
    clients = {where: _connected(where) for where in (server, _EMBEDDED)}
    took: dict[str, list[float]] = {where: [] for where in clients}
    for number in range(_PAIRS):
        for where, client in clients.items():
            began = time.perf_counter()
            client.send(number.to_bytes(2, "big") + _question(f"n{number}.example"))
            client.settimeout(5)
            client.recv(4096)
            took[where].append(time.perf_counter() - began)
    return {"added": statistics.median(took[_EMBEDDED]) - statistics.median(took[server])}


def _serve(address: str) -> None:
    """Answers 192.0.2.1 to everything."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    print("ready", flush=True)
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([192, 0, 2, 1])
    while True:
        data, peer = server.recvfrom(4096)
        question = data[12 : data.index(b"\0", 12) + 5]
        header = data[:2] + _HEADER.pack(0, 0x8180, 1, 1, 0, 0)[2:]
        server.sendto(header + question + record, peer)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ask", name, server, seconds, rate]:
            print(json.dumps(_ask(name, server, float(seconds), float(rate))))
        case ["compare", server]:
            print(json.dumps(_compare(server)))
        case ["serve", address]:
            _serve(address)
        case other:
            sys.exit(f"unknown: {other}")
