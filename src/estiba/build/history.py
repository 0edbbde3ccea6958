"""How steps appear in an image's history: in BuildKit's words, which tools read back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from estiba.model.container import HealthConfig
from estiba.model.times import go_duration

COMMENT = "buildkit.dockerfile.v0"
"""The form of `created_by`, by the name that tools know it by."""

_SUFFIX = " # buildkit"


def go_quoted(text: str) -> str:
    """As Go's %q."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r",
               "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}  # fmt: skip
    pieces = []
    for char in text:
        if char in escapes:
            pieces.append(escapes[char])
        elif char.isprintable():
            pieces.append(char)
        else:
            code = ord(char)
            pieces.append(f"\\x{code:02x}" if code < 128 else f"\\u{code:04x}")
    return f'"{"".join(pieces)}"'


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
    if code >= 0x110000 or 0xD800 <= code < 0xE000:
        return "'\ufffd'"
    char = chr(code)
    if char in "'\\":
        return f"'\\{char}'"
    return f"'{char}'" if char == '"' else f"'{go_quoted(char)[1:-1]}'"


def run(argv: Sequence[str], args: Sequence[tuple[str, str]]) -> str:
    """`args` are the build arguments that the step uses."""
    told = [f"|{len(args)}", *(f"{name}={value}" for name, value in args)] if args else []
    return f"RUN {' '.join([*told, *argv])}{_SUFFIX}"


def files(keyword: str, flags: Sequence[str], sources: Sequence[str], destination: str) -> str:
    return f"{' '.join([keyword, *flags, *sources, destination])}{_SUFFIX}"
