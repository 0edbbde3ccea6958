"""The one table from the error tree to HTTP status, and what a client is told."""

from __future__ import annotations

import errno
import logging

from estiba.model import errors

_log = logging.getLogger(__name__)

_INTERNAL = "internal error: the daemon's log has the details"

STATUS: dict[type[errors.EstibaError], int] = {
    errors.NotFound: 404,
    errors.InvalidArgument: 400,
    errors.Conflict: 409,
    errors.FailedPrecondition: 409,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotModified: 304,
    errors.Unavailable: 503,
    errors.NotImplemented: 501,
    errors.Cancelled: 500,
    errors.DeadlineExceeded: 504,
    errors.LimitExceeded: 413,
    errors.DataLoss: 500,
    errors.Internal: 500,
}


def status_of(error: errors.EstibaError) -> int:
    """The status of the nearest class in the tree."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def _words_of(error: OSError) -> str:
    """What a client is told of a failed system call: a full disk is the user's to mend."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}: make room on the disk of the data root, or remove what is old"
    return _INTERNAL


def told(error: Exception, doing: str) -> str:
    """What a client is told of any error; one that is nobody's to mend but ours is logged."""
    if isinstance(error, errors.EstibaError):
        return error.message
    _log.error("%s failed", doing, exc_info=error)
    return _words_of(error) if isinstance(error, OSError) else _INTERNAL
