"""Receivers of a container's lines: syslog (RFC 3164, RFC 5424) and systemd's journal.

Calls block. What is sent, and when, is decided in `forward`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import struct
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from estiba.containers.logdetails import extra_attributes, log_tag
from estiba.containers.logs import STDERR
from estiba.containers.record import ContainerRecord
from estiba.model.errors import InvalidArgument, Unavailable

JOURNALD_SOCKET = Path("/run/systemd/journal/socket")
_FACILITIES = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp security console "
    "solaris-cron local0 local1 local2 local3 local4 local5 local6 local7"
).split()
_ERROR, _INFO = 3, 6
_SEND_TIMEOUT_S = 5.0
_TOO_LONG = (errno.EMSGSIZE, errno.ENOBUFS)
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True)
class Part:
    """The place of a message within a line that is longer than one; ordinals begin at 1."""

    id: str
    ordinal: int
    last: bool


@dataclass(frozen=True, slots=True)
class Message:
    """A line, or a part of a long one; `stamp` is the time of its beginning, as in `logs`."""

    stream: int
    stamp: bytes
    text: bytes
    part: Part | None = None


class Sink(Protocol):
    """Where messages go. `send` blocks and raises OSError when the receiver is away."""

    def send(self, message: Message) -> None: ...

    def close(self) -> None: ...


class SyslogSink:
    """One syslog receiver: unix://, unixgram://, udp:// or tcp:// (RFC 6587 newline framing)."""

    def __init__(self, options: Mapping[str, str], tag: str) -> None:
        self._url = _address(options.get("syslog-address", "unixgram:///dev/log"))
        self._facility = _facility(options.get("syslog-facility", "daemon"))
        self._format = options.get("syslog-format", "rfc3164")
        if self._format not in ("rfc3164", "rfc5424", "rfc5424micro"):
            raise InvalidArgument(f"invalid syslog format {self._format!r}")
        self._tag = tag
        self._host = socket.gethostname()
        self._socket: socket.socket | None = None

    def send(self, message: Message) -> None:
        priority = self._facility * 8 + (_ERROR if message.stream == STDERR else _INFO)
        moment = datetime.fromisoformat(message.stamp[:26].decode()).replace(tzinfo=UTC)
        if self._format == "rfc3164":
            stamp = moment.strftime("%b %e %H:%M:%S")
            header = f"<{priority}>{stamp} {self._host} {self._tag}[{os.getpid()}]: "
        else:
            digits = 6 if self._format == "rfc5424micro" else 0
            stamp = moment.isoformat(timespec="microseconds" if digits else "seconds")
            header = f"<{priority}>1 {stamp} {self._host} {self._tag} {os.getpid()} {self._tag} - "
        frame = header.encode() + message.text
        if self._url.scheme == "tcp":
            frame += b"\n"
        try:
            self._connected().sendall(frame)
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
            try:
                connection.settimeout(_SEND_TIMEOUT_S)
                connection.connect(target)
            except OSError:
                connection.close()
                raise
            self._socket = connection
        return self._socket

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class JournaldSink:
    """systemd's journal by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

    The epoch tells the ordinals of this sink from those of another run of the container.
    """

    def __init__(self, fields: Mapping[str, str], path: Path = JOURNALD_SOCKET) -> None:
        if not path.exists():
            raise Unavailable("journald is not enabled on this host: use another --log-driver")
        every = {**fields, "CONTAINER_LOG_EPOCH": secrets.token_hex(32)}
        self._fields = b"".join(_field(name, value.encode()) for name, value in every.items())
        self._ordinal = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_SEND_TIMEOUT_S)
        self._path = str(path)

    def send(self, message: Message) -> None:
        ordinal = self._ordinal + 1
        entry = (
            _field("MESSAGE", message.text)
            + _field("PRIORITY", b"%d" % (_ERROR if message.stream == STDERR else _INFO))
            + _field("SYSLOG_TIMESTAMP", message.stamp + b"Z")
            + _field("CONTAINER_LOG_ORDINAL", b"%d" % ordinal)
            + (b"" if message.part is None else _part_fields(message.part))
            + self._fields
        )
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            if error.errno not in _TOO_LONG:
                raise
            self._send_as_file(entry)
        self._ordinal = ordinal

    def _send_as_file(self, entry: bytes) -> None:
        """What is too long for a datagram goes as a sealed memfd, of which there is only one."""
        file = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(os.dup(file), "wb") as writer:
                writer.write(entry)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [file]))
            self._socket.sendmsg([], [rights], 0, self._path)
        finally:
            os.close(file)

    def close(self) -> None:
        self._socket.close()


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def _part_fields(part: Part) -> bytes:
    fields = {
        "CONTAINER_PARTIAL_ID": part.id,
        "CONTAINER_PARTIAL_ORDINAL": str(part.ordinal),
        "CONTAINER_PARTIAL_LAST": "true" if part.last else "false",
    }
    if not part.last:
        fields["CONTAINER_PARTIAL_MESSAGE"] = "true"
    return b"".join(_field(name, value.encode()) for name, value in fields.items())


def journal_name(name: str) -> str:
    """A label's or variable's name as a field of the journal: A-Z, 0-9 and inner underscores."""
    letters = (letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
    return "".join(letters).upper().lstrip("_")


def journal_fields(record: ContainerRecord) -> dict[str, str]:
    """What stands beside each line of the container; no label takes the place of a fact."""
    tag = log_tag(record)
    extra = {journal_name(name): value for name, value in extra_attributes(record).items()}
    facts = {
        "CONTAINER_ID": record.id[:12],
        "CONTAINER_ID_FULL": record.id,
        "CONTAINER_NAME": record.name,
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": record.image_name,
        "SYSLOG_IDENTIFIER": tag,
    }
    return {name: value for name, value in {**extra, **facts}.items() if name not in _PER_LINE}


_PER_LINE = ("", "MESSAGE", "PRIORITY", "SYSLOG_TIMESTAMP", "CONTAINER_LOG_EPOCH",
             "CONTAINER_LOG_ORDINAL", "CONTAINER_PARTIAL_ID", "CONTAINER_PARTIAL_ORDINAL",
             "CONTAINER_PARTIAL_LAST", "CONTAINER_PARTIAL_MESSAGE")  # fmt: skip


def _address(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError as error:
        raise InvalidArgument(f"invalid syslog-address {text!r}: {error}") from error
    if url.scheme not in ("unix", "unixgram", "udp", "tcp"):
        raise InvalidArgument(f"syslog-address should be unix, udp or tcp, got {text!r}")
    return url


def _facility(name: str) -> int:
    if name in map(str, range(len(_FACILITIES))):
        return int(name)
    if name not in _FACILITIES:
        raise InvalidArgument(f"invalid syslog facility {name!r}")
    return _FACILITIES.index(name)


def open_sink(record: ContainerRecord) -> Sink | None:
    """The sink of the container's log driver; None for drivers that keep the log here.

    Raises InvalidArgument for bad options, Unavailable without a journal.
    """
    log = record.host_config.log_config
    if log.type == "syslog":
        return SyslogSink(log.config, log_tag(record))
    if log.type == "journald":
        return JournaldSink(journal_fields(record))
    return None


def check_sink(record: ContainerRecord) -> None:
    """Raises what would keep the log driver from working, before the container starts."""
    sink = open_sink(record)
    if sink is not None:
        sink.close()
