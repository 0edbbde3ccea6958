"""The key sequence with which a user leaves an attached terminal. Pure."""

from __future__ import annotations

from estiba.model.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"
_SPECIAL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` or `a,b` as bytes. Raises InvalidArgument."""
    keys = bytearray()
    for part in text.split(","):
        if len(part) == 1 and part.isascii():
            keys.append(ord(part))
        elif part.startswith("ctrl-") and len(part) == 6:
            keys.append(_control(part[5], text))
        else:
            raise InvalidArgument(f"Invalid detach keys ({text[:64]}) provided")
    return bytes(keys)


def _control(character: str, text: str) -> int:
    if character.isascii() and character.islower():
        return ord(character) - 96
    if character in _SPECIAL:
        return _SPECIAL[character]
    raise InvalidArgument(f"Invalid detach keys ({text[:64]}) provided")


class DetachScanner:
    """Lets input through and notices the sequence, also when it comes in pieces."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be passed on, and whether the user has detached."""
        if not self._keys:
            return data, False
        text = self._held + data
        found = text.find(self._keys)
        if found >= 0:
            return text[:found], True
        keep = next(
            (
                size
                for size in range(min(len(self._keys) - 1, len(text)), 0, -1)
                if text.endswith(self._keys[:size])
            ),
            0,
        )
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False
