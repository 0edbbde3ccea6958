"""What a transfer tells of itself on the way."""

from __future__ import annotations

from dataclasses import dataclass

from estiba.model.digest import Digest, hex_of


@dataclass(frozen=True, slots=True)
class Progress:
    """`id` is a layer's short digest or a tag; `current` and `total` are bytes, -1 without."""

    status: str
    id: str = ""
    current: int = -1
    total: int = -1
    pushed: tuple[str, Digest, int] | None = None
    """Tag, digest and size in bytes of a manifest that a registry has taken."""


def short(digest: Digest) -> str:
    """Twelve digits, as clients show them."""
    return hex_of(digest)[:12]
