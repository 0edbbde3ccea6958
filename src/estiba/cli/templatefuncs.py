"""The functions of templates, and how Go prints values."""

from __future__ import annotations

from estiba.client.jsonlite import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_POINTERS = frozenset(
    "Health Healthcheck Init MemorySwappiness OomKillDisable PidsLimit StopTimeout "
    "UsageData ClusterVolume Platform".split()
)
_MAPS = frozenset("Labels Annotations Options Volumes ExposedPorts PortBindings Tmpfs".split())


class TemplateError(Exception):
    """A template that fails on a value."""


class Missing:
    """A field that an object does not have: false in a condition, an error when it is shown.

    It is `allowed` where the keys are the users'.
    """

    def __init__(self, name: str, *, allowed: bool = False) -> None:
        self.name = name
        self.allowed = allowed


def show(value: Any, field: str = "") -> str:
    """A value as Go's fmt prints it. `field` tells what kind of nothing a null is."""
    if isinstance(value, Missing):
        if value.allowed:
            return "<no value>"
        raise TemplateError(f'map has no entry for key "{value.name}"')
    if value is None:
        if not field:
            return "<no value>"
        return "<nil>" if field in _POINTERS else "map[]" if field in _MAPS else "[]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, list):
        return f"[{' '.join(show(item) for item in value)}]"
    if isinstance(value, dict):
        items = ((key, item) for key, item in sorted(value.items()) if not callable(item))
        return f"map[{' '.join(f'{key}:{show(item)}' for key, item in items)}]"
    return str(value)


def _float(value: float) -> str:
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return repr(value)


def truth(value: Any) -> bool:
    return bool(value) and not isinstance(value, Missing)


def _json(value: Any) -> str:
    if isinstance(value, Missing):
        raise TemplateError(f'map has no entry for key "{value.name}"')
    if isinstance(value, dict) and any(callable(item) for item in value.values()):
        # A row of a list: its data, in the order of the keys.
        rows = {key: value[key] for key in sorted(value) if not callable(value[key])}
        return dumps(rows, html=True)
    return dumps(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            texts = value and all(isinstance(item, str) for item in value.values())
            value = value.get(key, "" if texts else None)
        elif value is None:
            raise ValueError("index of untyped nil")
        else:
            if not 0 <= key < len(value):
                raise ValueError(f"index out of range: {key}")
            value = value[key]
    return value


def _slice(value: Any, *bounds: int) -> Any:
    low, high = (*bounds, 0, len(value))[0] if bounds else 0, len(value)
    if len(bounds) > 1:
        high = bounds[1]
    if not 0 <= low <= high <= len(value):
        raise ValueError(f"index out of range: {max(low, high)}")
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


def _printf(form: str, *values: Any) -> str:
    """%s %v %d %f %g %x %q %t %% with flags, widths and precisions."""
    import re

    rest = list(values)

    def replace(match: re.Match[str]) -> str:
        flags, verb = match[1], match[2]
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        value = rest.pop(0)
        if verb in "dxXofgeE" and isinstance(value, int | float):
            return str(f"%{flags}{verb}" % value)
        shown = dumps(value) if verb == "q" else show(value)
        return str(f"%{flags.replace('0', '', 1) if flags[:1] == '0' else flags}s" % shown)

    return re.sub(r"%([-+# 0]*\d*(?:\.\d+)?)([a-zA-Z%])", replace, form)


def _compared(value: Any, other: Any) -> None:
    numbers = isinstance(value, int | float) and isinstance(other, int | float)
    if not numbers and type(value) is not type(other):
        raise ValueError("incompatible types for comparison")


def _eq(first: Any, *others: Any) -> bool:
    if not others:
        raise ValueError("missing argument for comparison")
    for other in others:
        if first is not None and other is not None:
            _compared(first, other)
    return any(first == other for other in others)


def _order(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(value: Any, other: Any) -> bool:
        _compared(value, other)
        return test(value, other)

    return compare


def _and(*values: Any) -> Any:
    return next((value for value in values if not truth(value)), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if truth(value)), values[-1])


def _len(value: Any) -> int:
    if value is None or isinstance(value, str | list | dict):
        return len(value.encode() if isinstance(value, str) else value or [])
    raise ValueError(f"len of {show(value)}")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "join": lambda values, separator="": separator.join(show(value) for value in values or []),
    "split": lambda text, separator: text.split(separator),
    "upper": lambda text: text.upper(),
    "lower": lambda text: text.lower(),
    "title": _title,
    "truncate": lambda text, size: text[:size],
    "pad": lambda text, before, after: f"{' ' * before}{text}{' ' * after}" if text else text,
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "print": _print,
    "printf": _printf,
    "len": _len,
    "index": _index,
    "slice": _slice,
    "eq": _eq,
    "ne": lambda value, other: not _eq(value, other),
    "lt": _order(lambda value, other: bool(value < other)),
    "le": _order(lambda value, other: bool(value <= other)),
    "gt": _order(lambda value, other: bool(value > other)),
    "ge": _order(lambda value, other: bool(value >= other)),
    "and": _and,
    "or": _or,
    "not": lambda value: not truth(value),
}
