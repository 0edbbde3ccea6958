"""`docker top`: the host's ps, reduced to the processes of one container."""

from __future__ import annotations

import shlex

from estiba.kernel import spawn
from estiba.model.errors import DeadlineExceeded, Internal, InvalidArgument

_TIMEOUT_S = 10.0
_PID_TITLES = ("PID",)


async def top(pids: set[int], arguments: str) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of `ps <arguments>` for `pids`.

    Raises InvalidArgument when ps does not understand the arguments or prints no PID column.
    """
    try:
        words = shlex.split(arguments or "-ef")
    except ValueError as error:
        raise InvalidArgument(f"ps arguments {arguments!r}: {error}") from error
    try:
        done = await spawn.run(["ps", *words], timeout_s=_TIMEOUT_S)
    except TimeoutError as error:  # an OSError too
        raise DeadlineExceeded(f"ps did not end within {_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise Internal(f"cannot run ps: {error.strerror}: install procps") from error
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise InvalidArgument(f"error running ps: {reason[0] if reason else done.returncode}")
    return select_rows(done.stdout.decode(errors="replace"), pids)


def select_rows(output: str, pids: set[int]) -> tuple[list[str], list[list[str]]]:
    """The titles and the rows of `pids` in the output of ps; the last column may hold spaces.

    Raises InvalidArgument without a PID column.
    """
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    column = next((index for index, title in enumerate(titles) if title in _PID_TITLES), None)
    if column is None:
        raise InvalidArgument("couldn't find PID field in ps output: keep the pid column")
    rows, wanted = [], {str(pid) for pid in pids}
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column] in wanted:
            rows.append(fields)
    return titles, rows
