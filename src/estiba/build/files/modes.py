"""What `--chmod` makes of a mode: octal, or symbolic as chmod(1) has it. Pure."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable

from estiba.model.errors import InvalidArgument

_OCTAL = re.compile(r"[0-7]{1,5}")
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_MASKS = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}
_SHIFTS = {"u": 6, "g": 3, "o": 0}

_NEW_DIRECTORY = 0o755

Change = Callable[[int], int]
"""From an st_mode to the permission bits wanted."""


def parse_chmod(text: str) -> Change:
    """Empty: nothing changes. Raises InvalidArgument for what is no mode."""
    if not text:
        return stat.S_IMODE
    if _OCTAL.fullmatch(text) and int(text, 8) <= 0o7777:
        value = int(text, 8)
        return lambda mode: value
    clauses = [_CLAUSE.fullmatch(clause) for clause in text.split(",")]
    if len(text) > 256 or not all(clauses):
        raise InvalidArgument(
            f"invalid chmod parameter {text[:64]!r}: it should be octal, as 0644, with at most "
            "07777, or symbolic, as u=rwX,go=rX"
        )
    actions = [
        (clause[1] or "a", *action)
        for clause in clauses
        if clause is not None
        for action in _ACTION.findall(clause[2])
    ]

    def change(mode: int) -> int:
        bits = stat.S_IMODE(mode)
        for who, operator, what in actions:
            bits = _apply(bits, who, operator, what, is_directory=stat.S_ISDIR(mode))
        return bits

    return change


def new_directory_mode(text: str) -> int:
    """Of a directory that is made on the way to the destination: an octal mode is its own too,
    but for the set-id and sticky bits, which were meant for what is copied."""
    return int(text, 8) & 0o777 if _OCTAL.fullmatch(text) else _NEW_DIRECTORY


def _apply(bits: int, who: str, operator: str, what: str, *, is_directory: bool) -> int:
    mask = 0
    for each in who:
        mask |= _MASKS[each]
    if what in _SHIFTS:
        value = (bits >> _SHIFTS[what] & 7) * 0o111
    else:
        value = 0
        for each in what:
            is_executable = is_directory or bits & 0o111
            value |= _BITS[each] if each != "X" else (0o111 if is_executable else 0)
    value &= mask
    if operator == "+":
        return bits | value
    if operator == "-":
        return bits & ~value
    # As GNU's: the set-id bits of a directory stay unless they are named.
    kept = bits & 0o6000 if is_directory and "s" not in what else 0
    return bits & ~mask | value | kept & mask
