"""Files from the web for ADD and for contexts: one GET into one file, within limits and time.

What is known of an earlier answer is sent along, so that what did not change is not loaded
again. Nothing here decides what becomes of the file.
"""

from __future__ import annotations

import base64
import contextlib
import email.message
import email.utils
import hashlib
import os
import posixpath
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from estiba.distribution.answer import Answer
from estiba.distribution.cancel import CancelToken
from estiba.distribution.settings import RegistrySettings
from estiba.distribution.transport import Request, Transport
from estiba.distribution.urls import MAX_URL_CHARS, Url, parse_url
from estiba.kernel.files import write_all
from estiba.model.digest import Digest, parse_digest
from estiba.model.errors import (
    DeadlineExceeded,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    Unavailable,
)

UNNAMED = "__unnamed__"
_CHUNK = 256 << 10
_MODE = 0o600
_MAX_NAME_BYTES = 255
_MAX_VALIDATOR_CHARS = 1024
_GONE = (404, 410)
_NOT_MODIFIED = 304


@dataclass(frozen=True, slots=True)
class Validators:
    """What a server said of a file that is still at hand. Empty: it did not."""

    etag: str = ""
    last_modified: str = ""

    @property
    def headers(self) -> dict[str, str]:
        made = {"If-None-Match": self.etag} if self.etag else {}
        return made | ({"If-Modified-Since": self.last_modified} if self.last_modified else {})


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    size_bytes: int = 16 << 30
    time_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Downloaded:
    """`path` is None when the file has not changed since `known`."""

    path: Path | None
    name: str
    digest: Digest = ""
    size_bytes: int = 0
    content_type: str = ""
    validators: Validators = Validators()


@dataclass(frozen=True, kw_only=True, slots=True)
class Remote:
    """One address. `authorization` is a header's value, for its own origin alone."""

    url: Url
    authorization: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """Without a password, and without the query, which may hold a signature."""
        return str(self.url)


def is_web_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def parse_remote(text: str, authorization: str = "") -> Remote:
    """`http://` or `https://`; user and password in it become a header.

    Raises InvalidArgument.
    """
    try:
        parts = urlsplit(text)
        user, at, host = parts.netloc.rpartition("@")
        plain = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        if not is_web_address(text) or len(text) > MAX_URL_CHARS:
            raise ValueError
        url = parse_url(_encoded(plain))
    except (ValueError, Unavailable):
        raise InvalidArgument(
            "invalid URL: use http://HOST/PATH or https://HOST/PATH without spaces"
        ) from None
    if at and not authorization:
        name, _, password = user.partition(":")
        pair = f"{unquote(name)}:{unquote(password)}".encode()
        authorization = f"Basic {base64.b64encode(pair).decode()}"
    return Remote(url=url, authorization=authorization)


def _encoded(url: str) -> str:
    """Characters beyond ASCII as they go over the wire (RFC 3987, 3.1)."""
    return "".join(
        char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in url
    )


def download(
    remote: Remote,
    directory: Path,
    *,
    settings: RegistrySettings,
    checksum: str = "",
    known: Validators | None = None,
    limits: DownloadLimits = DownloadLimits(),
    cancel: CancelToken | None = None,
) -> Downloaded:
    """Loads it into a file of `directory` that bears its name. Blocks.

    The file has mode 0600 and the time that the server states, else 1970. Raises NotFound,
    Unavailable, InvalidArgument for another checksum, LimitExceeded, DeadlineExceeded,
    Cancelled, OSError; no file is left then.
    """
    if checksum:
        parse_digest(checksum)
    cancel = cancel or CancelToken()
    deadline = time.monotonic() + limits.time_s
    transport = Transport(settings, cancel)
    try:
        request = Request(
            method="GET",
            url=remote.url,
            headers={"Accept": "*/*", **(known.headers if known else {})},
            authorization=remote.authorization,
        )
        with transport.request(request) as answer:
            _check_status(remote, answer, has_known=known is not None)
            return _received(remote, answer, directory, checksum, limits, deadline)
    finally:
        transport.close()


def _received(
    remote: Remote,
    answer: Answer,
    directory: Path,
    checksum: str,
    limits: DownloadLimits,
    deadline: float,
) -> Downloaded:
    name = _name(remote, answer)
    validators = Validators(_validator(answer, "ETag"), _validator(answer, "Last-Modified"))
    if answer.status == _NOT_MODIFIED:
        return Downloaded(None, name, validators=validators)
    path = directory / name
    try:
        digest, size = _save(remote, answer, path, checksum, limits, deadline)
    except FileExistsError:
        raise
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        raise
    kind = answer.header("Content-Type")[:_MAX_VALIDATOR_CHARS]
    return Downloaded(path, name, digest, size, kind, validators)


def _check_status(remote: Remote, answer: Answer, *, has_known: bool) -> None:
    if answer.status == 200 or (answer.status == _NOT_MODIFIED and has_known):
        return
    message = f"failed to GET {remote.shown} with status {answer.status}"
    if answer.status in (401, 403):
        raise Unavailable(f"{message}: the server wants other credentials")
    raise NotFound(message) if answer.status in _GONE else Unavailable(message)


def _save(
    remote: Remote,
    answer: Answer,
    path: Path,
    checksum: str,
    limits: DownloadLimits,
    deadline: float,
) -> tuple[Digest, int]:
    length = answer.length
    if length is not None and length > limits.size_bytes:
        raise _too_large(remote, limits)
    algorithm = checksum.partition(":")[0] or "sha256"
    sums = {name: hashlib.new(name) for name in {algorithm, "sha256"}}
    size = 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    with os.fdopen(fd, "wb", buffering=0) as file:
        while piece := answer.read_some(_CHUNK):
            size += len(piece)
            if size > limits.size_bytes:
                raise _too_large(remote, limits)
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlineExceeded(
                    f"{remote.shown} took longer than {limits.time_s:.0f} s to load"
                )
            for each in sums.values():
                each.update(piece)
            write_all(file, piece)
        os.fchmod(fd, _MODE)
        mtime_ns = _modified_ns(answer)
        os.utime(fd, ns=(mtime_ns, mtime_ns))
    found = f"{algorithm}:{sums[algorithm].hexdigest()}"
    if checksum and found != checksum:
        raise InvalidArgument(
            f"digest mismatch: {remote.shown} has {found}, and the Dockerfile wants {checksum}; "
            "either the file changed or another one came"
        )
    return f"sha256:{sums['sha256'].hexdigest()}", size


def _too_large(remote: Remote, limits: DownloadLimits) -> LimitExceeded:
    return LimitExceeded(f"{remote.shown} is larger than {limits.size_bytes} bytes")


def _validator(answer: Answer, name: str) -> str:
    """It goes back to the server in a header, so it must fit into one."""
    value = answer.header(name)
    fits = len(value) <= _MAX_VALIDATOR_CHARS and value.isascii() and value.isprintable()
    return value if fits else ""


def _modified_ns(answer: Answer) -> int:
    try:
        moment = email.utils.parsedate_to_datetime(answer.header("Last-Modified"))
        return max(int(moment.timestamp()), 0) * 10**9
    except (ValueError, OverflowError):
        return 0


def _name(remote: Remote, answer: Answer) -> str:
    """The last part of the address; where it has none, what the server suggests."""
    path = unquote(urlsplit(remote.url.target).path)
    name = "" if path.endswith("/") else posixpath.basename(path)
    if not name:
        message = email.message.Message()
        with contextlib.suppress(ValueError):
            message["Content-Disposition"] = answer.header("Content-Disposition")
        name = posixpath.basename((message.get_filename() or "").replace("\\", "/"))
    is_usable = name not in ("", ".", "..") and "\0" not in name and "/" not in name
    return name if is_usable and len(name.encode()) <= _MAX_NAME_BYTES else UNNAMED
