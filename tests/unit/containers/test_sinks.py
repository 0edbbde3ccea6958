"""Receivers of lines: what is written to them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.support.records import make_record

from estiba.containers import sinks
from estiba.containers.sinks import (
    JournaldSink,
    Message,
    Part,
    SyslogSink,
    journal_fields,
    journal_name,
)
from estiba.model.container import Config, HostConfig, LogConfig
from estiba.model.errors import InvalidArgument

STAMP = b"2026-11-24T10:01:04.123456789"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        receiver.settimeout(5)
        yield receiver


def test_an_entry_of_the_journal(journal: socket.socket) -> None:
    sink = JournaldSink({"CONTAINER_NAME": "box", "LABEL": "a\nb"}, Path(journal.getsockname()))
    sink.send(Message(2, STAMP, b"text"))
    entry = journal.recv(4096)
    assert entry.startswith(
        b"MESSAGE=text\nPRIORITY=3\nSYSLOG_TIMESTAMP=%sZ\nCONTAINER_LOG_ORDINAL=1\n"
        b"CONTAINER_NAME=box\nLABEL\n\x03\0\0\0\0\0\0\0a\nb\nCONTAINER_LOG_EPOCH=" % STAMP
    )
    sink.send(Message(1, STAMP, b"part", Part("id", 2, last=False)))
    entry = journal.recv(4096)
    assert b"PRIORITY=6\n" in entry and b"CONTAINER_LOG_ORDINAL=2\n" in entry
    assert (
        b"CONTAINER_PARTIAL_ID=id\nCONTAINER_PARTIAL_ORDINAL=2\nCONTAINER_PARTIAL_LAST=false\n"
        b"CONTAINER_PARTIAL_MESSAGE=true\n"
    ) in entry
    sink.close()


def test_an_entry_too_long_for_a_datagram_comes_as_a_file(journal: socket.socket) -> None:
    sink = JournaldSink({"ENV": "e" * 1_000_000}, Path(journal.getsockname()))
    sink.send(Message(1, STAMP, b"text"))
    data, files, _, _ = socket.recv_fds(journal, 4096, 1)
    sink.close()
    try:
        entry = os.pread(files[0], 2_000_000, 0)
        with pytest.raises(PermissionError):
            os.pwrite(files[0], b"x", 0)
    finally:
        os.close(files[0])
    assert data == b"" and entry.startswith(b"MESSAGE=text\n") and b"e" * 1_000_000 in entry


def test_a_journal_that_takes_nothing_more_is_away(
    journal: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "_SEND_TIMEOUT_S", 0.01)
    sink = JournaldSink({}, Path(journal.getsockname()))
    with pytest.raises(TimeoutError):
        for _ in range(100_000):
            sink.send(Message(1, STAMP, b"x" * 4096))
    sink.close()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("com.example/a-b", "COM_EXAMPLE_A_B"), ("__x1", "X1"), ("Stra\u00dfe", "STRA_E"), ("--", "")],
)
def test_names_of_fields(name: str, expected: str) -> None:
    assert journal_name(name) == expected


def test_no_label_takes_the_place_of_a_fact() -> None:
    labels = {"container-id": "forged", "message": "forged", "_": "forged", "team": "a"}
    config = LogConfig(type="journald", config={"labels-regex": ".", "tag": "{{.Name}}"})
    record = msgspec.structs.replace(
        make_record(config=Config(labels=labels), host_config=HostConfig(log_config=config)),
        id="1" * 64,
        name="box",
        image_name="busybox",
    )
    assert journal_fields(record) == {
        "CONTAINER_ID": "1" * 12,
        "CONTAINER_ID_FULL": "1" * 64,
        "CONTAINER_NAME": "box",
        "CONTAINER_TAG": "box",
        "IMAGE_NAME": "busybox",
        "SYSLOG_IDENTIFIER": "box",
        "TEAM": "a",
    }


@pytest.mark.parametrize(
    "address", ["http://host", "udp://host:70000", "tcp://host:x", "tcp://[::1", "udp://:0x10"]
)
def test_addresses_of_syslog_that_make_no_sense(address: str) -> None:
    """Before a container starts: later nobody would hear that its lines go nowhere."""
    with pytest.raises(InvalidArgument, match="syslog-address"):
        SyslogSink({"syslog-address": address}, "tag")


@pytest.mark.parametrize("facility", ["24", "x", "1" * 5000])
def test_facilities_of_syslog_that_make_no_sense(facility: str) -> None:
    with pytest.raises(InvalidArgument, match="facility"):
        SyslogSink({"syslog-facility": facility}, "tag")
