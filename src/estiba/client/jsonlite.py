"""JSON for the fast path: reads through CPython's C scanner, writes with a few lines.

Importing the standard `json` costs 10 ms (it compiles regular expressions), half of what a whole
`estiba ps` takes. The scanner underneath it is a C type that stands alone.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_WHITESPACE = " \t\r\n"


class _Settings:
    """What the C scanner asks of its maker."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _scanner() -> Callable[[str, int], tuple[Any, int]]:
    """From text and position to a value and where it ends."""
    try:
        from _json import make_scanner
    except ImportError:  # an interpreter other than CPython
        from json import JSONDecoder

        return JSONDecoder(strict=False).raw_decode
    settings: Any = _Settings()
    return make_scanner(settings)


def _encoder() -> Callable[[str], str]:
    try:
        from _json import encode_basestring
    except ImportError:
        from json.encoder import encode_basestring
    return encode_basestring


_scan = _scanner()
_quoted = _encoder()


def loads(data: bytes | str) -> Any:
    """Raises ValueError for what is no JSON."""
    text = (data.decode() if isinstance(data, bytes) else data).strip(_WHITESPACE)
    try:
        value, end = _scan(text, 0)
    except StopIteration as stop:
        raise ValueError(f"no JSON value at position {stop.value}") from None
    if end != len(text):
        raise ValueError(f"more than one JSON value: position {end}")
    return value


def dumps(value: Any, *, indent: str = "", html: bool = False) -> str:
    """Compact, or one item a line; `html` escapes <, > and & as Go's encoder does."""
    text = _dump(value, indent, "\n" + indent if indent else "")
    if html:
        for character in "<>&":
            text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _dump(value: Any, indent: str, newline: str) -> str:
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, int | float):
        return repr(value)
    colon = ": " if indent else ":"
    deeper = newline + indent if newline else ""
    if isinstance(value, dict):
        items = [
            f"{_quoted(str(key))}{colon}{_dump(item, indent, deeper)}"
            for key, item in value.items()
        ]
        opening, closing = "{", "}"
    else:
        items = [_dump(item, indent, deeper) for item in value]
        opening, closing = "[", "]"
    if not items:
        return opening + closing
    outer = newline[: len(newline) - len(indent)] if newline else ""
    return f"{opening}{newline}{f',{newline}'.join(items)}{outer}{closing}"
