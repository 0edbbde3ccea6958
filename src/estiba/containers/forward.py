"""Log drivers that send lines elsewhere: syslog (RFC 3164, RFC 5424) and journald.

They follow the container's own log file, so `logs` works with every driver, an engine that
was down sends the rest when it is back, and a slow receiver never holds the container.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from estiba.containers.logs import STDERR, LogQuery, read_log
from estiba.containers.ports import Paths
from estiba.containers.record import ContainerRecord
from estiba.kernel.blocking import run_apart, run_blocking
from estiba.kernel.files import write_atomic
from estiba.model.errors import InvalidArgument, Unavailable

_log = logging.getLogger(__name__)

JOURNALD_SOCKET = Path("/run/systemd/journal/socket")
_FACILITIES = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp security console "
    "solaris-cron local0 local1 local2 local3 local4 local5 local6 local7"
).split()
_ERROR, _INFO = 3, 6
_RETRY_S = 2.0
_SEND_TIMEOUT_S = 5.0
_SAVE_EVERY_S = 1.0
_MAX_LINE = 60_000
_MAX_LINE_WITH_STAMP = _MAX_LINE + 64


class Sink(Protocol):
    """Where lines go. `send` blocks and raises OSError when the receiver is away."""

    def send(self, stream: int, time_ns: int, line: bytes) -> None: ...

    def close(self) -> None: ...


class SyslogSink:
    """One syslog receiver: unix://, unixgram://, udp:// or tcp:// (RFC 6587 newline framing)."""

    def __init__(self, options: Mapping[str, str], tag: str) -> None:
        address = options.get("syslog-address", "unixgram:///dev/log")
        self._url = urlsplit(address)
        if self._url.scheme not in ("unix", "unixgram", "udp", "tcp"):
            raise InvalidArgument(f"syslog-address should be unix, udp or tcp, got {address!r}")
        self._facility = _facility(options.get("syslog-facility", "daemon"))
        self._format = options.get("syslog-format", "rfc3164")
        if self._format not in ("rfc3164", "rfc5424", "rfc5424micro"):
            raise InvalidArgument(f"invalid syslog format {self._format!r}")
        self._tag = tag
        self._host = socket.gethostname()
        self._socket: socket.socket | None = None

    def send(self, stream: int, time_ns: int, line: bytes) -> None:
        priority = self._facility * 8 + (_ERROR if stream == STDERR else _INFO)
        moment = datetime.fromtimestamp(time_ns / 1e9, UTC)
        if self._format == "rfc3164":
            stamp = moment.strftime("%b %e %H:%M:%S")
            header = f"<{priority}>{stamp} {self._host} {self._tag}[{os.getpid()}]: "
        else:
            digits = 6 if self._format == "rfc5424micro" else 0
            stamp = moment.isoformat(timespec="microseconds" if digits else "seconds")
            header = f"<{priority}>1 {stamp} {self._host} {self._tag} {os.getpid()} {self._tag} - "
        message = header.encode() + line[:_MAX_LINE]
        if self._url.scheme == "tcp":
            message += b"\n"
        try:
            self._connected().sendall(message)
        except OSError:
            self.close()
            raise

    def _connected(self) -> socket.socket:
        if self._socket is None:
            if self._url.scheme in ("unix", "unixgram"):
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                target: str | tuple[str, int] = self._url.path
            else:
                kind = socket.SOCK_DGRAM if self._url.scheme == "udp" else socket.SOCK_STREAM
                host, port = self._url.hostname or "localhost", self._url.port or 514
                family = socket.getaddrinfo(host, port, type=kind)[0][0]
                connection = socket.socket(family, kind)
                target = (host, port)
            connection.settimeout(_SEND_TIMEOUT_S)
            connection.connect(target)
            self._socket = connection
        return self._socket

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class JournaldSink:
    """systemd's journal by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""

    def __init__(self, fields: Mapping[str, str], path: Path = JOURNALD_SOCKET) -> None:
        if not path.exists():
            raise Unavailable("journald is not enabled on this host: use another --log-driver")
        self._fields = b"".join(_field(name, value.encode()) for name, value in fields.items())
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_SEND_TIMEOUT_S)
        self._path = str(path)

    def send(self, stream: int, time_ns: int, line: bytes) -> None:
        priority = _ERROR if stream == STDERR else _INFO
        entry = (
            _field("MESSAGE", line[:_MAX_LINE])
            + _field("PRIORITY", b"%d" % priority)
            + _field("SYSLOG_TIMESTAMP", b"%d" % (time_ns // 1000))
            + self._fields
        )
        self._socket.sendto(entry, self._path)

    def close(self) -> None:
        self._socket.close()


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def _facility(name: str) -> int:
    if name.isdecimal() and int(name) < len(_FACILITIES):
        return int(name)
    if name not in _FACILITIES:
        raise InvalidArgument(f"invalid syslog facility {name!r}")
    return _FACILITIES.index(name)


def open_sink(record: ContainerRecord) -> Sink | None:
    """The sink of the container's log driver; None for drivers that keep the log here.

    Raises InvalidArgument for bad options, Unavailable without a journal.
    """
    log = record.host_config.log_config
    tag = log.config.get("tag") or record.id[:12]
    if log.type == "syslog":
        return SyslogSink(log.config, tag)
    if log.type == "journald":
        return JournaldSink(
            {
                "CONTAINER_ID": record.id[:12],
                "CONTAINER_ID_FULL": record.id,
                "CONTAINER_NAME": record.name,
                "CONTAINER_TAG": tag,
                "IMAGE_NAME": record.image_name,
                "SYSLOG_IDENTIFIER": tag,
            }
        )
    return None


def check_sink(record: ContainerRecord) -> None:
    """Raises what would keep the log driver from working, before the container starts."""
    sink = open_sink(record)
    if sink is not None:
        sink.close()


def open_forwarder(record: ContainerRecord, paths: Paths) -> Forwarder | None:
    """What sends the container's lines on, if its log driver does."""
    sink = open_sink(record)
    if sink is None:
        return None
    return Forwarder(sink, paths.log(record.id), paths.state(record.id) / "forwarded")


class Forwarder:
    """Sends one container's lines to its sink; remembers in `cursor` how far it came."""

    def __init__(self, sink: Sink, log: Path, cursor: Path) -> None:
        self._sink = sink
        self._log = log
        self._cursor = cursor
        self._saved_at = 0.0
        self._is_away = False

    async def run(self, ended: asyncio.Event) -> None:
        """Returns when the container has ended and all was sent."""
        since = await run_blocking(_read_cursor, self._cursor)
        query = LogQuery(timestamps=True, follow=True, since_ns=since)
        begun: dict[int, bytes] = {}
        try:
            async for stream, data in read_log(self._log, query, ended):
                *lines, rest = (begun.get(stream, b"") + data).split(b"\n")
                begun[stream] = rest[:_MAX_LINE_WITH_STAMP]
                for line in lines:
                    if not await self._send(stream, line):
                        return
            for stream, rest in begun.items():
                if rest and not await self._send(stream, rest):
                    return
        finally:
            self._sink.close()

    async def _send(self, stream: int, stamped: bytes) -> bool:
        """Tries until it succeeds; False when the container was removed meanwhile."""
        stamp, _, line = stamped.partition(b" ")
        time_ns = _parse_stamp(stamp)
        while True:
            try:
                # The shared pool is for everybody: who waits for a receiver does so once in it.
                run = run_apart if self._is_away else run_blocking
                await run(self._sink.send, stream, time_ns, line)
                self._is_away = False
                break
            except OSError as error:
                if not self._log.parent.exists():
                    return False
                if not self._is_away:
                    _log.warning("cannot forward log lines, trying on and on: %s", error)
                self._is_away = True
                await asyncio.sleep(_RETRY_S)
        if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
            self._saved_at = time.monotonic()
            await run_blocking(write_atomic, self._cursor, str(time_ns + 1).encode(), durable=False)
        return True


def _read_cursor(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int(path.read_bytes())
    return 0


def _parse_stamp(stamp: bytes) -> int:
    seconds = datetime.strptime(stamp[:19].decode(), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return int(seconds.timestamp()) * 1_000_000_000 + int(stamp[20:29])
