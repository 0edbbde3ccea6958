"""The engine's ends of a program's streams."""

from __future__ import annotations

import asyncio
import os
import time

from estiba.runtime.monitor import STDOUT
from estiba.runtime.streams import Output


async def test_what_comes_while_the_loop_is_busy_is_read_however_late_it_hears_of_it() -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    output = Output({STDOUT: reader})

    def be_busy() -> None:
        os.write(writer, b"late")
        time.sleep(0.05)

    asyncio.get_running_loop().call_soon(be_busy)
    assert await output.read(patience_s=0.01) == [(STDOUT, b"late")]
    assert await output.read(patience_s=0.01) == []
    output.close()
    os.close(writer)
