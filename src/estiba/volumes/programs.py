"""Programs of the host that make and mend file systems, run to their end."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from estiba.model.errors import DeadlineExceeded, FailedPrecondition

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_SHOWN = 2000


def find(name: str, package: str) -> str:
    """The program's path. Raises FailedPrecondition naming Debian's package."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise FailedPrecondition(
            f"{name} is not installed on the engine's host: install it "
            f"(Debian: apt-get install {package})"
        )
    return path


def is_installed(name: str) -> bool:
    return shutil.which(name, path=_PATH) is not None


@contextmanager
def exclusive(path: Path) -> Iterator[int]:
    """Holds off all other work on a file or directory, waiting for it first.

    Give the descriptor to `run`: a program that outlives an engine that was killed holds off the
    next one until it ends. Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def run(
    argv: Sequence[str],
    *,
    secret: bytes = b"",
    holding: int | None = None,
    timeout_s: float = 600.0,
) -> tuple[int, str]:
    """Its exit code and what it wrote to its error output.

    `secret` goes to its input: arguments and environment are for all to read. What it leaves
    running keeps none of the engine's descriptors but `holding`. Raises OSError,
    DeadlineExceeded.
    """
    # A file and no pipe: a program that goes on in the background would keep a pipe open.
    with tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(
                argv,
                input=secret,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={"PATH": _PATH, "LC_ALL": "C"},
                cwd="/",
                pass_fds=() if holding is None else (holding,),
                start_new_session=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DeadlineExceeded(f"{os.path.basename(argv[0])} took too long") from error
        errors.seek(0)
        return done.returncode, errors.read(_MAX_SHOWN).decode(errors="replace").strip()
