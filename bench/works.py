"""What is measured of containers: each returns seconds (or bytes) for one round on one engine."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.peers import Engine

LINES = 1_000_000
_CREATE = {"Image": "busybox", "Cmd": ["true"]}


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def run_rm(engine: Engine) -> float:
    return timed(lambda: engine.docker("run", "--rm", "busybox", "true"))


def _parallel(engine: Engine, clients: int, rounds: int, one: Callable[..., None]) -> float:
    failures: list[BaseException] = []

    def work() -> None:
        connection = engine.connection()
        try:
            for _ in range(rounds):
                one(connection)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(clients)]

    def whole() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    seconds = timed(whole)
    if failures:
        raise failures[0]
    return seconds


def lifecycles(engine: Engine) -> float:
    """40 times create, start, wait, delete through the API by 8 clients."""

    def one(connection) -> None:  # type: ignore[no-untyped-def]
        made = connection.call("POST", "/containers/create", _CREATE)["Id"]
        connection.call("POST", f"/containers/{made}/start")
        connection.call("POST", f"/containers/{made}/wait")
        connection.call("DELETE", f"/containers/{made}")

    return _parallel(engine, 8, 5, one)


def starts(engine: Engine) -> float:
    """30 starts (of made containers that stay up) by 8 clients; about 4 each."""
    connection = engine.connection()
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"]}
    made = [connection.call("POST", "/containers/create", body)["Id"] for _ in range(30)]
    waiting = list(made)
    lock = threading.Lock()

    def one(client) -> None:  # type: ignore[no-untyped-def]
        while True:
            with lock:
                if not waiting:
                    return
                container = waiting.pop()
            client.call("POST", f"/containers/{container}/start")

    try:
        return _parallel(engine, 8, 1, one)
    finally:
        for container in made:
            connection.call("DELETE", f"/containers/{container}?force=1")


def with_container(engine: Engine, name: str, *command: str) -> None:
    engine.docker("run", "-d", "--name", name, "busybox", *command)


def exec_true(engine: Engine) -> float:
    return timed(lambda: engine.docker("exec", "idle", "true"))


def write_lines(engine: Engine) -> float:
    """A container that writes a million lines, from its start to its end."""
    engine.docker("rm", "-f", "lines")
    engine.docker("create", "--name", "lines", "busybox", "seq", str(LINES))

    def write() -> None:
        engine.docker("start", "lines")
        engine.docker("wait", "lines")

    return timed(write)


def read_lines(engine: Engine) -> float:
    def read() -> None:
        output = engine.docker("logs", "lines")
        assert output.count(b"\n") == LINES, output.count(b"\n")

    return timed(read)


def import_root(engine: Engine, archives: list[Path], number: int) -> float:
    """A Debian root file system, each time another, so that no layer is there already.

    Nothing is removed in between: the engine that comes second would pay for that (`disk.py`).
    """
    with archives[number].open("rb") as file:
        return timed(lambda: engine.docker("import", "-", f"debian:{number}", stdin=file))


def fill(engines: list[Engine], *, running: int, made: int) -> None:
    """So many more containers on each."""
    for engine in engines:
        for number in range(running):
            with_container(engine, f"many{number}", "sleep", "100000")
        for number in range(made):
            engine.docker("create", "--name", f"made{number}", "busybox")


def list_containers(engine: Engine) -> float:
    connection = engine.connection()
    connection.call("GET", "/containers/json?all=1")
    return timed(lambda: connection.call("GET", "/containers/json?all=1"))


def ps_process(engine: Engine, client: str) -> float:
    """`ps` as a whole process; each client against the same engine."""
    command = [client, "ps"]
    return timed(
        lambda: subprocess.run(
            command, env=engine.environment(), stdout=subprocess.DEVNULL, check=True
        )
    )
