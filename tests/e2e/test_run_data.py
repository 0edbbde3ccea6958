"""Logs, files, images, events and lists of containers, with the real docker client."""

from __future__ import annotations

import io
import json
import re
import socket
import tarfile
import time
from pathlib import Path
from typing import IO, cast

import pytest
from tests.support.daemon import PrivateDaemon

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("clean")]


def test_log_drivers(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "--name", "silent", "--log-driver", "none", "busybox", "echo", "x")
    assert b"does not support reading" in daemon.docker("logs", "silent", check=False).stderr
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        port = receiver.getsockname()[1]
        daemon.docker(
            "run", "--name", "sender", "--log-driver", "syslog",
            "--log-opt", f"syslog-address=udp://127.0.0.1:{port}", "--log-opt", "tag=ship",
            "busybox", "echo", "over the wire",
        )  # fmt: skip
        assert receiver.recv(4096).endswith(b"over the wire")
        for number in range(5):
            daemon.docker(
                "run", "--rm", "--name", "gone", "--log-driver", "syslog",
                "--log-opt", f"syslog-address=udp://127.0.0.1:{port}",
                "--log-opt", "tag={{.Name}}", "busybox", "echo", str(number),
            )  # fmt: skip
            line = receiver.recv(4096)
            assert b" gone[" in line and line.endswith(f": {number}".encode())
    assert daemon.docker("logs", "sender").stdout == b"over the wire\n"
    if not Path("/run/systemd/journal/socket").exists():
        done = daemon.docker(
            "run", "--rm", "--log-driver", "journald", "busybox", "true", check=False
        )
        assert done.returncode == 125 and b"journald is not enabled" in done.stderr


def test_logs(daemon: PrivateDaemon) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; done; echo problem >&2; printf partial"
    daemon.docker("run", "--name", "talker", "busybox", "sh", "-c", script)
    done = daemon.docker("logs", "talker")
    assert done.stdout == b"line 1\nline 2\nline 3\nline 4\nline 5\npartial"
    assert done.stderr == b"problem\n"
    assert daemon.docker("logs", "--tail", "2", "talker").stdout.endswith(b"partial")
    stamped = daemon.docker("logs", "-t", "talker").stdout.splitlines()[0]
    assert re.match(rb"\d{4}-\d\d-\d\dT[\d:.]+Z line 1", stamped)
    assert daemon.docker("logs", "--since", "1h", "--until", "30m", "talker").stdout == b""
    status, _ = daemon.request("POST", "/containers/talker/logs/truncate")
    assert status == 204
    assert daemon.docker("logs", "talker").stdout == b""


def test_logs_follow_across_rotation(daemon: PrivateDaemon) -> None:
    count = 20_000
    daemon.docker(
        "create", "--name", "long", "--log-opt", "max-size=100k", "--log-opt", "max-file=50",
        "busybox", "sh", "-c", f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo $i; done",
    )  # fmt: skip
    daemon.docker("start", "long")
    seen = daemon.docker("logs", "-f", "long").stdout
    assert seen.split() == [b"%d" % n for n in range(1, count + 1)]


def test_copy_in_and_out(daemon: PrivateDaemon, tmp_path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("content")
    for state in ("created", "running"):
        daemon.docker("rm", "-f", "box", check=False)
        daemon.docker("create", "--name", "box", "-v", "/vol", "busybox", "sleep", "1000")
        if state == "running":
            daemon.docker("start", "box")
        daemon.docker("cp", str(source), "box:/tmp/")
        daemon.docker("cp", str(source), "box:/vol/")
        target = tmp_path / state
        daemon.docker("cp", "box:/tmp/source", str(target))
        assert (target / "sub" / "file").read_text() == "content"
        daemon.docker("cp", "box:/vol/source/sub/file", str(tmp_path / "one"))
        assert (tmp_path / "one").read_text() == "content"
        missing = daemon.docker("cp", "box:/none", "-", check=False).stderr
        assert b"Could not find" in missing or b"No such container:path" in missing


def test_commit_export_import_save_load(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "--name", "box", "busybox", "sh", "-c", "echo x > /made; rm /etc/group")
    daemon.docker("commit", "-c", "ENV A=b", "-m", "note", "box", "made:1")
    assert daemon.docker("diff", "box").stdout == b"C /etc\nD /etc/group\nA /made\n"
    assert daemon.run("made:1", "sh", "-c", "cat /made; echo $A; ls /etc/group || true") == "x\nb\n"
    before = daemon.docker("image", "inspect", "-f", "{{.Id}}", "made:1").stdout
    archive = daemon.docker("save", "made:1").stdout
    daemon.docker("rmi", "made:1")
    assert b"Loaded image: made:1" in daemon.docker("load", stdin=archive).stdout
    assert daemon.docker("image", "inspect", "-f", "{{.Id}}", "made:1").stdout == before
    tar = daemon.docker("export", "box").stdout
    daemon.docker("import", "-", "flat:1", stdin=tar)
    assert daemon.run("flat:1", "cat", "/made") == "x\n"
    daemon.docker("rmi", "made:1", "flat:1")


def test_a_load_says_whose_name_it_takes(daemon: PrivateDaemon) -> None:
    daemon.docker("create", "--name", "box", "busybox")
    first = daemon.docker("commit", "-m", "1", "box", "made:1").stdout.decode().strip()
    archive = daemon.docker("save", "made:1").stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        names, old = (
            json.loads(cast(IO[bytes], members.extractfile(name)).read())
            for name in ("manifest.json", "repositories")
        )
    assert old == {"made": {"1": names[0]["Layers"][-1].rpartition("/")[2]}}
    assert daemon.docker("load", stdin=archive).stdout == b"Loaded image: made:1\n"
    second = daemon.docker("commit", "-m", "2", "box", "made:1").stdout.decode().strip()
    assert daemon.docker("load", stdin=archive).stdout.decode() == (
        f"The image made:1 already exists, renaming the old one with ID {second} to empty string\n"
        "Loaded image: made:1\n"
    )
    daemon.docker("rm", "box")
    daemon.docker("rmi", first, second)


def test_events_and_filters(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "--rm", "--name", "eve", "-l", "k=v", "busybox", "true")
    done = daemon.docker(
        "events", "--since", "30s", "--until", str(int(time.time()) + 1),
        "--filter", "container=eve", "--format", "{{.Action}}",
    )  # fmt: skip
    actions = done.stdout.decode().split()
    assert [a for a in actions if a != "attach"] == ["create", "start", "die", "destroy"]
    done = daemon.docker(
        "events", "--since", "30s", "--until", str(int(time.time()) + 1), "--filter", "label=k=v",
        "--filter", "event=die", "--format", "{{json .}}",
    )  # fmt: skip
    event = json.loads(done.stdout.decode().splitlines()[-1])
    assert event["Actor"]["Attributes"]["exitCode"] == "0"


def test_lists_and_filters(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "up", "-l", "a=1", "busybox", "sleep", "1000")
    daemon.docker("create", "--name", "made", "-l", "a=2", "busybox")

    def names(*flags: str) -> list[str]:
        shown = daemon.docker("ps", *flags, "--format", "{{.Names}}").stdout.decode()
        return shown.split()

    assert names() == ["up"]
    assert names("-a") == ["made", "up"]
    assert names("-n", "1") == ["made"]
    assert names("-a", "--filter", "label=a=2") == ["made"]
    assert names("-a", "--filter", "status=created") == ["made"]
    assert names("-a", "--filter", "name=u") == ["up"]
    assert names("-a", "--filter", "ancestor=busybox") == ["made", "up"]
    assert names("--filter", "health=none") == ["up"]


def test_prune(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "--name", "old", "busybox", "true")
    assert daemon.inspect("old")["Id"].encode() in daemon.docker("container", "prune", "-f").stdout
    daemon.docker("system", "df")
