"""The server's side of the plugin protocol, with the standard library alone: it also runs in the
small root file systems of managed plugins."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time


def serve(path, implements, methods):
    """Answers POST /METHOD with what `methods[METHOD](arguments)` returns; never ends."""
    # As the first process of its namespace it would not hear of it otherwise.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    server = socket.socket(socket.AF_UNIX)
    if os.path.exists(path):
        os.unlink(path)
    server.bind(path + ".new")
    server.listen(64)
    os.rename(path + ".new", path)
    lock = threading.Lock()
    methods = {"Plugin.Activate": lambda arguments: {"Implements": implements}, **methods}
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_serve_one, args=(connection, methods, lock), daemon=True).start()


def _serve_one(connection, methods, lock):
    with connection, connection.makefile("rb") as reader:
        line = reader.readline().split()
        size = 0
        while (header := reader.readline().strip()) != b"":
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        body = reader.read(size)
        if len(line) > 1:
            method = line[1].decode().lstrip("/")
            if not body and method.startswith("VolumeDriver."):
                # Docker's own calls of volumes have one, and there are plugins that insist.
                connection.sendall(_http(500, {"Err": "EOF"}))
                return
            connection.sendall(_answer(method, json.loads(body or b"{}"), methods, lock))


def _answer(method, arguments, methods, lock):
    root = os.environ.get("PLUGIN_ROOT", "/")
    with lock, open(os.path.join(root, "calls"), "a") as calls:
        calls.write(json.dumps({"method": method, **arguments}) + "\n")
    how = _behaviour(root).get(method.partition(".")[2])
    while how == "hang":
        time.sleep(0.05)
        how = _behaviour(root).get(method.partition(".")[2])
    if how == "die":
        os._exit(9)
    if how == "garbage":
        return b"\x00\x01\x02 no HTTP at all\r\n\r\n"
    if how is not None:
        return _http(200, {"Err": how})
    if method not in methods:
        return _http(404, {"Err": f"no method {method}"})
    try:
        with lock:
            return _http(200, methods[method](arguments))
    except Exception as error:
        return _http(500, {"Err": str(error)})


def _behaviour(root):
    try:
        with open(os.path.join(root, "behaviour")) as file:
            return json.load(file)
    except OSError:
        return {}


def _http(status, value):
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
