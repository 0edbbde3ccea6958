"""Log driver journald against systemd's own journal, read back with journalctl.

Where systemd does not run, its journal daemon is started in a mount namespace of its own, and the
engine beside it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, wait_until

_SOCKET = Path("/run/systemd/journal/socket")
_JOURNAL_DAEMON = Path("/lib/systemd/systemd-journald")
# Auditing is the whole host's: it stays as it is.
_OWN_JOURNAL = f"""
mount -t tmpfs none /run/systemd && mount -t tmpfs none /run/log
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log/journal
printf '[Journal]\\nAudit=\\nReadKMsg=no\\n' > /run/systemd/journald.conf.d/own.conf
exec {_JOURNAL_DAEMON}
"""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        shutil.which("journalctl") is None
        or not (
            _SOCKET.exists() or (_JOURNAL_DAEMON.exists() and Path("/etc/machine-id").exists())
        ),
        reason="systemd's journal is not installed: scripts/test-cgroup2 has one",
    ),
]

Entry = dict[str, Any]
_JOURNALD = ("--network", "none", "--log-driver", "journald")
_PART = 16 * 1024


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateDaemon]:
    """A private daemon that finds a journal."""
    made = PrivateDaemon(tmp_path_factory.mktemp("daemon"))
    journal = None
    if not _SOCKET.exists():
        namespace = ["unshare", "--mount", "--propagation", "private"]
        journal = subprocess.Popen([*namespace, "sh", "-ec", _OWN_JOURNAL])
        made.prefix = ["nsenter", f"--mount=/proc/{journal.pid}/ns/mnt", "--"]
    try:
        wait_until(
            lambda: not subprocess.call([*made.prefix, "test", "-S", str(_SOCKET)]),
            what="the journal",
        )
        made.start()
        made.import_busybox()
        yield made
    finally:
        made.close()
        if journal is not None:
            journal.terminate()
            journal.wait()


class Journal:
    """The journal that the daemon writes to."""

    def __init__(self, daemon: PrivateDaemon) -> None:
        self._prefix = daemon.prefix

    def entries(self, **fields: str) -> list[Entry]:
        """What it holds with these fields, oldest first."""
        subprocess.run([*self._prefix, "journalctl", "--sync"], check=True)
        matches = [f"{name}={value}" for name, value in fields.items()]
        done = subprocess.run(
            [*self._prefix, "journalctl", "--no-pager", "--all", "-o", "json", *matches],
            capture_output=True, check=True,
        )  # fmt: skip
        return [json.loads(line) for line in done.stdout.splitlines()]

    def wait_for(self, count: int, **fields: str) -> list[Entry]:
        found = wait_until(
            lambda: found if len(found := self.entries(**fields)) >= count else None,
            what=f"{count} entries of {fields}",
        )
        assert len(found) == count
        return list(found)


@pytest.fixture
def journal(daemon: PrivateDaemon) -> Journal:
    return Journal(daemon)


def text(entry: Entry) -> bytes:
    """The message; one that is no plain text is shown as numbers."""
    message = entry["MESSAGE"]
    return message.encode() if isinstance(message, str) else bytes(message)


@pytest.fixture
def name(daemon: PrivateDaemon) -> Iterator[str]:
    """The name of a container that has none of its entries in the journal yet."""
    chosen = f"journal-{daemon.tag}-{time.time_ns()}"
    yield chosen
    daemon.docker("rm", "-fv", chosen, check=False)


def run(daemon: PrivateDaemon, name: str, *arguments: str) -> None:
    daemon.docker("run", "--name", name, *_JOURNALD, *arguments)


def test_the_fields_of_an_entry(daemon: PrivateDaemon, journal: Journal, name: str) -> None:
    run(
        daemon, name, "--log-opt", "tag={{.ImageName}}/{{.Name}}",
        "--log-opt", "labels=com.example/team", "--log-opt", "env-regex=^STAGE",
        "-l", "com.example/team=blue", "-l", "other=x", "-e", "STAGE_ONE=two\nlines", "-e", "NO=1",
        "busybox", "sh", "-c", "echo out; sleep 0.1; echo err >&2",
    )  # fmt: skip
    record = daemon.inspect(name)
    out, err = journal.wait_for(2, CONTAINER_NAME=name)
    for entry in (out, err):
        expected = {
            "CONTAINER_ID": record["Id"][:12],
            "CONTAINER_ID_FULL": record["Id"],
            "CONTAINER_NAME": name,
            "CONTAINER_TAG": f"busybox/{name}",
            "SYSLOG_IDENTIFIER": f"busybox/{name}",
            "IMAGE_NAME": "busybox",
            "COM_EXAMPLE_TEAM": "blue",
            "STAGE_ONE": "two\nlines",
        }
        assert {key: entry.get(key) for key in expected} == expected
        assert not {"OTHER", "NO", "CONTAINER_PARTIAL_MESSAGE"} & set(entry)
        assert len(entry["CONTAINER_LOG_EPOCH"]) == 64
    assert [(text(one), one["PRIORITY"]) for one in (out, err)] == [(b"out", "6"), (b"err", "3")]
    assert [one["CONTAINER_LOG_ORDINAL"] for one in (out, err)] == ["1", "2"]
    assert out["CONTAINER_LOG_EPOCH"] == err["CONTAINER_LOG_EPOCH"]
    stamps = daemon.docker("logs", "-t", name).stdout.split()
    assert out["SYSLOG_TIMESTAMP"].encode() == stamps[0]
    written = datetime.fromisoformat(out["SYSLOG_TIMESTAMP"][:26]).replace(tzinfo=UTC)
    assert abs(written.timestamp() - int(out["__REALTIME_TIMESTAMP"]) / 1e6) < 30


def test_the_tag_is_the_short_id_unless_one_is_given(
    daemon: PrivateDaemon, journal: Journal, name: str
) -> None:
    run(daemon, name, "busybox", "echo", "x")
    short = daemon.inspect(name)["Id"][:12]
    (entry,) = journal.wait_for(1, SYSLOG_IDENTIFIER=short)
    assert entry["CONTAINER_TAG"] == short
    done = daemon.docker(
        "run", "--rm", *_JOURNALD, "--log-opt", "tag={{.Nope}}", "busybox", "true", check=False
    )
    assert done.returncode == 125 and b"unknown {{.Nope}}" in done.stderr


def test_long_lines_come_in_parts(daemon: PrivateDaemon, journal: Journal, name: str) -> None:
    script = "head -c 40000 /dev/zero | tr '\\0' x; echo; printf half; sleep 0.2; echo ' and half'"
    run(daemon, name, "busybox", "sh", "-c", f"{script}; printf 'no end'")
    *parts, whole, rest = journal.wait_for(5, CONTAINER_NAME=name)
    assert [len(text(part)) for part in parts] == [_PART, _PART, 40000 - 2 * _PART]
    assert b"".join(map(text, parts)) == b"x" * 40000
    assert [
        (
            part["CONTAINER_PARTIAL_ORDINAL"],
            part["CONTAINER_PARTIAL_LAST"],
            part.get("CONTAINER_PARTIAL_MESSAGE"),
        )
        for part in parts
    ] == [("1", "false", "true"), ("2", "false", "true"), ("3", "true", None)]
    assert len({part["CONTAINER_PARTIAL_ID"] for part in parts}) == 1
    assert len({part["SYSLOG_TIMESTAMP"] for part in parts}) == 1
    assert text(whole) == b"half and half" and "CONTAINER_PARTIAL_ID" not in whole
    assert text(rest) == b"no end" and rest["CONTAINER_PARTIAL_MESSAGE"] == "true"
    logged = daemon.docker("logs", name).stdout
    assert logged == b"x" * 40000 + b"\nhalf and half\nno end"


def test_bytes_that_are_no_text(daemon: PrivateDaemon, journal: Journal, name: str) -> None:
    run(daemon, name, "busybox", "printf", r"\001\377\000\033[1m\tx\r\n\n  \303\251 = y\n")
    found = journal.wait_for(3, CONTAINER_NAME=name)
    assert [text(entry) for entry in found] == [
        b"\x01\xff\x00\x1b[1m\tx\r",
        b"",
        "  \u00e9 = y".encode(),
    ]


def test_output_of_many_lines_and_a_variable_too_long_for_a_datagram(
    daemon: PrivateDaemon, journal: Journal, name: str, tmp_path: Path
) -> None:
    (tmp_path / "env").write_text("\n".join(f"BIG{n}=" + "v" * 60_000 for n in range(5)))
    run(
        daemon, name, "--log-opt", "env-regex=^BIG", "--env-file", str(tmp_path / "env"),
        "busybox", "seq", "50",
    )  # fmt: skip
    found = journal.wait_for(50, CONTAINER_NAME=name)
    assert [text(entry) for entry in found] == [b"%d" % number for number in range(1, 51)]
    assert [entry["CONTAINER_LOG_ORDINAL"] for entry in found] == [str(n) for n in range(1, 51)]
    assert all(entry["BIG3"] == "v" * 60_000 for entry in found)


def test_a_container_that_removes_itself_loses_no_line(
    daemon: PrivateDaemon, journal: Journal, name: str
) -> None:
    for number in range(5):
        daemon.docker(
            "run", "--rm", "--name", name, *_JOURNALD, "busybox", "sh", "-c",
            f"seq 20; echo last {number}",
        )  # fmt: skip
    assert [text(entry) for entry in journal.entries(CONTAINER_NAME=name)][20::21] == [
        b"last %d" % number for number in range(5)
    ]


def test_further_runs_and_engines_repeat_and_lose_nothing(
    daemon: PrivateDaemon, journal: Journal, name: str
) -> None:
    loop = "while [ ! -e /stop ]; do n=$((n + 1)); echo $$ $n; sleep 0.05; done; rm /stop"
    daemon.docker("run", "-d", "--name", name, *_JOURNALD, "busybox", "sh", "-c", loop)
    wait_until(lambda: len(journal.entries(CONTAINER_NAME=name)) > 3, what="the first entries")
    daemon.restart()
    seen = len(journal.entries(CONTAINER_NAME=name))
    wait_until(
        lambda: len(journal.entries(CONTAINER_NAME=name)) > seen, what="entries after a restart"
    )
    daemon.docker("exec", name, "touch", "/stop")
    daemon.docker("wait", name)
    for _ in range(2):
        daemon.docker("start", name)
        daemon.docker("exec", name, "touch", "/stop")
        daemon.docker("wait", name)
    logged = daemon.docker("logs", name).stdout.splitlines()
    found = journal.wait_for(len(logged), CONTAINER_NAME=name)
    assert [text(entry) for entry in found] == logged
    assert len({entry["CONTAINER_LOG_EPOCH"] for entry in found}) == 4


@pytest.mark.parametrize("client", ["docker", "estiba"])
def test_logs_reads_what_was_sent(
    daemon: PrivateDaemon, journal: Journal, name: str, client: str
) -> None:
    command = ["docker"] if client == "docker" else [sys.executable, "-m", "estiba.cli.main"]
    environment = {**daemon.client_environment(), "ESTIBA_HOST": daemon.url}

    def logs(*arguments: str) -> list[str]:
        done = subprocess.run(
            [*command, "logs", *arguments, name],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
            text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout.splitlines()

    script = "echo one; sleep 1.2; echo two >&2; sleep 0.1; echo three; read end"
    daemon.docker(
        "run", "-di", "--name", name, *_JOURNALD, "--log-opt", "tag=a b", "busybox", "sh", "-c",
        script,
    )  # fmt: skip
    journal.wait_for(3, CONTAINER_NAME=name)
    assert logs() == ["one", "two", "three"]
    assert logs("--tail", "2") == ["two", "three"]
    assert logs("-n", "1", "--details") == ["tag=a+b three"]
    stamped = logs("-t")
    assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:.]{18}Z \w+$", line) for line in stamped)
    second = stamped[1].split()[0]
    assert logs("--since", second) == ["two", "three"]
    assert logs("--until", second) == ["one", "two"]
    with subprocess.Popen(
        [*command, "logs", "-f", "--tail", "1", name], stdout=subprocess.PIPE, env=environment
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == b"three\n"
        daemon.docker("stop", "-t", "0", name)
        assert following.stdout.read() == b""
        assert following.wait(30) == 0
