"""Both ends of the traffic that is measured, each a process in a network namespace of its choice.

`serve PORT` takes whatever comes, and answers a short HTTP response to whoever sends a request;
`send HOST PORT BYTES` and `ask HOST PORT COUNT` print the seconds that it took.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_CHUNK = 1 << 20
_BACKLOG = 512
_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
_CLIENTS = 4


@contextmanager
def served(pid: int, port: int) -> Iterator[None]:
    """A server in the namespace of the process `pid`."""
    command = ["nsenter", "-t", str(pid), "-n", sys.executable, "-m", "bench.traffic"]
    with subprocess.Popen([*command, "serve", str(port)], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            yield
        finally:
            server.kill()


def seconds(pid: int, *words: str) -> float:
    """What `send` or `ask` took in the namespace of the process `pid`; raises RuntimeError."""
    command = ["nsenter", "-t", str(pid), "-n", sys.executable, "-m", "bench.traffic", *words]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace")[-300:])
    return float(done.stdout)


def _serve(port: int) -> None:
    with socket.create_server(("0.0.0.0", port), backlog=_BACKLOG) as server:
        print("ready", flush=True)
        buffer = bytearray(_CHUNK)
        while True:
            connection, _ = server.accept()
            with connection:
                count = connection.recv_into(buffer)
                if buffer[:count] == _REQUEST:
                    connection.sendall(_RESPONSE)
                    continue
                while connection.recv_into(buffer):
                    pass


def _send(host: str, port: int, size: int) -> float:
    chunk = bytes(_CHUNK)
    with socket.create_connection((host, port)) as connection:
        started = time.perf_counter()
        for _ in range(size // _CHUNK):
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
        return time.perf_counter() - started


def _ask(host: str, port: int, count: int) -> float:
    def some() -> None:
        for _ in range(count // _CLIENTS):
            with socket.create_connection((host, port)) as connection:
                connection.sendall(_REQUEST)
                answer = b""
                while part := connection.recv(4096):
                    answer += part
                assert answer == _RESPONSE, answer

    threads = [threading.Thread(target=some) for _ in range(_CLIENTS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port]:
            _serve(int(port))
        case ["send", host, port, size]:
            print(_send(host, int(port), int(size)))
        case ["ask", host, port, count]:
            print(_ask(host, int(port), int(count)))
        case other:
            sys.exit(f"unknown: {other}")
