"""registry: becomes the program that serves one."""

from __future__ import annotations

import os
import sys

from estiba.cli.parse import Arguments
from estiba.client.errors import ClientError
from estiba.client.http import Client

_MODULE = "estiba.registry"


def registry(client: Client, given: Arguments) -> int:
    """Does not return. Raises ClientError when the program cannot be started."""
    isolation = "-I" if sys.flags.isolated else "-P"
    sys.stdout.flush()
    try:
        os.execv(sys.executable, [sys.executable, isolation, "-m", _MODULE, *given.words])
    except OSError as error:
        raise ClientError(f"cannot run {sys.executable}: {error.strerror}") from error
