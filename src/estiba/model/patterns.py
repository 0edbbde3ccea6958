"""Regular expressions of clients, as Docker has them in filters and log options. Pure.

Go's take a time that grows with the text; Python's may take for ever, and the engine stands still
meanwhile. So those that might are refused: what repeats a group, and what has many choices.
"""

from __future__ import annotations

import re

from estiba.model.errors import InvalidArgument

_MAX_PATTERN, _MAX_NAME = 1024, 256
_UNHURRIED = re.compile(r"\)[*+{]|\(\?|\\[1-9]")
_REPEATS, _CHOICES = re.compile(r"[*+{]"), re.compile(r"[?|]")
_MAX_REPEATS, _MAX_CHOICES = 2, 8


def matches(pattern: str, name: str) -> bool:
    """Whether the pattern is found in the name; what is no regular expression is taken as it is.

    Raises InvalidArgument for one that could take long.
    """
    if len(pattern) > _MAX_PATTERN or len(name) > _MAX_NAME:
        return pattern == name
    check_pattern(pattern)
    try:
        return re.search(pattern, name) is not None
    except (re.error, RecursionError, OverflowError):
        return pattern in name


def check_pattern(pattern: str) -> None:
    """Raises InvalidArgument for one that could take long."""
    if (
        _UNHURRIED.search(pattern)
        or len(_REPEATS.findall(pattern)) > _MAX_REPEATS
        or len(_CHOICES.findall(pattern)) > _MAX_CHOICES
    ):
        raise InvalidArgument(
            f"the pattern {pattern[:64]!r} could take long: repeat no group, and use at most "
            f"{_MAX_REPEATS} of * and + and {_MAX_CHOICES} of ? and |"
        )
