"""Every error that one layer raises for another to act upon.

EstibaError
├── NotFound             the named object does not exist                        404
├── InvalidArgument      the request makes no sense, whatever the state         400
│   ├── CommandNotFound      the program is missing (exit code 127)             400
│   └── CommandNotExecutable the program cannot be executed (exit code 126)     400
├── Conflict             the request contradicts the state of the object        409
│   └── AlreadyExists    the name is taken                                      409
├── FailedPrecondition   the state must change before this can work             409
├── Unauthorized         who are you?                                           401
├── Forbidden            you may not, or it is never allowed                    403
├── NotModified          the object is already in the state asked for           304
├── Unavailable          a part that this needs is down                         503
├── NotImplemented       an operation that is not built yet                     501
├── Cancelled            the caller went away
├── DeadlineExceeded     took longer than it may                                504
├── LimitExceeded        input larger or deeper than the engine accepts         413
├── DataLoss             stored data is damaged                                 500
└── Internal             a defect in the engine or a failing part of the host   500

The HTTP status of each stands in one table, `estiba.api.errors`.
A message says what happened, to which object, and what to do next.
"""

from __future__ import annotations


class EstibaError(Exception):
    """Root of the tree. `str(error)` is the message for the user."""

    @property
    def message(self) -> str:
        return str(self)


class NotFound(EstibaError):
    """The named object does not exist."""


class InvalidArgument(EstibaError):
    """The request makes no sense, whatever the state."""


class Conflict(EstibaError):
    """The request contradicts the state of the object."""


class AlreadyExists(Conflict):
    """The name is taken."""


class FailedPrecondition(EstibaError):
    """The state must change before this can work."""


class Unauthorized(EstibaError):
    """The caller is not known."""


class Forbidden(EstibaError):
    """The caller may not do this, or nobody may."""


class NotModified(EstibaError):
    """The object is already in the state asked for."""


class Unavailable(EstibaError):
    """A part that this needs is down."""


class NotImplemented(EstibaError):
    """An operation that is not built yet."""


class Cancelled(EstibaError):
    """The caller went away before the work was done."""


class DeadlineExceeded(EstibaError):
    """It took longer than it may."""


class LimitExceeded(EstibaError):
    """Input larger or deeper than the engine accepts."""


class DataLoss(EstibaError):
    """Stored data is damaged."""


class Internal(EstibaError):
    """A defect in the engine, or a failing part of the host."""


class CommandNotFound(InvalidArgument):
    """The container's program is missing: exit code 127."""

    exit_code = 127


class CommandNotExecutable(InvalidArgument):
    """The container's program cannot be executed: exit code 126."""

    exit_code = 126
