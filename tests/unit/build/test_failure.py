"""What is told of a step that failed."""

from __future__ import annotations

import errno
import os

import pytest

from estiba.build.failure import exit_message, reason
from estiba.model.errors import NotFound

ARGV = ("/bin/sh", "-c", "make all")
SAID = "The command '/bin/sh -c make all' returned a non-zero code: "


@pytest.mark.parametrize(
    ("code", "oom", "text"),
    [
        (1, False, f"{SAID}1"),
        (128, False, f"{SAID}128"),
        (137, False, f"{SAID}137 (ended by signal 9)"),
        (137, True, f"{SAID}137: the kernel ended it for want of memory: raise --memory"),
        (1, True, f"{SAID}1: the kernel ended it for want of memory: raise --memory"),
    ],
)
def test_exit_codes(code: int, oom: bool, text: str) -> None:
    assert exit_message(ARGV, code, oom_killed=oom) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NotFound("no such image: x"), "no such image: x"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/path"),
            "No space left on device: make room, `builder prune` and `image prune` do",
        ),
        (
            OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
            "Disk quota exceeded: make room, `builder prune` and `image prune` do",
        ),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "[Errno 5] Input/output error"),
        (LookupError(), "LookupError"),
    ],
)
def test_reasons(error: Exception, text: str) -> None:
    assert reason(error) == text
