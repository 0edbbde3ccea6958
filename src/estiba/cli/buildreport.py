"""What is said of a build when it is over: failures, warnings, and why the cache hit or missed.

Texts come from the daemon and from programs: on a terminal nothing in them moves the cursor.
"""

from __future__ import annotations

import sys

from estiba.cli.buildboard import Board, Step, readable
from estiba.cli.buildview import verdict
from estiba.cli.output import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

_RULES = "https://docs.docker.com/go/dockerfile/rule/"
_LINE = "-" * 20
_MOST_NAME = 50
_AROUND = 2


def tell(out: TextIO, text: str) -> None:
    """Writes lines; as a terminal can bear them, when it is one."""
    lines = text.split("\n")
    if out.isatty():
        lines = [readable(line) for line in lines]
    out.write("\n".join(lines) + "\n")
    out.flush()


# -- failures ------------------------------------------------------------------------------


def failure_text(event: dict[str, Any], board: Board, name: str) -> str:
    """The last output of the step that failed, its place in the Dockerfile, and the reason."""
    failed = event.get("failed") or {}
    lines = []
    step = board.steps.get(int(failed.get("vertex") or 0))
    output = str(failed.get("output") or "").rstrip("\n")
    if output and step is not None:
        lines += ["------", f" > {step.name}:", output, "------"]
    excerpt = str(failed.get("excerpt") or "").strip("\n")
    if excerpt:
        lines += [f"{name}:{failed.get('line')}", _LINE, excerpt, _LINE]
    detail = event.get("errorDetail")
    message = detail.get("message") if isinstance(detail, dict) else ""
    lines.append(f"ERROR: failed to build: {message or event.get('error') or 'unknown error'}")
    code = failed.get("exit_code")
    if code is not None and str(code) not in lines[-1]:
        lines[-1] += f" (exit code {code})"
    return "\n".join(lines)


def state_text(state: str, *, is_known: bool) -> str:
    """How to look around in what a failed step left; `is_known` when --debug was given."""
    text = (
        f"The state at which it failed is {state}\n"
        f"Look around in it: estiba run -it --rm {short(state)}"
    )
    return text if is_known else f"{text}\nor build with --debug, which opens a shell there"


def without_shell(state: str, error: BaseException) -> str:
    """For a state that no shell runs in."""
    return (
        f"No shell could be opened: {error}\nThe state at which it failed is {state}\n"
        f"Copy its files: estiba cp $(estiba create --pull never {short(state)} x):/ DIRECTORY"
    )


def short(state: str) -> str:
    return state.removeprefix("sha256:")[:12]


# -- warnings ------------------------------------------------------------------------------


def warnings_summary(warnings: list[dict[str, Any]]) -> str:
    count = len(warnings)
    lines = [f"\n {count} warning{'s' * (count != 1)} found (use --check to see more):"]
    for warning in warnings:
        place = f" (line {warning['line']})" if warning.get("line") else ""
        rule = f"{warning['rule']}: " if warning.get("rule") else ""
        lines.append(f" - {rule}{warning.get('message')}{place}")
    return "\n".join(lines)


def check_text(warnings: list[dict[str, Any]], dockerfile: bytes | None, name: str) -> str:
    """All that is known of every warning."""
    count = len(warnings)
    if not count:
        return "Check complete, no warnings found."
    many = "1 warning has" if count == 1 else f"{count} warnings have"
    lines = [f"Check complete, {many} been found!"]
    source = dockerfile.decode(errors="replace").splitlines() if dockerfile is not None else []
    for warning in warnings:
        rule, line = str(warning.get("rule")), int(warning.get("line") or 0)
        lines += ["", f"WARNING: {rule} - {_RULES}{_kebab(rule)}/", str(warning.get("message"))]
        if warning.get("detail"):
            lines.append(str(warning["detail"]))
        if line:
            lines.append(f"{name}:{line}")
        if line and source:
            end = max(int(warning.get("end_line") or line), line)
            lines += [_LINE, *_excerpt(source, line, end), _LINE]
    return "\n".join(lines)


def _excerpt(source: list[str], line: int, end: int) -> list[str]:
    first, last = max(line - _AROUND, 1), min(end + _AROUND, len(source))
    return [
        f"{number:4} | {'>>>' if line <= number <= end else '   '} {source[number - 1]}"
        for number in range(first, last + 1)
    ]


def _kebab(rule: str) -> str:
    """`JSONArgsRecommended` as `json-args-recommended`."""
    text = ""
    for index, letter in enumerate(rule):
        before, after = rule[index - 1 : index], rule[index + 1 : index + 2]
        if letter.isupper() and index and (before.islower() or after.islower()):
            text += "-"
        text += letter.lower()
    return text


# -- the cache -----------------------------------------------------------------------------


def explanation(board: Board) -> str:
    """A table: why each step was done or not."""
    steps = sorted(board.steps.values(), key=lambda step: step.number)
    rows = [("STEP", "CACHE", "TIME", "REASON")]
    rows += [_explained(step) for step in steps if step.reason]
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(3)]
    lines = [
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[3]
        for row in rows
    ]
    return "\n".join(["", *lines])


def _explained(step: Step) -> tuple[str, str, str, str]:
    name = shorten(readable(step.name), _MOST_NAME)
    return name, verdict(step), f"{step.seconds:.1f}s", readable(step.reason)


def is_terminal() -> bool:
    """Whether a shell can be opened for the user."""
    return sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()
