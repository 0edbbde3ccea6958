"""Tables, formats and units as docker prints them."""

from __future__ import annotations

import sys
import time

from estiba.cli.parse import FlagError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, TextIO

_CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "\ufffd")
_LEAST_WIDTH = 10
_GAP = 3


def print_rows(
    rows: Iterable[dict[str, Any]],
    columns: Sequence[tuple[str, str]],
    form: str,
    *,
    quiet_key: str = "",
    titles: dict[str, str] | None = None,
    raw: str = "",
) -> None:
    """Prints rows as a table of `columns` (title, key), by a template, or as JSON lines.

    `titles` are those of further keys that `table TEMPLATE` may use. Values that are functions
    are methods of the row: `.Label "x"`. `raw` names the keys that `--format raw` shows.
    """
    form = form.strip(" ")
    if form == "raw" and raw:
        form = _raw_template(raw, quiet_key)
    if quiet_key and form in ("", "table"):
        for row in rows:
            print(row[quiet_key])
    elif form in ("", "table"):
        print_table(
            [title for title, _ in columns], [[row[key] for _, key in columns] for row in rows]
        )
    elif form == "json":
        from estiba.client.jsonlite import dumps

        for row in rows:
            print(dumps(plain(row), html=True))
    elif form.startswith("table"):
        known = {key: title for title, key in columns} | (titles or {})
        _print_template_table(rows, known, form.removeprefix("table").strip())
    else:
        from estiba.cli.template import compile_template

        run = compile_template(escapes(form), rows=True)
        from estiba.cli.templatevalue import Row

        for row in rows:
            print(run(Row(row)))


def _raw_template(raw: str, quiet_key: str) -> str:
    """`name: {{.Name}}` a line, an empty line after each row; `image_id=ID` gives a key's name."""
    words = [word.partition("=")[::2] for word in raw.split()]
    lines = [f"{name}: {{{{.{key}}}}}" for name, key in words if not quiet_key or key == quiet_key]
    # What is empty leaves no space behind.
    text = "\n".join(lines) + ("" if quiet_key else "\n")
    for key in ("Labels", "Ports"):
        text = text.replace(f": {{{{.{key}}}}}", f":{{{{if .{key}}}}} {{{{.{key}}}}}{{{{end}}}}")
    return text


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row's data in order of the keys, as Go prints a map."""
    return {key: row[key] for key in sorted(row) if not callable(row[key])}


def escapes(form: str) -> str:
    """`\\t` and `\\n` as typed in a shell."""
    return form.replace("\\t", "\t").replace("\\n", "\n")


def _print_template_table(
    rows: Iterable[dict[str, Any]], titles: dict[str, str], form: str
) -> None:
    from estiba.cli.template import compile_template
    from estiba.cli.templatevalue import Row

    run = compile_template(escapes(form), rows=True)
    listed = list(rows)
    head: dict[str, Any] = {key: _title(key) for row in listed[:1] for key in row} | titles
    # `.Label "com.example.some-name"` is a column of its own: `some name`.
    head["Label"] = lambda name: name.rpartition(".")[2].replace("-", " ").replace("_", " ")
    lines = [run(Row(head)), *(run(Row(row)) for row in listed)]
    align([line.split("\t") for line in lines])


def _title(key: str) -> str:
    """`CreatedAt` is `CREATED AT`."""
    text = "".join(f" {letter}" if letter.isupper() else letter for letter in key)
    return key if key.isupper() else text.strip().upper()


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]], least: int = 10) -> None:
    align([titles, *rows], least)


def align(lines: Sequence[Sequence[str]], least: int = _LEAST_WIDTH) -> None:
    """Columns as wide as their widest cell and a gap, the last one as it is."""
    widths: list[int] = []
    for line in lines:
        for index, cell in enumerate(line[:-1]):
            if index == len(widths):
                widths.append(least)
            widths[index] = max(widths[index], len(cell) + _GAP)
    write = sys.stdout.write
    for line in lines:
        for cell, width in zip(line[:-1], widths, strict=False):
            write(cell.ljust(width))
        write(f"{line[-1]}\n")


def human_size(size: float, digits: int = 4) -> str:
    """Decimal units with so many significant digits: `1.234MB`."""
    return _scaled(size, 1000.0, ("B", "kB", "MB", "GB", "TB", "PB", "EB"), digits)


def binary_size(size: float) -> str:
    """Binary units, as `stats` shows memory: `1.5MiB`."""
    return _scaled(size, 1024.0, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"), 4)


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
    for limit, unit, length in (
        (48, "hours", 1),
        (24 * 14, "days", 24),
        (24 * 60, "weeks", 168),
        (24 * 730, "months", 720),
    ):
        if hours < limit:
            return f"{hours // length} {unit}"
    return f"{hours // 8760} years"


def ago(unix_time: float) -> str:
    return f"{human_duration(time.time() - unix_time)} ago"


def local_time(unix_time: float) -> str:
    """As Go prints a time: `2026-11-24 11:42:04 +0000 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(unix_time))


def go_time(text: str) -> str:
    """RFC 3339 of the API as Go prints a time."""
    date, _, rest = text.partition("T")
    digits = len(rest) - len(rest.lstrip("0123456789:."))
    clock, zone = rest[:digits], rest[digits:].replace(":", "")
    if "." in clock:
        clock = clock.rstrip("0").rstrip(".")
    return f"{date} {clock} {'+0000 UTC' if zone in ('Z', '') else f'{zone} {zone}'}"


def shorten(text: str, width: int) -> str:
    """At most `width` characters, the last one an ellipsis if something is missing."""
    return text if len(text) <= width else text[: width - 1] + "…"


def shown_on(out: TextIO, text: str) -> str:
    """On a terminal without control characters: a registry's words may come from anybody."""
    return text.translate(_CONTROLS) if out.isatty() else text


def short_id(text: str) -> str:
    return text.removeprefix("sha256:")[:12]


def key_values(texts: dict[str, str] | None) -> str:
    """Labels on one line."""
    return ",".join(f"{key}={value}" for key, value in sorted((texts or {}).items()))


def filters_of(words: list[str], flag: str = "-f, --filter") -> dict[str, dict[str, bool]] | None:
    """`--filter key=value` words as the API's map; None without any. Raises FlagError."""
    found: dict[str, dict[str, bool]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise FlagError(
                f'invalid argument "{word}" for "{flag}" flag: '
                "bad format of filter (expected name=value)"
            )
        found.setdefault(key.strip().lower(), {})[value.strip()] = True
    return found or None


def confirm(warning: str, *, gap: str = "\n") -> bool:
    """Asks on the terminal."""
    print(f"WARNING! {warning}{gap}Are you sure you want to continue? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def each(names: list[str], action: Callable[[str], object], *, shown: bool = True) -> int:
    """Does it for every name and prints those that worked; 1 when one failed.

    Raises NoDaemon: what fails for one for that reason fails for all.
    """
    from estiba.client.errors import ApiError, ClientError, NoDaemon

    code = 0
    for name in names:
        try:
            action(name)
        except NoDaemon:
            raise
        except ClientError as error:
            prefix = "Error response from daemon: " if isinstance(error, ApiError) else ""
            sys.stdout.flush()
            print(f"{prefix}{error}", file=sys.stderr)
            code = 1
        else:
            if shown:
                print(name)
    return code


def pairs(texts: list[str], flag: str) -> dict[str, str]:
    """KEY=VALUE words. Raises FlagError naming the flag."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise FlagError(
                f'invalid argument "{text}" for "{flag}" flag: {text} must be formatted as '
                "key=value"
            )
        found[key] = value
    return found


def labels_of(texts: list[str]) -> dict[str, str]:
    """Labels may come without a value."""
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def moment(text: str, flag: str) -> str | None:
    """What the API takes for `--since` and `--until`. Raises UsageError."""
    if not text:
        return None
    from estiba.cli.quantities import timestamp

    try:
        return timestamp(text)
    except ValueError as error:
        raise UsageError(f'invalid value for "{flag}": {error}') from None
