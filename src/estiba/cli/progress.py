"""The daemon's progress streams: docker's plain lines on a pipe, bars on a terminal."""

from __future__ import annotations

import os
import sys

from estiba.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO

_UNAUTHORIZED = 401


def show_progress(lines: Iterable[Any], *, quiet: bool = False, err: bool = False) -> None:
    """Shows a stream until its end. Raises ClientError when it reports a failure."""
    out = sys.stderr if err else sys.stdout
    if quiet:
        for line in lines:
            _check(line)
    elif out.isatty() and os.environ.get("TERM") != "dumb":
        _show_bars(lines, out)
    else:
        for line in lines:
            _check(line)
            _print_plain(line, out)


def _check(line: dict[str, Any]) -> None:
    """Raises ClientError for a line that reports a failure."""
    detail = line.get("errorDetail")
    if not detail and not line.get("error"):
        return
    detail = detail if isinstance(detail, dict) else {}
    if detail.get("code") == _UNAUTHORIZED:
        raise ClientError("authentication is required")
    raise ClientError(str(detail.get("message") or line.get("error") or "unknown error"))


def _print_plain(line: dict[str, Any], out: TextIO) -> None:
    """Docker's text of a message; how far it is does not stand on a line of its own."""
    if "aux" in line:
        return
    detail = line.get("progressDetail") or {}
    if detail.get("current", 0) > 0 or detail.get("total", 0) > 0:
        return
    out.write(plain_text(line))
    out.flush()


def plain_text(line: dict[str, Any]) -> str:
    """With the newline, but for pieces of a program's output."""
    name = f"{line['id']}: " if line.get("id") else ""
    source = f"(from {line['from']}) " if line.get("from") else ""
    if line.get("stream"):
        return f"{name}{source}{line['stream']}"
    status = line.get("status", "")
    if line.get("progress"):
        return f"{name}{source}{status} {line['progress']}"
    return f"{name}{source}{status}\n"


def _show_bars(lines: Iterable[Any], out: TextIO) -> None:
    from estiba.cli.bars import Bars
    from estiba.cli.output import shown_on

    with Bars(out) as bars:
        for line in lines:
            _check(line)
            if "aux" in line:
                continue
            if line.get("id") and "progressDetail" in line:
                name, status = (shown_on(out, str(line.get(key, ""))) for key in ("id", "status"))
                bars.update(name, status, line["progressDetail"] or {})
            else:
                bars.write(shown_on(out, plain_text(line)))
