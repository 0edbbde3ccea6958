"""`scripts/bench [TABLE…]`: the engines in turn; prints medians and ratios.

The tables are containers, images, builds, networks, volumes and names. A whole run of one is
written as JSON, as a plot, and into the README.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import shutil
import sys
from collections.abc import Iterator

from bench import builds, containers, dns, images, networks, volumes
from bench.material import FOLDER, RUN
from bench.rows import Table

_TABLES = {table.NAME: table for table in (containers, images, builds, networks, volumes, dns)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=" or ".join(_TABLES))
    parser.add_argument("--quick", action="store_true", help="fewer rounds: noisier")
    parser.add_argument("--only", action="append", metavar="NAME", help="only these rows")
    given = parser.parse_args()
    unknown = set(given.tables) - set(_TABLES)
    if unknown:
        parser.error(f"no such table: {', '.join(unknown)}; there are {', '.join(_TABLES)}")
    try:
        with alone():
            for name in given.tables or _TABLES:
                chosen = _TABLES[name]
                table = Table(name, chosen.COLUMNS, frozenset(given.only or ()), given.quick)
                notes = chosen.measure(table, RUN / name)
                table.write(notes)
    except RuntimeError as error:
        sys.exit(f"error: {error}")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Raises RuntimeError while another run is under way."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("another run is under way: wait for its end") from None
        shutil.rmtree(RUN, ignore_errors=True)
        try:
            yield
        finally:
            shutil.rmtree(RUN, ignore_errors=True)


if __name__ == "__main__":
    main()
