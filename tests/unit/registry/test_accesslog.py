"""The access log: written by a thread, and never waited for."""

from __future__ import annotations

import asyncio
import json
import os

from tests.support.daemon import wait_until

from estiba.registry.accesslog import AccessLog


def add(log: AccessLog, path: str, *, is_whole: bool = True) -> None:
    log.add(
        address="127.0.0.1",
        user="ana",
        method="GET",
        path=path,
        status=200,
        size=5,
        seconds=0.0012,
        agent="x" * 1000,
        is_whole=is_whole,
    )


async def test_a_reader_that_is_slow_loses_lines_and_is_told() -> None:
    read, write = os.pipe()
    log = AccessLog(write, clock=lambda: 5.0)
    for number in range(10_050):
        add(log, f"/v2/{number}")
    lines: list[bytes] = []

    def read_lines() -> None:
        data = b""
        while b'"lost"' not in data:
            data += os.read(read, 1 << 20)
        lines.extend(data.splitlines())

    await asyncio.to_thread(read_lines)
    assert len(lines) == 10_001
    assert json.loads(lines[-1]) == {"time": 5.0, "lost": 50}
    first = json.loads(lines[0])
    assert (first["path"], first["ms"], len(first["agent"])) == ("/v2/0", 1.2, 200)
    add(log, "/v2/last", is_whole=False)
    log.flush()
    assert json.loads(os.read(read, 1000))["cut"] is True
    os.close(read)
    os.close(write)


async def test_a_reader_that_has_gone_ends_the_log() -> None:
    read, write = os.pipe()
    os.close(read)
    log = AccessLog(write)
    add(log, "/v2/")
    await asyncio.to_thread(wait_until, lambda: not log.is_on, what="its end")
    add(log, "/v2/")
    log.flush()
    os.close(write)


async def test_silence() -> None:
    log = AccessLog(None)
    add(log, "/v2/")
    log.flush()
    assert not log.is_on
