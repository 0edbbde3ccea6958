"""What the HTTP side refuses, and the one table from any error to an answer.

RegistryError (see `storage.errors`)
├── NameInvalid          NAME_INVALID               400
├── TagInvalid           TAG_INVALID                400
├── SizeInvalid          SIZE_INVALID               400
├── PageInvalid          PAGINATION_NUMBER_INVALID  400
├── PathUnknown          UNKNOWN                    404  no endpoint of this server
├── MethodInvalid        UNSUPPORTED                405
├── NotAuthenticated     UNAUTHORIZED               401  with a challenge
├── Denied               DENIED                     403
└── TooManyRequests      TOOMANYREQUESTS            429

The codes are those of distribution-spec 1.1, "Error Codes", and of Docker's registry.
"""

from __future__ import annotations

import errno
import json
import logging
from typing import ClassVar

from estiba.http1 import HttpResponse
from estiba.model import errors
from estiba.registry.storage.errors import OffsetInvalid, RegistryError

_log = logging.getLogger(__name__)

_INTERNAL = "internal error: the registry's log has the details"

_OTHER: dict[type[errors.EstibaError], tuple[int, str]] = {
    errors.NotFound: (404, "UNKNOWN"),
    errors.InvalidArgument: (400, "UNSUPPORTED"),
    errors.Unauthorized: (401, "UNAUTHORIZED"),
    errors.Forbidden: (403, "DENIED"),
    errors.DeadlineExceeded: (408, "UNKNOWN"),
    errors.LimitExceeded: (413, "SIZE_INVALID"),
    errors.Conflict: (409, "UNKNOWN"),
    errors.NotImplemented: (501, "UNSUPPORTED"),
    errors.Unavailable: (503, "UNAVAILABLE"),
    errors.EstibaError: (500, "UNKNOWN"),
}


class HttpError(RegistryError):
    """A refusal that may bring headers along."""

    def __init__(self, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = headers or {}


class NameInvalid(HttpError, errors.InvalidArgument):
    """Not the name of a repository."""

    code: ClassVar[str] = "NAME_INVALID"
    status: ClassVar[int] = 400


class TagInvalid(HttpError, errors.InvalidArgument):
    """Neither a tag nor a digest."""

    code = "TAG_INVALID"
    status = 400


class SizeInvalid(HttpError, errors.InvalidArgument):
    """A length that its body does not have."""

    code = "SIZE_INVALID"
    status = 400


class PageInvalid(HttpError, errors.InvalidArgument):
    """A number of results that is none."""

    code = "PAGINATION_NUMBER_INVALID"
    status = 400


class PathUnknown(HttpError, errors.NotFound):
    """No endpoint of this server."""

    code = "UNKNOWN"
    status = 404


class MethodInvalid(HttpError, errors.InvalidArgument):
    """The endpoint does not know the method, or this registry is read-only."""

    code = "UNSUPPORTED"
    status = 405


class NotAuthenticated(HttpError, errors.Unauthorized):
    """Who are you? The challenge says how to answer."""

    code = "UNAUTHORIZED"
    status = 401


class Denied(HttpError, errors.Forbidden):
    """The policy does not allow it."""

    code = "DENIED"
    status = 403


class TooManyRequests(HttpError, errors.Unavailable):
    """Too many failed attempts, or too many at once."""

    code = "TOOMANYREQUESTS"
    status = 429


def answer_to(error: Exception, doing: str) -> HttpResponse:
    """The answer to a request that failed; what is nobody's to mend but ours is logged."""
    if isinstance(error, RegistryError):
        headers = dict(error.headers) if isinstance(error, HttpError) else {}
        if isinstance(error, OffsetInvalid):
            headers["Range"] = upload_range(error.offset)
        return _answer(error.status, error.code, error.message, headers, error.detail)
    if isinstance(error, errors.EstibaError):
        status, code = next(_OTHER[kind] for kind in type(error).__mro__ if kind in _OTHER)
        return _answer(status, code, error.message)
    _log.error("%s failed", doing, exc_info=error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _answer(507, "UNKNOWN", f"{error.strerror}: the registry's operator must make room")
    return _answer(500, "UNKNOWN", _INTERNAL)


def upload_range(offset: int) -> str:
    """What an upload holds, as its `Range` header: `0-0` too when that is nothing."""
    return f"0-{max(offset - 1, 0)}"


def _answer(
    status: int,
    code: str,
    message: str,
    headers: dict[str, str] | None = None,
    detail: dict[str, str | int] | None = None,
) -> HttpResponse:
    entry: dict[str, object] = {"code": code, "message": message}
    if detail:
        entry["detail"] = detail
    body = json.dumps({"errors": [entry]}).encode() + b"\n"
    return HttpResponse(status, {"Content-Type": "application/json", **(headers or {})}, body)
