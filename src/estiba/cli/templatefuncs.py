"""The functions of templates: Go's own, and those that docker adds."""

from __future__ import annotations

from estiba.cli.goformat import sprintf
from estiba.cli.templatevalue import Missing, Row, TemplateError, go_type, show, truth
from estiba.client.jsonlite import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
_HTML = {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"'}
_JS_CODES = frozenset("<>&=")


class Function:
    """A function and how many arguments it takes; `most` is None without a limit."""

    __slots__ = ("call", "least", "most")

    def __init__(self, call: Callable[..., Any], least: int, most: int | None) -> None:
        self.call = call
        self.least = least
        self.most = most

    def check(self, name: str, count: int) -> None:
        """Raises TemplateError in Go's words."""
        if self.most == self.least != count:
            raise TemplateError(
                f"wrong number of args for {name}: want {self.least} got {count}"
            )  # fmt: skip
        if count < self.least:
            raise TemplateError(
                f"wrong number of args for {name}: want at least {self.least} got {count}"
            )
        if self.most is not None and count > self.most:
            raise TemplateError(
                f"wrong number of args for {name}: want at most {self.most} got {count}"
            )


def _json(value: Any) -> str:
    if isinstance(value, Missing):
        raise TemplateError(f'map has no entry for key "{value.name}"')
    rows = list(value.values()) if isinstance(value, dict) else value
    nested = isinstance(rows, list) and (_has_rows(rows) or any(map(_has_rows, rows)))
    if isinstance(value, Row) or nested:
        return dumps(_plain(value), html=True)
    return dumps(value)


def _has_rows(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, Row) for item in value)


def _plain(value: Any) -> Any:
    """Rows without their methods, in the order of their keys."""
    if isinstance(value, Row):
        return {key: value[key] for key in sorted(value) if not callable(value[key])}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            texts = value and all(isinstance(item, str) for item in value.values())
            value = value.get(key, "" if texts else None)
        elif value is None:
            raise ValueError("index of untyped nil")
        elif not isinstance(value, list | str):
            raise ValueError(f"can't index item of type {go_type(value)}")
        elif not isinstance(key, int) or isinstance(key, bool):
            raise ValueError(f"cannot index slice/array with type {go_type(key)}")
        else:
            if not 0 <= key < len(value):
                raise ValueError(f"index out of range: {key}")
            value = ord(value[key]) if isinstance(value, str) else value[key]
    return value


def _slice(value: Any, *bounds: int) -> Any:
    if not isinstance(value, list | str):
        raise ValueError(f"can't slice item of type {go_type(value)}")
    low = bounds[0] if bounds else 0
    high = bounds[1] if len(bounds) > 1 else len(value)
    for bound in (low, high):
        if not 0 <= bound <= len(value):
            raise ValueError(f"index out of range: {bound}")
    if low > high:
        raise ValueError(f"invalid slice index: {low} > {high}")
    return value[low:high]


def _title(text: str) -> str:
    """The first letter of each word, the rest as it is."""
    before = [" ", *text]
    return "".join(
        letter.upper() if not (last.isalnum() or last in "_'") else letter
        for last, letter in zip(before, text, strict=False)
    )


def _print(*values: Any) -> str:
    """Go's Sprint: a space between two that are no strings."""
    text = ""
    for index, value in enumerate(values):
        previous = values[index - 1] if index else ""
        if index and not isinstance(value, str) and not isinstance(previous, str):
            text += " "
        text += show(value)
    return text


def _kind(value: Any) -> str:
    """Go compares values of one basic kind only."""
    name = go_type(value)
    return name if name in ("bool", "int", "float64", "string") else ""


def _eq(first: Any, *others: Any) -> bool:
    if not others:
        raise ValueError("missing argument for comparison")
    for other in others:
        if first is None or other is None:
            continue
        if not _kind(first) or not _kind(other):
            raise ValueError("non-comparable type")
        if _kind(first) != _kind(other):
            raise ValueError("incompatible types for comparison")
    return any(first == other for other in others)


def _order(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(value: Any, other: Any) -> bool:
        if not _kind(value) or _kind(value) != _kind(other):
            raise ValueError("incompatible types for comparison")
        return test(value, other)

    return compare


def _len(value: Any) -> int:
    if value is None or isinstance(value, str | list | dict):
        return len(value.encode() if isinstance(value, str) else value or [])
    raise ValueError(f"len of type {go_type(value)}")


def _join(values: Any, separator: str) -> str:
    if not isinstance(values, list | None):
        raise ValueError(f"wrong type: a list is wanted, not {go_type(values)}")
    return separator.join(show(value) for value in values or [])


def _text(function: Callable[..., Any]) -> Callable[..., Any]:
    """For functions of a string."""

    def call(text: Any, *rest: Any) -> Any:
        if not isinstance(text, str):
            raise TypeError(f"wrong type: a string is wanted, not {go_type(text)}")
        return function(text, *rest)

    return call


def _js(*values: Any) -> str:
    def one(letter: str) -> str:
        if letter in _JS:
            return _JS[letter]
        plain = letter.isprintable() and letter not in _JS_CODES
        return letter if plain else f"\\u{ord(letter):04X}"

    return "".join(one(letter) for letter in _print(*values))


def _urlquery(*values: Any) -> str:
    data = _print(*values).encode(errors="surrogateescape")
    return "".join(
        chr(byte) if chr(byte) in _UNRESERVED else "+" if byte == 32 else f"%{byte:02X}"
        for byte in data
    )


def _call(function: Any, *arguments: Any) -> Any:
    if not callable(function):
        raise ValueError(f"non-function of type {go_type(function)}")
    return function(*arguments)


def _lazy(*values: Any) -> Any:
    """`and` and `or` look at no more than they need: `template` evaluates them."""
    return values[-1]


LAZY = {"and": False, "or": True}
"""What ends the search, by name."""

FUNCTIONS: dict[str, Function] = {
    "and": Function(_lazy, 1, None),
    "call": Function(_call, 1, None),
    "eq": Function(_eq, 1, None),
    "ge": Function(_order(lambda value, other: bool(value >= other)), 2, 2),
    "gt": Function(_order(lambda value, other: bool(value > other)), 2, 2),
    "html": Function(
        lambda *values: "".join(_HTML.get(c, c) for c in _print(*values)), 0, None
    ),
    "index": Function(_index, 1, None),
    "join": Function(_join, 2, 2),
    "js": Function(_js, 0, None),
    "json": Function(_json, 1, 1),
    "le": Function(_order(lambda value, other: bool(value <= other)), 2, 2),
    "len": Function(_len, 1, 1),
    "lower": Function(_text(str.lower), 1, 1),
    "lt": Function(_order(lambda value, other: bool(value < other)), 2, 2),
    "ne": Function(lambda value, other: not _eq(value, other), 2, 2),
    "not": Function(lambda value: not truth(value), 1, 1),
    "or": Function(_lazy, 1, None),
    "pad": Function(
        _text(lambda text, before, after: f"{' ' * before}{text}{' ' * after}" if text else text),
        3, 3,
    ),
    "print": Function(_print, 0, None),
    "printf": Function(_text(sprintf), 1, None),
    "println": Function(lambda *values: " ".join(show(value) for value in values) + "\n", 0, None),
    "slice": Function(_slice, 1, 4),
    "split": Function(_text(str.split), 2, 2),
    "title": Function(_text(_title), 1, 1),
    "truncate": Function(_text(lambda text, size: text[:size]), 2, 2),
    "upper": Function(_text(str.upper), 1, 1),
    "urlquery": Function(_urlquery, 0, None),
}  # fmt: skip
