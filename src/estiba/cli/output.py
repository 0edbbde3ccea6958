"""Tables, formats and units as docker prints them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]


def print_rows(
    rows: Iterable[Row], columns: Sequence[tuple[str, str]], form: str, *, quiet_key: str = ""
) -> None:
    """Prints rows as a table of `columns` (title, key), by a template, or as JSON lines.

    `table TEMPLATE` makes a table of a template's fields.
    """
    listed = list(rows)
    if quiet_key:
        for row in listed:
            print(row[quiet_key])
    elif form == "json":
        import json

        for row in listed:
            print(json.dumps(row, separators=(",", ":")))
    elif form.startswith("table ") and form != "table":
        _print_template_table(listed, columns, form.removeprefix("table "))
    elif form and form != "table":
        from estiba.cli.template import compile_template

        run = compile_template(form)
        for row in listed:
            print(run(row))
    else:
        titles = [title for title, _ in columns]
        print_table(titles, [[str(row[key]) for _, key in columns] for row in listed])


def _print_template_table(
    rows: list[Row], columns: Sequence[tuple[str, str]], template: str
) -> None:
    from estiba.cli.template import compile_template

    run = compile_template(template)
    titles = {key: title for title, key in columns}
    keys = rows[0] if rows else titles
    head = run({key: titles.get(key, key.upper()) for key in keys})
    lines = [head, *(run(row) for row in rows)]
    cells = [line.split("\t") for line in lines]
    print_table(cells[0], cells[1:])


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns padded to the widest cell, three spaces apart."""
    lines = [titles, *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(titles))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        sys.stdout.write("   ".join(cells).rstrip() + "\n")


def human_size(size: float, *, digits: int = 4) -> str:
    """Decimal units with so many significant digits: `1.234MB`."""
    return _scaled(size, 1000.0, ("B", "kB", "MB", "GB", "TB", "PB"), digits)


def binary_size(size: float) -> str:
    """Binary units, as `stats` shows memory: `1.5MiB`."""
    return _scaled(size, 1024.0, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"), 4)


def _scaled(size: float, base: float, units: Sequence[str], digits: int) -> str:
    index = 0
    while size >= base and index < len(units) - 1:
        size /= base
        index += 1
    return f"{size:.{digits}g}{units[index]}"


def human_duration(seconds: float) -> str:
    """Docker's rough durations."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    if whole < 120:
        return "About a minute"
    if whole < 3600:
        return f"{whole // 60} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, unit, length in ((48, "hours", 1), (336, "days", 24), (1440, "weeks", 168)):
        if hours < limit:
            return f"{hours // length} {unit}"
    return f"{hours // 720} months" if hours < 17520 else f"{hours // 8760} years"


def ago(unix_time: float) -> str:
    return f"{human_duration(time.time() - unix_time)} ago"


def shorten(text: str, width: int) -> str:
    """At most `width` characters, the last one an ellipsis if something is missing."""
    return text if len(text) <= width else text[: width - 1] + "…"


def filters_of(words: list[str]) -> dict[str, Any] | None:
    """`--filter key=value` words as the API's map; None without any."""
    if not words:
        return None
    found: dict[str, dict[str, bool]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            from estiba.cli.parse import UsageError

            raise UsageError(f"invalid argument {word!r} for --filter: expected key=value")
        found.setdefault(key.strip().lower(), {})[value.strip()] = True
    return found
