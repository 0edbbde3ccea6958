"""`estiba` and `docker` with the same words on the same engine: their answers, byte by byte."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

from tests.support.dockerd import GenuineDockerd

ESTIBA = [sys.executable, "-m", "estiba.cli.main"]


class Result(NamedTuple):
    code: int
    out: str
    err: str


def run(
    engine: GenuineDockerd,
    program: list[str],
    line: str,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> Result:
    done = subprocess.run(
        [*program, *shlex.split(line)], input=stdin, capture_output=True, cwd=engine.root,
        env={**engine.environment(), "COLUMNS": "200", **(env or {})}, timeout=60, check=False,
    )  # fmt: skip
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


# The genuine client packs what it copies in a goroutine of its own. When the engine refuses the
# archive, that goroutine may or may not log the pipe that was closed under it before the client
# gives its answer: such a line is a race of its logger, not part of the answer.
_ATTEMPTS = 10
_PACKING_LOG = re.compile(
    r"^time=\S+ level=\w+ msg=.*(?:closed pipe|Can't (?:add file|close|stat)).*\n", re.MULTILINE
)


def neutral(result: Result) -> Result:
    """Without the programs' names, and without what the genuine client's logger may add."""
    return Result(
        result.code,
        result.out.replace("estiba", "docker"),
        _PACKING_LOG.sub("", result.err).replace("estiba", "docker"),
    )


def compare(
    engine: GenuineDockerd, line: str, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> Result:
    """Asked again where they differ: times are rough ("3 seconds ago") and move on between two
    calls, and the engine walks some of its maps in an order that differs from call to call.
    """
    for _ in range(_ATTEMPTS):
        theirs = run(engine, ["docker"], line, stdin, env)
        ours = run(engine, ESTIBA, line, stdin, env)
        if line == "system df -v":
            # The engine lists volumes in an order that differs from call to call.
            theirs, ours = (
                r._replace(out="\n".join(sorted(r.out.splitlines()))) for r in (theirs, ours)
            )
        if neutral(ours) == neutral(theirs):
            break
    assert neutral(ours).out == neutral(theirs).out
    assert neutral(ours).err == neutral(theirs).err
    assert ours.code == theirs.code
    return ours
