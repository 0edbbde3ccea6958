"""The name server's thread."""

from __future__ import annotations

import asyncio
import errno
import os
import threading

import pytest

from estiba.model.errors import Internal
from estiba.network.dns.names import Names
from estiba.network.dns.server import NameServer
from estiba.network.dns.service import _ServerThread
from estiba.network.dns.upstream import HostResolver


def test_a_thread_that_cannot_begin_holds_up_nobody_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    server = _ServerThread(Names(), HostResolver(), None)
    refusals: list[Internal] = []

    def call() -> None:
        try:
            server.call(lambda _: None)
        except Internal as error:
            refusals.append(error)

    # The log has it, and pytest need not.
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with monkeypatch.context() as short:
        short.setattr(asyncio, "new_event_loop", fail)
        short.setattr(asyncio.events, "new_event_loop", fail)
        caller = threading.Thread(target=call, daemon=True)
        caller.start()
        caller.join(10)
        assert not caller.is_alive()
    assert "did not start" in str(refusals[0])
    asked: list[NameServer] = []
    is_asked = threading.Event()
    server.call(asked.append)
    server.call(lambda _: is_asked.set())
    assert is_asked.wait(10) and isinstance(asked[0], NameServer)
    server.close()
