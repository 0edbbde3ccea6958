"""Signals that the client passes on, whatever its main thread is doing."""

from __future__ import annotations

import os
import queue
import signal
import threading

from tests.support.daemon import wait_until

from estiba.client.streams import WatchedSignals


def test_a_signal_is_handled_while_the_main_thread_is_stuck_in_a_read() -> None:
    handled: queue.SimpleQueue[int] = queue.SimpleQueue()
    readable, written = os.pipe()
    seen: list[int] = []

    def elsewhere() -> None:
        """The main thread's read is not interrupted, as when the signal came just before it."""
        try:
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                signal.pthread_kill(threading.get_ident(), number)
                seen.append(handled.get(timeout=10))
        except queue.Empty:
            seen.append(0)
        finally:
            os.close(written)

    handlers = {signal.SIGUSR1: handled.put, signal.SIGUSR2: handled.put}
    before = [signal.getsignal(number) for number in handlers]
    with WatchedSignals({int(number): handler for number, handler in handlers.items()}):
        other = threading.Thread(target=elsewhere)
        other.start()
        assert os.read(readable, 1) == b""
        other.join()
    os.close(readable)
    assert seen == [signal.SIGUSR1, signal.SIGUSR2]
    assert [signal.getsignal(number) for number in handlers] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_signals_are_handled_in_order_and_one_that_waits_holds_up_nobody() -> None:
    first, handled = threading.Event(), threading.Event()

    def slow(_: int) -> None:
        first.wait(10)

    def fast(_: int) -> None:
        assert first.is_set()
        handled.set()

    with WatchedSignals({int(signal.SIGUSR1): slow, int(signal.SIGUSR2): fast}):
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert not handled.wait(0.05)
        first.set()
        assert handled.wait(10)


def test_nothing_to_watch_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    with WatchedSignals({}):
        assert signal.getsignal(signal.SIGINT) is before


def test_it_leaves_no_descriptors() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with WatchedSignals({int(signal.SIGUSR1): lambda _: None}):
            pass
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before, what="the pipes to be closed")
