"""The runtime's last word: why it could not become the program, said where the program would speak.

By then the runtime's log belongs to another side of the container, so it writes to the step's own
standard error and ends with 1.
"""

from __future__ import annotations

import re

from estiba.build.ports import Output
from estiba.build.progress import STDERR
from estiba.model.errors import CommandNotExecutable, CommandNotFound, EstibaError

_LAST_WORD = re.compile(
    rb'\{"msg":"exec container process .*: (.+?)","level":"error".*\}\n'  # crun
    rb"|exec .+: (.+)\n",  # runc
    re.DOTALL,
)
_CODE = 1


class Complaint:
    """Stands before `sink` and holds back what may be such a word, until more is said."""

    def __init__(self, sink: Output) -> None:
        self._sink = sink
        self._held = b""
        self._is_silent = True

    def __call__(self, stream: int, data: bytes) -> None:
        if self._is_silent and stream == STDERR and _LAST_WORD.fullmatch(data):
            self._held = data
        else:
            self._release()
            self._sink(stream, data)
        self._is_silent = False

    def settle(self, code: int, program: str) -> EstibaError | None:
        """At the end: the error that the word stands for, if it is one."""
        reason = _reason(self._held) if code == _CODE else ""
        begin = f'unable to start container process: exec: "{program}": {reason}'
        if reason == "no such file or directory":
            return CommandNotFound(f"{begin}: its interpreter or loader is missing in the tree")
        if reason == "exec format error":
            return CommandNotExecutable(
                f"{begin}: it is for another architecture, or a script without #!"
            )
        if reason == "permission denied":
            return CommandNotExecutable(begin)
        self._release()
        return None

    def _release(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._sink(STDERR, held)


def _reason(word: bytes) -> str:
    found = _LAST_WORD.fullmatch(word)
    return (found[1] or found[2]).decode(errors="replace").lower() if found else ""
