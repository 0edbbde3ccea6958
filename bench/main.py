"""`scripts/bench [containers] [images]`: the engines in turn; prints medians and ratios.

A whole run of a table is written as JSON, as a plot, and into the README.
"""

from __future__ import annotations

import argparse
import sys

from bench import containers, images
from bench.rows import Table

_TABLES = {table.NAME: table for table in (containers, images)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=" or ".join(_TABLES))
    parser.add_argument("--quick", action="store_true", help="fewer rounds: noisier")
    parser.add_argument("--only", action="append", metavar="NAME", help="only these rows")
    given = parser.parse_args()
    unknown = set(given.tables) - set(_TABLES)
    if unknown:
        parser.error(f"no such table: {', '.join(unknown)}; there are {', '.join(_TABLES)}")
    for name in given.tables or _TABLES:
        chosen = _TABLES[name]
        table = Table(name, chosen.COLUMNS, frozenset(given.only or ()), given.quick)
        try:
            notes = chosen.measure(table)
        except RuntimeError as error:
            sys.exit(f"error: {error}")
        table.write(notes)


if __name__ == "__main__":
    main()
