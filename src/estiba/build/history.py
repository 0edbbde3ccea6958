"""How steps appear in an image's history: in BuildKit's words, which tools read back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from estiba.model.container import HealthConfig
from estiba.model.times import go_duration

COMMENT = "buildkit.dockerfile.v0"
"""The form of `created_by`, by the name that tools know it by."""

_SUFFIX = " # buildkit"

_REPLACED = "\ufffd"
_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def go_quoted(text: str) -> str:
    """As Go's %q of a string."""
    return f'"{"".join(_escaped(char, chr(34)) for char in text)}"'


def _escaped(char: str, quote: str) -> str:
    code = ord(char)
    if char in (quote, "\\"):
        return f"\\{char}"
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    if code < 128:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def go_list(words: Iterable[str]) -> str:
    """As Go prints a list with %q."""
    return f"[{' '.join(go_quoted(word) for word in words)}]"


def shell(words: Sequence[str]) -> str:
    return f"SHELL [{' '.join(words)}]"


def health(check: HealthConfig) -> str:
    spans = [check.interval, check.timeout, check.start_period, check.start_interval]
    times = " ".join(f'"{go_duration(span)}"' for span in spans)
    return f"&{{{go_list(check.test)} {times} {_go_rune(check.retries)}}}"


def _go_rune(code: int) -> str:
    """A number printed with %q, as what Go's struct of a health check comes to."""
    is_one = 0 <= code < 0x110000 and not 0xD800 <= code < 0xE000
    return f"'{_escaped(chr(code) if is_one else _REPLACED, chr(39))}'"


def run(argv: Sequence[str], args: Sequence[tuple[str, str]]) -> str:
    """`args` are the build arguments that the step uses."""
    told = [f"|{len(args)}", *(f"{name}={value}" for name, value in args)] if args else []
    return f"RUN {' '.join([*told, *argv])}{_SUFFIX}"


def files(keyword: str, flags: Sequence[str], sources: Sequence[str], destination: str) -> str:
    return f"{' '.join([keyword, *flags, *sources, destination])}{_SUFFIX}"
