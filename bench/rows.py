"""The tables: rows measured in turn, printed, written as JSON, plot and Markdown."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
FAILURES = (RuntimeError, OSError, subprocess.CalledProcessError)

S = TypeVar("S")


@dataclass(frozen=True)
class Goal:
    """What is aimed at: a bound of the ratio to the peer, or of a value of our own."""

    bound: float
    kind: str = "ratio at most"

    def reached(self, row: Row) -> bool:
        if row.estiba is None:
            return False
        if self.kind in ("bytes at most", "seconds at most"):
            return row.estiba <= self.bound
        if self.kind == "rate at least":
            return row.estiba >= self.bound
        if row.ratio is None:
            return False
        return row.ratio <= self.bound if self.kind == "ratio at most" else row.ratio >= self.bound

    def __str__(self) -> str:
        if self.kind == "bytes at most":
            return f"≤ {self.bound / 1e6:.0f} MB"
        if self.kind == "seconds at most":
            return f"≤ {self.bound * 1e3:g} ms"
        if self.kind == "rate at least":
            return f"≥ {self.bound:,.0f}/s"
        return f"{'≤' if self.kind == 'ratio at most' else '≥'} {self.bound:g}"


def at_most(ratio: float) -> Goal:
    return Goal(ratio)


def at_least(ratio: float) -> Goal:
    return Goal(ratio, "ratio at least")


def bytes_at_most(bound: float) -> Goal:
    return Goal(bound, "bytes at most")


def seconds_at_most(bound: float) -> Goal:
    return Goal(bound, "seconds at most")


def rate_at_least(bound: float) -> Goal:
    return Goal(bound, "rate at least")


@dataclass(frozen=True)
class Row:
    """One line of a table: medians in its unit (s, B, B/s, 1/s); None where there is none."""

    name: str
    title: str
    unit: str
    estiba: float | None
    peer: float | None
    other: float | None
    goal: Goal
    rounds: int

    @property
    def ratio(self) -> float | None:
        return self.estiba / self.peer if self.estiba is not None and self.peer else None

    @property
    def verdict(self) -> str:
        return "ok" if self.goal.reached(self) else "MISSED"

    def shown(self, value: float | None) -> str:
        """A value with its unit; `-` where there is none."""
        if value is None:
            return "-"
        if self.unit == "B":
            return f"{value / 1e6:.0f} MB"
        if self.unit == "B/s":
            return f"{value / 1e6:.0f} MB/s"
        if self.unit == "1/s":
            return f"{value:,.0f}/s"
        return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"

    def text(self) -> str:
        columns = "".join(
            f"{self.shown(value):>12}" for value in (self.estiba, self.peer, self.other)
        )
        ratio = "-" if self.ratio is None else f"{self.ratio:.3f}"
        return f"{self.title:<48}{columns}{ratio:>8}  {self.goal!s:>8} {self.verdict}"

    def as_json(self) -> dict[str, object]:
        goal = {"goal": str(self.goal), "ratio": self.ratio, "verdict": self.verdict}
        return {**asdict(self), **goal}


@dataclass
class Table:
    """Rows of one kind; `columns` names the engines, `only` and `quick` are the caller's choice."""

    name: str
    columns: tuple[str, ...]
    only: frozenset[str] = frozenset()
    quick: bool = False
    rows: list[Row] = field(default_factory=list)

    def wants(self, *names: str) -> bool:
        return not self.only or bool(self.only & set(names))

    def header(self) -> None:
        columns = "".join(f"{name:>12}" for name in ("estiba", "peer", "other"))
        print(f"{self.name:<48}{columns}{'ratio':>8}  {'target':>8}", flush=True)

    def row(
        self,
        name: str,
        title: str,
        goal: Goal,
        rounds: int,
        work: Callable[[S, int], float],
        subjects: tuple[S | None, ...],
        *,
        theirs: Callable[[S, int], float] | None = None,
        unit: str = "s",
    ) -> None:
        """Takes the subjects (ours, the peer, another) in turn; `work` gets the round's number.

        One that fails is left out from then on, and its value with it.
        """
        if not self.wants(name):
            return
        count = max(1, rounds // 3) if self.quick else rounds
        values: list[list[float]] = [[] for _ in subjects]
        working = [
            index for index, subject in enumerate(subjects)
            if subject is not None and not (theirs is not None and index > 1)
        ]  # fmt: skip
        for number in range(count):
            # The peer first: what is slow only the first time is not ours to gain from.
            for index in sorted(working, key=lambda place: (place == 0, place)):
                subject = subjects[index]
                assert subject is not None
                chosen = theirs if theirs is not None and index == 1 else work
                try:
                    values[index].append(chosen(subject, number))
                except FAILURES as error:
                    print(f"{name}: {self.columns[index]} fails: {error}", flush=True)
                    values[index].clear()
                    working.remove(index)
        medians = [statistics.median(taken) if taken else None for taken in values]
        medians += [None] * (3 - len(medians))
        self.rows.append(Row(name, title, unit, medians[0], medians[1], medians[2], goal, count))
        print(self.rows[-1].text(), flush=True)

    # -- what is kept ----------------------------------------------------------------------

    def write(self, notes: dict[str, str]) -> None:
        """The whole table, in place of the last one; not for a part of it."""
        if self.only or self.quick:
            print("nothing was written: only a whole run is")
            return
        RESULTS.mkdir(exist_ok=True)
        facts = {
            "taken": datetime.now(UTC).isoformat(timespec="seconds"),
            "kernel": platform.release(),
            "cpus": os.cpu_count(),
            "columns": self.columns,
            **notes,
            "rows": [row.as_json() for row in self.rows],
        }
        (RESULTS / f"{self.name}.json").write_text(json.dumps(facts, indent=2) + "\n")
        self._plot()
        begin, end = f"<!-- figures: {self.name} -->", f"<!-- end of figures: {self.name} -->"
        before, found, rest = README.read_text().partition(begin)
        if not found:
            raise RuntimeError(f"README.md has no place for this table: {begin}")
        after = rest.partition(end)[2]
        README.write_text(f"{before}{begin}\n{self.markdown()}\n{end}{after}")

    def markdown(self) -> str:
        names = (*self.columns, "ratio", "target")
        lines = [f"| work | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for row in self.rows:
            values = (row.estiba, row.peer, row.other)[: len(self.columns)]
            ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
            missed = "" if row.verdict == "ok" else " (missed)"
            cells = (row.title, *map(row.shown, values), f"{ratio}{missed}", str(row.goal))
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    def _plot(self) -> None:
        import matplotlib as mpl

        mpl.use("svg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(8, 0.5 * len(self.rows) + 1))
        positions = range(len(self.rows))
        # From one, which is as fast as the peer, on a scale where half and twice are as far off.
        lengths = [(row.ratio or 1) - 1 for row in self.rows]
        axes.barh(positions, lengths, left=1, color="#3b7ea1")
        axes.set_xscale("log")
        axes.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
        axes.minorticks_off()
        for place, row in zip(positions, self.rows, strict=True):
            if row.goal.kind.startswith("ratio"):
                axes.plot(row.goal.bound, place, "|", color="black", markersize=18)
        axes.set_yticks(list(positions), [row.title for row in self.rows])
        axes.invert_yaxis()
        axes.axvline(1, color="grey", linewidth=0.8)
        axes.set_xlabel(f"{self.columns[0]} / {self.columns[1]} (| is the target)")
        figure.tight_layout()
        figure.savefig(RESULTS / f"{self.name}.svg")
        plt.close(figure)
