"""Transfers of volumes that tell how far they are."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

from estiba.daemon.adapters.volume_backups import _Amount, _told
from estiba.distribution.cancel import CancelToken


async def test_a_client_that_leaves_is_no_error_of_the_engine() -> None:
    """asyncio complains of failures that nobody has looked at."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
    cancel = CancelToken()

    def work() -> dict[str, Any]:
        while True:
            cancel.check()
            time.sleep(0.001)

    told = _told(work, _Amount(), "Pushing", "data", cancel)
    assert (await anext(told))["status"] == "Pushing"
    await told.aclose()
    del told
    gc.collect()
    assert complaints == []
