"""The engine's own id, made once for a data root."""

from __future__ import annotations

import uuid
from functools import lru_cache
from pathlib import Path

from estiba.kernel.files import write_atomic


@lru_cache
def engine_id(data_root: Path) -> str:
    """A UUID that stays for the life of the data root."""
    path = data_root / "engine-id"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        made = str(uuid.uuid4())
        write_atomic(path, made.encode())
        return made
