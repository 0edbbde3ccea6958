"""Uploading a blob: in one request, or in chunks; resumed after a break (distribution-spec 1.1,
"Pushing blobs").
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from estiba.distribution.answer import Answer
from estiba.distribution.auth import Scopes
from estiba.distribution.session import Session
from estiba.distribution.transport import Piece, Streamed
from estiba.distribution.urls import Url, parse_url
from estiba.model.digest import Digest, hex_of
from estiba.model.errors import (
    DataLoss,
    EstibaError,
    InvalidArgument,
    NotFound,
    Unauthorized,
    Unavailable,
)

CHUNK_BYTES = 8 << 20
_MAX_CHUNK_BYTES = 64 << 20
_PIECE_BYTES = 256 << 10
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")


class _Unrepeatable(Unavailable):
    """The upload broke where its source cannot go back to."""


class _Lost(_Unrepeatable):
    """What the registry had acknowledged is gone."""


class Source(Protocol):
    """What is uploaded. One that also has `seek(offset)` can be resumed anywhere."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Destination:
    """A repository `name` at a site; `what` names the blob in messages."""

    session: Session
    name: str
    scopes: Scopes
    what: str


class Rewinding:
    """A source read from any offset, as far as `seek` or `reopen` allow."""

    def __init__(self, source: Source, reopen: Callable[[], Source] | None) -> None:
        self._source = source
        self._reopen = reopen
        self._rest = b""
        self.position = 0

    def go_to(self, offset: int, what: str) -> None:
        """Raises Unavailable where it cannot."""
        if offset == self.position:
            return
        seek = getattr(self._source, "seek", None)
        if seek is not None:
            seek(offset)
            self._rest, self.position = b"", offset
        elif self._reopen is not None:
            self._source, self._rest, self.position = self._reopen(), b"", 0
            while self.position < offset and self.read(min(offset - self.position, _PIECE_BYTES)):
                pass
        else:
            raise _Unrepeatable(f"{what}: the upload broke, and its source cannot be read again")

    def read(self, size: int) -> bytes:
        """Never more than `size` bytes, whatever the source gives."""
        try:
            piece = self._rest or self._source.read(size)
        except Unavailable as error:
            raise _Unrepeatable(str(error)) from error
        piece, self._rest = piece[:size], piece[size:]
        self.position += len(piece)
        return piece


def upload_whole(
    to: Destination, source: Rewinding, size: int, digest: Digest, progress: Callable[[int], None]
) -> None:
    """One PUT; after a break the rest. The last piece goes only if all is what it should be."""
    hasher = hashlib.new(digest.partition(":")[0])
    hashed = 0

    def read() -> bytes:
        nonlocal hashed
        start, piece = source.position, source.read(_PIECE_BYTES)
        if source.position > hashed:
            hasher.update(memoryview(piece)[max(hashed - start, 0) :])
            hashed = source.position
        if hashed > size:
            raise DataLoss(f"{to.what}: its source has more than {size} bytes")
        return piece

    def feed(offset: int) -> Iterator[Piece]:
        source.go_to(offset, to.what)
        piece = read()
        while piece and (following := read()):
            yield piece
            piece = following
        if hashed != size or hasher.hexdigest() != hex_of(digest):
            raise DataLoss(
                f"{to.what}: its source has {hashed} of {size} bytes and the digest "
                f"{hasher.hexdigest()}"
            )
        if piece:
            yield piece

    with _Upload(to, progress) as upload:
        upload.send(feed, size, digest)


def upload_chunks(
    to: Destination, source: Rewinding, algorithm: str, progress: Callable[[int], None]
) -> tuple[Digest, int]:
    """Digest and size, which nobody knew before; a chunk is kept in memory until it arrived.

    All goes once more, where the source can, if the registry loses what it had acknowledged, as
    docker-registry does when a connection breaks.
    """
    attempts = to.session.transport.settings.attempts
    while True:
        try:
            with _Upload(to, progress) as upload:
                return _send_chunks(upload, to, source, algorithm)
        except _Lost:
            attempts -= 1
            if attempts <= 0:
                raise
            source.go_to(0, to.what)


def _send_chunks(
    upload: _Upload, to: Destination, source: Rewinding, algorithm: str
) -> tuple[Digest, int]:
    hasher = hashlib.new(algorithm)
    size = upload.chunk_bytes
    chunk = _fill(source, size)
    while True:
        hasher.update(chunk)
        following = b"" if len(chunk) < size else _fill(source, size)
        digest = None if following else f"{algorithm}:{hasher.hexdigest()}"
        feed = functools.partial(_slices, memoryview(chunk), upload.offset, to.what)
        upload.send(feed, upload.offset + len(chunk), digest)
        if digest is not None:
            return digest, upload.offset
        chunk = following


def _slices(chunk: memoryview, start: int, what: str, offset: int) -> Iterator[Piece]:
    """The pieces of a chunk that stands at `start`, from `offset` on."""
    if offset < start:
        raise _Lost(f"{what}: the registry lost a part of the upload")
    for at in range(offset - start, len(chunk), _PIECE_BYTES):
        yield chunk[at : at + _PIECE_BYTES]


def _fill(source: Rewinding, size: int) -> bytes:
    pieces, left = [], size
    while left and (piece := source.read(min(left, _PIECE_BYTES))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


class _Upload:
    """An upload session; `offset` bytes have arrived. Leaving by an exception abandons it."""

    def __init__(self, to: Destination, progress: Callable[[int], None]) -> None:
        self._to = to
        self._progress = progress
        self._url: Url | None = None
        self.offset = 0
        self.chunk_bytes = CHUNK_BYTES

    def __enter__(self) -> _Upload:
        self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._url is not None:
            with contextlib.suppress(EstibaError):
                self._call("DELETE", self._url, once=True).close()

    def _begin(self) -> None:
        to = self._to
        answer = self._call("POST", to.session.url(f"{to.name}/blobs/uploads/"))
        self.offset = 0
        self._url = self._located(answer)
        least = answer.header("OCI-Chunk-Min-Length")
        if least.isascii() and least.isdecimal() and len(least) < 12:
            self.chunk_bytes = min(max(CHUNK_BYTES, int(least)), _MAX_CHUNK_BYTES)

    def _located(self, answer: Answer) -> Url:
        url = self._to.session.located(answer)
        answer.close()
        return url

    def send(self, feed: Callable[[int], Iterator[Piece]], end: int, digest: Digest | None) -> None:
        """All up to `end`; with `digest` that is all of the blob, and the upload is complete."""
        settings = self._to.session.transport.settings
        failures = 0
        while digest is not None or self.offset < end:
            before = self.offset
            try:
                self._attempt(feed, end, digest)
                if digest is not None:
                    return
            except _Unrepeatable:
                raise
            except (Unavailable, Unauthorized, InvalidArgument) as error:
                # After a break the request before may still be under way over there, and an
                # offset be wrong for that.
                if isinstance(error, InvalidArgument) and not failures:
                    raise
                failures = 1 if self.offset > before else failures + 1
                if failures >= settings.attempts:
                    raise
                self._to.session.transport.cancel.wait(settings.backoff_s * 2 ** (failures - 1))
                if self._resume(end, digest):
                    return

    def _attempt(
        self, feed: Callable[[int], Iterator[Piece]], end: int, digest: Digest | None
    ) -> None:
        assert self._url is not None
        headers = {"Content-Type": "application/octet-stream"}
        if self.offset < end and (self.offset or digest is None):
            headers["Content-Range"] = f"{self.offset}-{end - 1}"
        body = Streamed(end - self.offset, self._counted(feed(self.offset)))
        if digest is None:
            answer = self._call("PATCH", self._url, headers, body)
            self._url = self._located(answer)
            before, self.offset = self.offset, self._arrived(answer, end, unsaid=end)
            if self.offset <= before:
                raise Unavailable(f"{self._to.what}: the registry takes nothing of the upload")
            return
        joint = "&" if "?" in self._url.target else "?"
        url = parse_url(
            f"{self._url.origin}{self._url.target}{joint}digest={quote(digest, safe='')}"
        )
        self._call("PUT", url, headers, body).close()
        self.offset, self._url = end, None

    def _resume(self, end: int, digest: Digest | None) -> bool:
        """Asks how much arrived; True when the blob turns out to be complete."""
        assert self._url is not None
        try:
            answer = self._call("GET", self._url)
        except NotFound:
            to = self._to
            if digest is not None and _has(to, digest):
                self.offset, self._url = end, None
                return True
            self._begin()
            return False
        self._url = self._located(answer)
        self.offset = self._arrived(answer, end, unsaid=0)
        return False

    def _arrived(self, answer: Answer, end: int, unsaid: int) -> int:
        """From the Range header, whose end is inclusive; `0-0` of older registries is nothing."""
        match = _RANGE.fullmatch(answer.header("Range"))
        if match is None:
            return unsaid
        arrived = int(match[1]) + 1 if match[1] != "0" else 0
        if arrived > end:
            raise DataLoss(f"{self._to.what}: the registry has {arrived} bytes, {end} were sent")
        return arrived

    def _counted(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        sent = self.offset
        for piece in pieces:
            yield piece
            sent += len(piece)
            self._progress(sent)

    def _call(
        self,
        method: str,
        url: Url,
        headers: dict[str, str] | None = None,
        body: bytes | Streamed = b"",
        *,
        once: bool = False,
    ) -> Answer:
        to = self._to
        timeout = to.session.transport.settings.commit_timeout_s if body else None
        return to.session.call(
            method,
            url,
            what=to.what,
            scopes=to.scopes,
            headers=headers,
            body=body,
            answer_timeout_s=timeout,
            once=once,
        )


def _has(to: Destination, digest: Digest) -> bool:
    url = to.session.url(f"{to.name}/blobs/{digest}")
    with to.session.call("HEAD", url, what=to.what, scopes=to.scopes, allow=(404,)) as answer:
        return answer.status == 200
