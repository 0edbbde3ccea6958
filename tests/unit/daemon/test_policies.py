from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from estiba.daemon.adapters import policies
from estiba.daemon.adapters.policies import PolicyAdapter
from estiba.network.policy.explain import Explanation


def test_a_trial_packet_does_not_hold_up_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask the host's firewall takes a namespace and up to a second."""
    where: list[threading.Thread] = []

    def explained(*_: object) -> Explanation:
        where.append(threading.current_thread())
        raise LookupError

    nobody = cast(Any, None)
    monkeypatch.setattr(policies, "explain", explained)
    monkeypatch.setattr(policies, "resolve", lambda *_: nobody)
    monkeypatch.setattr(PolicyAdapter, "_world", lambda self: nobody)
    with pytest.raises(LookupError):
        asyncio.run(PolicyAdapter(nobody, nobody, nobody).explain("one", "two:80"))
    assert where != [threading.main_thread()]
