"""Content by its digest."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from estiba.storage.content import ContentStore


def test_what_finds_room_for_a_part_only_is_not_kept(tmp_path: Path, little_room: int) -> None:
    store = ContentStore(tmp_path)
    store.open()
    data = b"x" * (little_room + 1)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with pytest.raises(OSError, match="File too large"):
        store.ingest(io.BytesIO(data), digest, len(data))
    assert not store.has(digest) and list(store.path(digest).parent.iterdir()) == []
