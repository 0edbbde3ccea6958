"""JSON into the project's types, from any thread.

msgspec gathers what it must know of a Struct when it first meets the type, and shows other threads
what it has so far: they crash on it, the whole process with them. Here each type is gathered once,
under a lock, before anything is read by it.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_NULLS_DEPTH = 8
"""No member that is read lies deeper."""

_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_lock = threading.Lock()


def from_json(data: bytes | str, kind: type[T]) -> T:
    """Raises msgspec.DecodeError for what is no JSON, ValidationError for what is no `kind`."""
    decoded: T = _decoder(kind).decode(data)
    return decoded


def from_plain(value: Any, kind: type[T]) -> T:
    """From what JSON was decoded to already. Raises msgspec.ValidationError."""
    _decoder(kind)
    return msgspec.convert(value, kind)


def without_nulls(value: Any, depth: int = _NULLS_DEPTH) -> Any:
    """`value` without members that are null; what lies deeper than `depth` stays as it is."""
    if depth == 0:
        return value
    if isinstance(value, dict):
        return {
            key: without_nulls(item, depth - 1) for key, item in value.items() if item is not None
        }
    if isinstance(value, list):
        return [without_nulls(item, depth - 1) for item in value]
    return value


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    found = _decoders.get(kind)
    if found is None:
        with _lock:
            found = _decoders.setdefault(kind, msgspec.json.Decoder(kind))
    return found
