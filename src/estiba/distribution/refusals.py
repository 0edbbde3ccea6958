"""An answer that refuses, as the caller's error (distribution-spec 1.1, "Error Codes")."""

from __future__ import annotations

import json

from estiba.distribution.answer import Answer
from estiba.model.errors import (
    EstibaError,
    Forbidden,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    Unauthorized,
    Unavailable,
)

_MAX_BODY_BYTES = 64 << 10
_MAX_SHOWN_CHARS = 256
_REASONS = {
    401: "unauthorized: authentication required",
    403: "denied: requested access to the resource is denied",
    405: "unsupported: the registry does not allow this",
    413: "too large for the registry",
    429: "toomanyrequests: the registry is asked too often",
}
"""For answers without words, as those to HEAD are."""


def refusal(answer: Answer, what: str) -> EstibaError:
    """`what` was asked for. Reads the answer to its end; raises Broken when that fails."""
    status = answer.status
    try:
        body = answer.read(_MAX_BODY_BYTES)
    except LimitExceeded:
        body = b""
    reason = _reason(body)
    if status == 404:
        return NotFound(f"{what} not found: {reason}" if reason else f"{what} not found")
    reason = reason or _REASONS.get(status) or f"status {status}"
    if status == 401:
        return Unauthorized(f"{what}: {reason}; does it exist, and are you logged in?")
    if status in (403, 405):
        return Forbidden(f"{what}: {reason}")
    if status == 413:
        return LimitExceeded(f"{what}: {reason}")
    if status == 429:
        pause = answer.retry_after_s
        hint = f"; try again in {pause:.0f} seconds" if pause else "; try again later"
        return Unavailable(f"{what}: {reason}{hint}")
    if 400 <= status < 500:
        return InvalidArgument(f"{what}: {reason}")
    return Unavailable(f"{what}: {answer.url.origin.authority} answers {status}: {reason}")


def _reason(body: bytes) -> str:
    """`code: message` of the first error, or empty."""
    try:
        first = json.loads(body)["errors"][0]
        code = str(first.get("code", "")).lower().replace("_", " ")
        message = str(first.get("message", ""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return ""
    return printable(": ".join(part for part in (code, message) if part))


def printable(text: str) -> str:
    """A registry's words, safe on a terminal and in a log."""
    shown = "".join(c if c.isprintable() else " " for c in text[:_MAX_SHOWN_CHARS])
    return " ".join(shown.split())
