"""What a runtime's complaint means: crun's and runc's words turned into errors of the tree.

Docker's client derives the exit code of `run` and `exec` from the text: "executable file not
found" and "no such file or directory" are 127, "permission denied" and "is a directory" 126.
So the text says the same whichever runtime wrote it, and of an exec the same as Docker's.
"""

from __future__ import annotations

import json
import re

from estiba.model.errors import (
    CommandNotExecutable,
    CommandNotFound,
    EstibaError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
)

_START = "unable to start container process: "
_EXEC = f"OCI runtime exec failed: exec failed: {_START}"
_NOT_FOUND = re.compile(
    r"executable file [`'].*[`'] not found in \$PATH"  # crun
    r'|exec: ".*": (?:executable file not found in \$PATH|stat .*: no such file or directory)'
    r"|^exec: No such file or directory"  # crun exec: the interpreter is missing
    r"|exec (?!failed).*: no such file or directory"
)
_NOT_EXECUTABLE = re.compile(
    r"^open executable: (?:Operation not permitted|Permission denied)"  # crun: a directory, a mode
    r'|exec: ".*": (?:permission denied|is a directory|.*: is a directory)'
    r"|^exec: (?:Permission denied|Exec format error)"
    r"|exec (?!failed).*: (?:exec format error|permission denied)"
)
_NO_CONTAINER = re.compile(
    r"container does not exist|error opening file `.*/status`: No such|cannot open directory '.*'"
)
_WRONG_STATE = re.compile(
    r"already running|already stopped|not running|cannot (?:start|delete|exec) |is not in `created`"
    r"|exec\.fifo`|No such process|process not running|already finished|stopped container"
)
_NOT_A_DIRECTORY = re.compile(r"mount.*[Nn]ot a directory")
_PREAMBLE = re.compile(
    r"^(?:runc \w+ failed: |exec failed: )?(?:unable to start container process: )?"
)
_REQUEST = re.compile(
    r"cpuset|memory limit|sysctl|/proc/sys/|setrlimit|rlimit|mount |mounting|chdir|pids|blkio"
    r"|[Ii]nvalid argument|out of range|cgroup config|device|[Nn]o such file"
)


def read_message(log: bytes) -> str:
    """The last error of a runtime's log or stderr, JSON lines or plain text; "" without one."""
    message = ""
    for line in log.decode(errors="replace").splitlines():
        text = line.strip()
        if text.startswith("{"):
            try:
                entry = json.loads(text)
            except ValueError:
                entry = {}
            if entry.get("level") in ("error", "fatal", "panic"):
                message = str(entry.get("msg", ""))
        elif text:
            message = text
    return message


def explain(message: str, *, program: str = "", doing: str = "start") -> EstibaError:
    """The error for a runtime's `message`; `program` is what was to be executed.

    `doing` says what was tried, for the errors that are neither the program's nor the request's.
    """
    begin, end = (_EXEC, ": unknown") if doing == "exec" else (_START, "")
    is_not_executable = _NOT_EXECUTABLE.search(message) is not None
    if _NOT_FOUND.search(message) or (is_not_executable and not program):
        return CommandNotFound(f"{begin}{_missing(program)}{end}")
    if is_not_executable:
        reason = "exec format error" if "format error" in message.lower() else "permission denied"
        return CommandNotExecutable(f'{begin}exec: "{program}": {reason}{end}')
    if _NO_CONTAINER.search(message):
        return NotFound(f"cannot {doing}: the runtime does not know the container: {message}")
    if _WRONG_STATE.search(message):
        return FailedPrecondition(f"cannot {doing}: {message}")
    message = _PREAMBLE.sub("", message)
    if _NOT_A_DIRECTORY.search(message):
        return InvalidArgument(
            f"{_START}{message}: Are you trying to mount a directory onto a file (or vice-versa)? "
            "Check if the specified host path exists and is the expected type"
        )
    if message.startswith("OOM:"):
        return InvalidArgument(f"{begin}{message}: raise the memory limit")
    if _REQUEST.search(message):
        is_program = doing in ("start", "exec")
        return InvalidArgument(f"{begin}{message}{end}" if is_program else message)
    return Internal(f"the runtime failed to {doing}: {message or 'it gave no reason'}")


def _missing(program: str) -> str:
    if "/" in program:
        return f'exec: "{program}": stat {program}: no such file or directory'
    return f'exec: "{program}": executable file not found in $PATH'
