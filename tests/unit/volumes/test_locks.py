"""Locks by name: one at a time, and none left over."""

from __future__ import annotations

import threading

from estiba.volumes.locks import NamedLocks


def test_one_at_a_time_for_each_name() -> None:
    locks = NamedLocks()
    inside: dict[str, int] = {"a": 0, "b": 0}
    worst = 0

    def work(name: str) -> None:
        nonlocal worst
        for _ in range(2000):
            with locks.held(name):
                inside[name] += 1
                worst = max(worst, inside[name])
                inside[name] -= 1

    threads = [threading.Thread(target=work, args=(name,)) for name in "aabb"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == 1
    assert len(locks) == 0


def test_names_do_not_wait_for_each_other() -> None:
    locks = NamedLocks()
    with locks.held("a"), locks.held("b"):
        assert len(locks) == 2
    assert len(locks) == 0


def test_an_error_lets_go() -> None:
    locks = NamedLocks()
    try:
        with locks.held("a"):
            raise OSError("x")
    except OSError:
        pass
    with locks.held("a"):
        pass
    assert len(locks) == 0
