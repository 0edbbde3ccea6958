"""What is cleared away in the background, whatever happens to a single job."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from estiba.network.reaper import Reaper

pytestmark = pytest.mark.kernel


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.open("/", os.O_RDONLY)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_job_that_fails_in_any_way_does_not_end_the_others() -> None:
    done: list[str] = []

    def fail() -> None:
        raise ValueError("a job of unexpected bad luck")

    reaper = Reaper()
    reaper.then(fail)
    reaper.then(lambda: done.append("next"))
    reaper.drain()
    reaper.close()
    assert done == ["next"]


def test_without_descriptors_the_jobs_are_done_all_the_same() -> None:
    """The first may come when containers have taken all that the engine may open."""
    done: list[str] = []
    reaper = Reaper()
    with no_descriptor_left():
        reaper.then(lambda: done.append("first"))
        reaper.drain()
    reaper.close()
    assert done == ["first"]
