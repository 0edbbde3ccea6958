"""What containers share with the host and with one another, with the real docker client."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("clean")]


def test_limits_are_real(daemon: PrivateDaemon) -> None:
    done = daemon.docker(
        "run", "--name", "greedy", "-m", "10m", "--memory-swap", "10m", "busybox",
        "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=50", check=False,
    )  # fmt: skip
    assert done.returncode == 137
    assert daemon.inspect("greedy")["State"]["OOMKilled"]


def test_clear_errors(daemon: PrivateDaemon) -> None:
    def error(*arguments: str) -> str:
        done = daemon.docker(*arguments, check=False)
        assert done.returncode != 0
        return done.stderr.decode()

    assert "No such container" in error("start", "nosuch")
    assert "No such image" in error("image", "inspect", "nosuch")
    daemon.docker("create", "--name", "taken", "busybox")
    assert "already in use" in error("create", "--name", "taken", "busybox")
    assert "bind source path does not exist" in error(
        "create", "--mount", "type=bind,source=/no/such,target=/x", "busybox"
    )
    assert "no such file" in error("run", "--device", "/dev/nosuch", "busybox", "true")
    assert "absolute path" in error("create", "-w", "relative", "busybox")
    assert "6MB" in error("create", "-m", "1m", "busybox")
    assert "refused" in error("run", "-w", "/proc/self/fd/7", "busybox", "true")


def test_a_port_in_use(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "first", "-p", "127.0.0.1::80", "busybox", "sleep", "99")
    port = daemon.inspect("first")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    done = daemon.docker("run", "-p", f"127.0.0.1:{port}:80", "busybox", "true", check=False)
    assert done.returncode == 125
    assert b"already" in done.stderr


def test_published_ports_answer_everywhere(daemon: PrivateDaemon) -> None:
    serve = "mkdir /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www"
    daemon.docker("run", "-d", "--name", "web", "-p", "80", "busybox", "sh", "-c", serve)
    port = daemon.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    gateway = f"{daemon.subnet}.1"

    def fetch(address: str) -> bytes:
        done = subprocess.run(
            ["curl", "-s", "-m", "5", f"http://{address}:{port}/"], capture_output=True, check=False
        )
        return done.stdout

    wait_until(lambda: fetch("127.0.0.1") == b"page\n", what="the page")
    assert fetch(gateway) == b"page\n"
    inside = ["sh", "-c", f"wget -q -O - http://{gateway}:{port}/"]
    assert daemon.run("busybox", *inside) == "page\n"
    assert daemon.docker("exec", "web", *inside).stdout == b"page\n"


def test_namespaces_of_others(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "donor", "--ipc", "shareable", "busybox", "sleep", "1000")
    daemon.docker("exec", "donor", "touch", "/dev/shm/shared")
    joined = (
        "--network",
        "container:donor",
        "--pid",
        "container:donor",
        "--ipc",
        "container:donor",
    )
    seen = daemon.run(*joined, "busybox", "sh", "-c", "ls /dev/shm; ps; ip -o -4 addr show eth0")
    address = daemon.inspect("donor")["NetworkSettings"]["IPAddress"]
    assert "shared" in seen and "sleep 1000" in seen and address in seen
    assert daemon.run("--uts", "host", "busybox", "hostname").strip() == os.uname().nodename


def test_files_of_names(daemon: PrivateDaemon) -> None:
    seen = daemon.run(
        "-h", "ship", "--add-host", "db:10.9.8.7", "--dns", "1.2.3.4", "--dns-search", "sea.test",
        "busybox", "sh", "-c", "hostname; cat /etc/hosts /etc/resolv.conf",
    )  # fmt: skip
    assert seen.startswith("ship\n")
    assert "10.9.8.7\tdb" in seen and "nameserver 1.2.3.4" in seen and "search sea.test" in seen


def test_volumes(daemon: PrivateDaemon) -> None:
    daemon.run("-v", "kept:/data", "busybox", "sh", "-c", "echo 1 > /data/file")
    assert daemon.run("-v", "kept:/data:ro", "busybox", "cat", "/data/file") == "1\n"
    done = daemon.docker(
        "run", "--rm", "-v", "kept:/data:ro", "busybox", "touch", "/data/x", check=False
    )
    assert b"Read-only" in done.stderr
    daemon.docker("run", "--name", "user", "-v", "kept:/data", "-v", "/anon", "busybox", "true")
    assert daemon.docker("volume", "rm", "kept", check=False).returncode != 0
    daemon.docker("rm", "-v", "user")
    assert daemon.docker("volume", "ls", "-q").stdout == b"kept\n"
    daemon.docker("volume", "rm", "kept")


def test_a_file_bound_read_only(daemon: PrivateDaemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound")
    mount = f"type=bind,source={tmp_path}/file,target=/x,readonly"
    done = daemon.docker(
        "run", "--rm", "--mount", mount, "busybox", "sh", "-c", "cat /x; echo > /x", check=False
    )
    assert done.stdout == b"bound" and b"Read-only" in done.stderr


def test_limits_that_the_host_lacks_are_named_and_left_out(daemon: PrivateDaemon) -> None:
    done = daemon.docker("run", "--rm", "--blkio-weight", "300", "busybox", "echo", "ran")
    assert done.stdout == b"ran\n"
    warnings = daemon.request("GET", "/info")[1]["Warnings"]
    assert (b"Weight discarded" in done.stderr) == any("blkio weight" in w for w in warnings)


def test_read_only_root_and_tmpfs(daemon: PrivateDaemon) -> None:
    script = "touch /x 2>/dev/null && echo bad; touch /t/y && df -k /t | tail -1"
    seen = daemon.run("--read-only", "--tmpfs", "/t:size=1m", "busybox", "sh", "-c", script)
    assert "bad" not in seen and "1024" in seen


def test_capabilities_and_privileged(daemon: PrivateDaemon) -> None:
    def caps(*flags: str) -> int:
        seen = daemon.run(*flags, "busybox", "sh", "-c", "grep CapEff /proc/self/status")
        return int(seen.split()[1], 16)

    assert caps() == 0xA80425FB
    assert caps("--cap-drop", "ALL") == 0
    assert caps("--cap-drop", "ALL", "--cap-add", "NET_ADMIN") == 1 << 12
    found = re.search(r"CapBnd:\s+(\w+)", Path("/proc/self/status").read_text())
    bounding = int(found[1], 16) if found else 0
    assert caps("--privileged") == bounding
