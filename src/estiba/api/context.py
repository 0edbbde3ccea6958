"""One request as a handler sees it: parameters, query, decoded body, and ways to answer."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec

from estiba.api.errors import told
from estiba.api.through import through
from estiba.http1 import Body, HttpRequest, HttpResponse
from estiba.model.decoding import from_plain
from estiba.model.errors import InvalidArgument, LimitExceeded
from estiba.model.times import parse_moment

T = TypeVar("T")

MAX_JSON_BYTES = 4 << 20
_APART_BYTES = 128 << 10
_MAX_DEPTH = 64
_JSON = "application/json"
_encoder = msgspec.json.Encoder()
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_JSON_PLACES = {
    "Expecting value": "value",
    "Expecting property name enclosed in double quotes": "object key string",
}


@dataclass(slots=True)
class Context:
    """Made by the server for each request."""

    request: HttpRequest
    parameters: Mapping[str, str]
    query: Mapping[str, list[str]]
    version: tuple[int, int]

    @property
    def body(self) -> Body:
        return self.request.body

    @property
    def id(self) -> str:
        """The container, exec or network that the path names."""
        return self.parameters["id"]

    # -- query -----------------------------------------------------------------------------

    def text(self, name: str, default: str = "") -> str:
        values = self.query.get(name)
        return values[0] if values else default

    def texts(self, name: str) -> list[str]:
        return self.query.get(name, [])

    def flag(self, name: str, default: bool = False) -> bool:
        """Docker's rule: "", 0, no, false and none are false, all else is true."""
        values = self.query.get(name)
        if values is None:
            return default
        return values[0].strip().lower() not in ("", "0", "no", "false", "none")

    def number(self, name: str) -> int | None:
        """Raises InvalidArgument naming the parameter."""
        text = self.text(name)
        if not text:
            return None
        if not _NUMBER.fullmatch(text):
            raise InvalidArgument(f"invalid value for {name}: {text[:32]!r}")
        return int(text)

    def filters(self) -> dict[str, list[str]]:
        """The `filters` parameter, as a map of lists or, in its old form, a map of maps."""
        text = self.text("filters")
        if not text:
            return {}
        try:
            value = json.loads(text)
            if not isinstance(value, dict):
                raise ValueError("not an object")
            return {str(name): _filter_values(items) for name, items in value.items()}
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"invalid filter: {error}") from error

    def time_ns(self, name: str) -> int:
        """Nanoseconds since the epoch; 0 without the parameter."""
        text = self.text(name)
        return 0 if text in ("", "0") else parse_moment(text, now_ns=time.time_ns(), name=name)

    # -- body ------------------------------------------------------------------------------

    async def json(self) -> dict[str, Any]:
        """The JSON object of the body, nulls removed; `{}` without a body and for null.

        Raises InvalidArgument, or LimitExceeded for more than 4 MiB.
        """
        data = await self._json_bytes()
        if len(data) > _APART_BYTES:
            # Others would wait for the loop.
            return await asyncio.to_thread(_parse_object, data)
        return _parse_object(data)

    async def json_list(self) -> list[Any]:
        """As `json` of a body that is an array; docker-py sends `{}` for an empty one."""
        data = await self._json_bytes()
        value = _parse_object(b'{"items": ' + (data.strip() or b"null") + b"}").get("items", [])
        if value == {}:
            return []
        if not isinstance(value, list):
            raise InvalidArgument("invalid JSON: expected an array")
        return value

    async def _json_bytes(self) -> bytes:
        pieces, size = [], 0
        while piece := await self.body.read():
            size += len(piece)
            if size > MAX_JSON_BYTES:
                raise LimitExceeded(f"the request body is larger than {MAX_JSON_BYTES} bytes")
            pieces.append(piece)
        data = b"".join(pieces)
        if not data.strip():
            return b""
        kind = self.request.headers.get("content-type", "")
        if kind and not kind.lower().startswith(_JSON):
            raise InvalidArgument(f"unsupported Content-Type header ({kind}): must be '{_JSON}'")
        return data


def _parse_object(data: bytes) -> dict[str, Any]:
    if not data:
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"invalid JSON: {_why(error)}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument("invalid JSON: expected an object")
    stripped: dict[str, Any] = checked(value, _MAX_DEPTH)
    return stripped


def _why(error: Exception) -> str:
    """In the words of Docker's own decoder, where it is one of the usual mistakes."""
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    if error.msg == "Extra data":
        return "unexpected content after JSON"
    place = _JSON_PLACES.get(error.msg)
    if place is None:
        return str(error)
    if error.pos >= len(error.doc):
        return "unexpected EOF"
    return f"invalid character '{error.doc[error.pos]}' looking for beginning of {place}"


def _filter_values(items: Any) -> list[str]:
    if isinstance(items, dict):
        return [str(item) for item, wanted in items.items() if wanted]
    if isinstance(items, list):
        return [str(item) for item in items]
    raise ValueError("expected a list or an object of values")


def checked(value: Any, depth: int) -> Any:
    """Without nulls: JSON null is the zero value, as in Go.

    Raises InvalidArgument for what no system call takes: numbers beyond 64 bits, strings with
    a NUL byte or half a surrogate pair.
    """
    if depth == 0:
        raise InvalidArgument("invalid JSON: nested too deeply")
    if isinstance(value, dict):
        return {
            _checked_text(key): checked(item, depth - 1)
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [checked(item, depth - 1) for item in value]
    if isinstance(value, str):
        return _checked_text(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidArgument("invalid JSON: a number beyond 64 bits")
    return value


def _checked_text(text: str) -> str:
    if "\0" in text or _SURROGATE.search(text):
        raise InvalidArgument(f"invalid JSON: a NUL byte or half a character in {text[:64]!r}")
    return text


def decode(value: object, kind: type[T], what: str = "body") -> tuple[T, list[str]]:
    """`value` as a record, and the names of fields that the record does not know.

    Keys match in any case, as in Go. Raises InvalidArgument naming the field that is wrong, or
    `what` when it is no JSON object.
    """
    if not isinstance(value, dict):
        raise InvalidArgument(f"invalid JSON: {what} must be an object")
    fields = {name.lower(): name for name in kind.__struct_encode_fields__}  # type: ignore[attr-defined]
    known: dict[str, Any] = {}
    unknown = []
    for key, item in value.items():
        name = fields.get(key.lower())
        if name is None:
            unknown.append(key)
        else:
            known[name] = item
    try:
        return from_plain(known, kind), unknown
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from error


def parse_query(text: str) -> dict[str, list[str]]:
    """Raises InvalidArgument for more than a thousand fields, and for NUL bytes."""
    if "%00" in text:
        raise InvalidArgument("invalid query: a NUL byte")
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=1000)
    except ValueError as error:
        raise InvalidArgument(f"invalid query: {error}") from error


def answer(value: object, status: int = 200) -> HttpResponse:
    """A JSON answer."""
    return HttpResponse(status, {"Content-Type": _JSON}, _encoder.encode(value) + b"\n")


def empty(status: int = 204) -> HttpResponse:
    return HttpResponse(status)


def stream(pieces: AsyncIterator[bytes], content_type: str) -> HttpResponse:
    """An answer sent as it comes. Between JSON values there is room for blanks."""
    filler = b"\r\n" if content_type == "application/json" else b""
    return HttpResponse(200, {"Content-Type": content_type}, pieces, filler=filler)


@through
async def progress(values: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    """`json_lines` of work on images, where an error after the head is a line as well."""
    try:
        async for line in json_lines(values):
            yield line
    except ConnectionError:
        raise
    except Exception as error:
        message = told(error, "a progress stream")
        yield _encoder.encode({"errorDetail": {"message": message}, "error": message}) + b"\r\n"


@through
async def json_lines(values: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    """One JSON value a line, as progress and event streams have it."""
    async for value in values:
        yield _encoder.encode(value) + b"\r\n"


@through
async def head_first(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The answer's head goes out at once, whenever the first piece comes."""
    yield b""
    async for piece in pieces:
        yield piece


async def first(pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Takes the first piece now, so that an error is still an HTTP status."""
    try:
        head = await anext(pieces)
    except StopAsyncIteration:
        head = None

    @through
    async def rest(pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        if head is not None:
            yield head
        async for piece in pieces:
            yield piece

    return rest(pieces)
