"""Calls to one plugin: JSON over POST, with an end to everything.

A plugin is a stranger: it may be away, hang, die in the middle or send anything. Each call has a
time-out; while the plugin is away the call is tried again for a while, but never once the plugin
may have begun; answers have a size; and of the calls that one plugin leaves unanswered only a few
hold threads of the engine.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from estiba.model.decoding import from_json, from_plain, without_nulls
from estiba.model.errors import Internal, Unavailable
from estiba.plugins.places import Address
from estiba.plugins.wire import Connection

T = TypeVar("T", bound=msgspec.Struct)

MEDIA_TYPE = "application/vnd.docker.plugins.v1.1+json"
MAX_ANSWER_BYTES = 4 << 20

_log = logging.getLogger(__name__)
_MAX_CALLS = 6
_MAX_SHOWN = 512
_AWAY = (FileNotFoundError, ConnectionRefusedError)


class PluginError(Internal):
    """The plugin said no: in its field `Err`, or by its status."""


class NotServed(PluginError):
    """The plugin does not know the method (status 404)."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: how long a call and a query may take, how long a plugin may be away before it is
    given up, how long one waits for its turn behind calls that are not answered, and how long no
    query is sent to a plugin that did not answer."""

    call_s: float = 60.0
    query_s: float = 10.0
    away_s: float = 10.0
    turn_s: float = 2.0
    first_pause_s: float = 0.25
    silence_s: float = 15.0


class Client:
    """Of one plugin, for any number of threads."""

    def __init__(self, name: str, address: Address, patience: Patience | None = None) -> None:
        self.name = name
        self.address = address
        self.is_away = False
        """Nobody listened there when it was last called."""

        self._patience = patience or Patience()
        self._silent_until = 0.0
        self._turns = threading.BoundedSemaphore(_MAX_CALLS)

    def call(
        self,
        method: str,
        arguments: Mapping[str, Any] | None,
        kind: type[T],
        *,
        timeout_s: float | None = None,
        away_s: float | None = None,
        is_query: bool = False,
    ) -> T:
        """The answer of `method`, for example `VolumeDriver.Create`.

        A query has little time, does not wait for a plugin that is away, and is not sent at all
        to one that has just left another call unanswered: lists go on without it.

        Raises PluginError when the plugin says no, NotServed when it does not know the method,
        Unavailable when it is away, hangs or breaks off, Internal for an answer that is wrong.
        """
        body = b"" if arguments is None else msgspec.json.encode(arguments)
        patience = self._patience
        usual_s, usual_away_s = (
            (patience.query_s, 0.0) if is_query else (patience.call_s, patience.away_s)
        )
        seconds = usual_s if timeout_s is None else timeout_s
        away = usual_away_s if away_s is None else away_s
        if is_query and time.monotonic() < self._silent_until:
            raise Unavailable(self._told(method, TimeoutError()))
        with self._turn():
            status, answer = self._try(method, body, seconds, away)
        if status != 200:
            words = _words(answer)
            error = NotServed if status == 404 else PluginError
            raise error(f"plugin {self.name}: {method}: {words or f'status {status}'}")
        if words := _err(answer):
            raise PluginError(words)
        try:
            # Programs in Go, as Docker and most plugins are, read a null as what is not there.
            plain = without_nulls(msgspec.json.decode(answer or b"null"))
            return from_plain({} if plain is None else plain, kind)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Internal(
                f"plugin {self.name}: {method}: the answer is not what the protocol says: "
                f"{str(error)[:_MAX_SHOWN]}"
            ) from error

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._turns.acquire(timeout=self._patience.turn_s):
            raise Unavailable(
                f"plugin {self.name} does not answer: {_MAX_CALLS} calls wait for it: look at "
                "the plugin's own log, or start it again"
            )
        try:
            yield
        finally:
            self._turns.release()

    def _try(self, method: str, body: bytes, seconds: float, away_s: float) -> tuple[int, bytes]:
        """As soon as the plugin is there; it is asked once."""
        end = time.monotonic() + away_s
        pause = self._patience.first_pause_s
        while True:
            connection = Connection(self.address, seconds)
            try:
                try:
                    connection.connect()
                except _AWAY as error:
                    self.is_away = True
                    if time.monotonic() + pause >= end:
                        raise Unavailable(self._told(method, error)) from error
                    _log.warning("plugin %s is away: tried again in %.2g s", self.name, pause)
                else:
                    self.is_away = False
                    return self._ask(connection, method, body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                if isinstance(error, TimeoutError):
                    self._silent_until = time.monotonic() + self._patience.silence_s
                raise Unavailable(self._told(method, error)) from error
            finally:
                connection.close()
            time.sleep(pause)
            pause = min(2 * pause, 8.0)

    def _ask(self, connection: Connection, method: str, body: bytes) -> tuple[int, bytes]:
        head = (
            f"POST /{method} HTTP/1.1\r\n"
            "Host: plugin.moby.localhost\r\n"
            "User-Agent: estiba\r\n"
            f"Accept: {MEDIA_TYPE}\r\n"
            f"Content-Type: {MEDIA_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        # In one piece: some plugins answer before they have read all, and hang up.
        with contextlib.suppress(BrokenPipeError):
            connection.wire.sendall(head.encode() + body)
        with http.client.HTTPResponse(connection.sock, method="POST") as response:
            response.begin()
            answer = response.read(MAX_ANSWER_BYTES + 1)
            if len(answer) > MAX_ANSWER_BYTES:
                raise OSError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
            if response.length:
                raise http.client.IncompleteRead(answer, response.length)
            return response.status, answer

    def _told(self, method: str, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            why = "no answer in time"
        elif isinstance(error, _AWAY):
            why = f"nobody listens at {self.address}"
        elif isinstance(error, (http.client.IncompleteRead, http.client.RemoteDisconnected)):
            why = "it broke off before its answer was whole"
        else:
            why = str(error)[:_MAX_SHOWN] or type(error).__name__
        return f"plugin {self.name}: {method}: {_printable(why)}: is the plugin running?"


class _Err(msgspec.Struct, frozen=True):
    err: str = msgspec.field(default="", name="Err")
    error: str = msgspec.field(default="", name="Error")


def _err(answer: bytes) -> str:
    """`Err`, and `Error` as address managers call it."""
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        found = from_json(answer, _Err)
        return _printable((found.err or found.error)[:_MAX_SHOWN])
    return ""


def _words(answer: bytes) -> str:
    return _err(answer) or _printable(answer[:_MAX_SHOWN].decode(errors="replace").strip())


def _printable(said: str) -> str:
    """Words of a stranger, for terminals and logs."""
    return "".join(letter if letter.isprintable() else " " for letter in said)
