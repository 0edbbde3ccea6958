"""Writing the user's config.json, which the docker client shares.

Keys that estiba does not know stay as they are. A change is made on the file as it stands, under a
lock of its directory, and the file appears whole: two clients that log in at once lose nothing.
"""

from __future__ import annotations

import fcntl
import os

from estiba.client.errors import ClientError
from estiba.client.host import config_path, forget_config
from estiba.client.jsonlite import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def update_config(change: Callable[[dict[str, Any]], None]) -> None:
    """Raises ClientError when the file is damaged or cannot be written."""
    path = os.path.realpath(config_path())
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            config = _read(path)
            change(config)
            _replace(path, dumps(config, indent="\t").encode(errors="surrogateescape"))
        finally:
            os.close(lock)
    except OSError as error:
        raise ClientError(f"cannot write {path}: {error.strerror}") from error
    forget_config()


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return {}
    try:
        config = loads(data) if data.strip() else {}
    except ValueError as error:
        raise ClientError(f"{path} is damaged ({error}): mend it or take it away") from None
    if not isinstance(config, dict):
        raise ClientError(f"{path} is damaged (no JSON object): mend it or take it away")
    return config


def _replace(path: str, data: bytes) -> None:
    """It may hold secrets: for its owner alone, but for a mode that the user has chosen."""
    temporary = f"{path}.{os.getpid()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            try:
                before = os.stat(path)
                os.fchmod(file.fileno(), before.st_mode & 0o777)
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
            except (FileNotFoundError, PermissionError):
                pass
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
