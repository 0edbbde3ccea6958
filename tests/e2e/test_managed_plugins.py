"""Plugins that the engine runs itself, through the stock docker client."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.plugins.managed import NAME, calls, inspect, is_serving, pids_of, root_of
from tests.support.plugins.tree import add_program, plugin_tree

from estiba.kernel.pidfd import identify, is_alive

pytestmark = pytest.mark.e2e


def test_a_plugin_is_made_switched_on_used_and_removed(plugged: PrivateDaemon) -> None:
    daemon = plugged
    listed = daemon.docker("plugin", "ls", "--format", "{{.Name}} {{.Description}} {{.Enabled}}")
    assert listed.stdout == b"test/vol:latest Volumes of the test false\n"
    done = daemon.docker("volume", "create", "-d", "test/vol", "early", check=False)
    assert b"not found" in done.stderr
    assert daemon.docker("plugin", "enable", "test/vol").stdout == b"test/vol\n"
    assert inspect(daemon)["Enabled"] is True
    again = daemon.docker("plugin", "enable", "test/vol", check=False)
    assert b"already enabled" in again.stderr
    daemon.docker("volume", "create", "-d", "test/vol", "kept")
    daemon.run("-v", "kept:/a", "busybox", "sh", "-c", "echo inside > /a/file")
    assert (root_of(daemon) / "data/volumes/kept/file").read_text() == "inside\n"
    assert daemon.run("-v", "kept:/a", "busybox", "cat", "/a/file") == "inside\n"
    assert "VolumeDriver.Unmount" in calls(daemon)
    for words in (("disable",), ("rm",)):
        done = daemon.docker("plugin", *words, "test/vol", check=False)
        assert b"plugin test/vol:latest is in use: volume kept" in done.stderr
    daemon.docker("volume", "rm", "kept")
    done = daemon.docker("plugin", "rm", "test/vol", check=False)
    assert b"plugin test/vol:latest is enabled" in done.stderr
    daemon.docker("plugin", "disable", "test/vol")
    assert pids_of(daemon) == []
    assert b"already disabled" in daemon.docker("plugin", "disable", NAME, check=False).stderr
    path = f"/events?since=1&until={time.time():.6f}&filters=%7B%22type%22%3A%5B%22plugin%22%5D%7D"
    events = daemon.request("GET", path, headers={"Accept": "text/plain"})[1]
    lines = events if isinstance(events, bytes) else json.dumps(events).encode()
    actions = [json.loads(line)["Action"] for line in lines.splitlines()]
    assert actions[-3:] == ["create", "enable", "disable"]
    daemon.docker("plugin", "rm", "test/vol")
    assert daemon.docker("plugin", "ls", "-q").stdout == b""


def test_filters(plugged: PrivateDaemon) -> None:
    def names(*filters: str) -> bytes:
        words = [word for one in filters for word in ("-f", one)]
        return plugged.docker("plugin", "ls", "--format", "{{.Name}}", *words).stdout

    assert names("enabled=false", "capability=volumedriver") == b"test/vol:latest\n"
    assert names("enabled=true") == names("capability=networkdriver") == b""
    done = plugged.docker("plugin", "ls", "-f", "colour=red", check=False)
    assert b"invalid filter 'colour'" in done.stderr


def test_settings_are_changed_while_it_is_off(plugged: PrivateDaemon) -> None:
    daemon = plugged
    daemon.docker("plugin", "set", "test/vol", "COLOUR=red", "args=two three")
    settings = inspect(daemon)["Settings"]
    assert "COLOUR=red" in settings["Env"]
    assert settings["Args"] == ["two", "three"]
    for words, answer in (
        ("FIXED=2", b'"FIXED" is not settable'),
        ("NOTHING=2", b"not found in the plugin configuration"),
        ("COLOUR.path=2", b'"COLOUR.path" is not settable'),
        ("=2", b"invalid format"),
    ):
        assert answer in daemon.docker("plugin", "set", NAME, words, check=False).stderr
    daemon.docker("plugin", "enable", NAME)
    (pid,) = pids_of(daemon)
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert b"COLOUR=red" in environment
    assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-3:-1] == [b"two", b"three"]
    done = daemon.docker("plugin", "set", NAME, "COLOUR=green", check=False)
    assert b"cannot set on an active plugin" in done.stderr


def test_it_runs_in_the_sandbox_of_containers(plugged: PrivateDaemon) -> None:
    plugged.docker("plugin", "enable", NAME)
    (pid,) = pids_of(plugged)
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "CapEff:\t00000000a80425fb" in status
    for kind in ("mnt", "pid", "net", "ipc", "uts"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    plugged.docker("plugin", "disable", "-f", NAME)


# -- the engine's life -------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_next_engine_takes_it_over(plugged: PrivateDaemon, number: int) -> None:
    daemon = plugged
    daemon.docker("plugin", "enable", NAME)
    daemon.docker("volume", "create", "-d", NAME, "kept")
    daemon.docker("run", "-d", "--name", "box", "-v", "kept:/a", "busybox", "sleep", "1000")
    (pid,) = pids_of(daemon)
    daemon.stop(number)
    assert is_alive(identify(pid))
    daemon.start()
    assert pids_of(daemon) == [pid]
    assert inspect(daemon)["Enabled"] is True
    daemon.docker("exec", "box", "touch", "/a/file")
    daemon.run("-v", "kept:/a", "busybox", "ls", "/a/file")
    daemon.docker("rm", "-f", "box")
    assert calls(daemon).count("VolumeDriver.Unmount") == calls(daemon).count("VolumeDriver.Mount")


def test_one_that_ends_is_started_again(plugged: PrivateDaemon) -> None:
    daemon = plugged
    daemon.docker("plugin", "enable", NAME)
    daemon.docker("volume", "create", "-d", NAME, "kept")
    for engine_runs in (True, False):
        (pid,) = pids_of(daemon)
        if not engine_runs:
            daemon.kill9()
        os.kill(pid, signal.SIGKILL)
        if not engine_runs:
            wait_until(lambda: not pids_of(daemon), what="the plugin to end")
            daemon.start()
        wait_until(lambda old=pid: pids_of(daemon) not in ([old], []), what="another process")
        wait_until(lambda: is_serving(daemon), what="the plugin to serve")


def test_one_that_the_engine_switched_off_while_dying_does_not_run(plugged: PrivateDaemon) -> None:
    plugged.docker("plugin", "enable", NAME)
    plugged.restart({"ESTIBA_FAILPOINTS": "managed.switched-off=kill"})
    plugged.docker("plugin", "disable", NAME, check=False)
    plugged.wait_death()
    assert len(pids_of(plugged)) == 1
    plugged.start()
    assert pids_of(plugged) == []
    assert inspect(plugged)["Enabled"] is False


@pytest.mark.parametrize("point", ["launched", "started"])
def test_an_engine_killed_while_it_switches_on(plugged: PrivateDaemon, point: str) -> None:
    plugged.restart({"ESTIBA_FAILPOINTS": f"managed.{point}=kill"})
    plugged.docker("plugin", "enable", NAME, check=False)
    plugged.wait_death()
    plugged.start()
    assert pids_of(plugged) == []
    assert inspect(plugged)["Enabled"] is False
    plugged.docker("plugin", "enable", NAME)
    plugged.docker("plugin", "disable", NAME)


def test_an_engine_killed_while_it_removes(plugged: PrivateDaemon) -> None:
    plugged.restart({"ESTIBA_FAILPOINTS": "managed.forgotten=kill"})
    plugged.docker("plugin", "rm", NAME, check=False)
    plugged.wait_death()
    plugged.start()
    assert plugged.docker("plugin", "ls", "-q").stdout == b""
    assert list((plugged.data_root / "plugins/content").iterdir()) == []


def test_a_managed_plugin_makes_networks(daemon: PrivateDaemon, tmp_path: Path) -> None:
    """In the host's network namespace and with the right to change it, as it asked for."""
    tag, subnet = f"m{secrets.token_hex(2)}", f"10.{190 + secrets.randbelow(9)}"
    tree = plugin_tree(
        tmp_path,
        "network",
        interface={
            "socket": "net.sock",
            "types": ["docker.networkdriver/1.0", "docker.ipamdriver/1.0"],
        },
        network={"type": "host"},
        linux={"capabilities": ["CAP_NET_ADMIN"]},
        env=[
            {"name": "PLUGIN_SOCKET", "value": "/run/docker/plugins/net.sock"},
            {"name": "PLUGIN_ROOT", "value": "/data"},
            {"name": "PLUGIN_TAG", "value": tag},
            {"name": "PLUGIN_SUBNET", "value": subnet},
        ],
    )
    add_program(tree / "rootfs", Path(shutil.which("ip") or "/sbin/ip"))
    daemon.docker("plugin", "create", "test/net", str(tree))
    daemon.docker("plugin", "enable", "test/net")
    try:
        daemon.docker("network", "create", "-d", "test/net", "--ipam-driver", "test/net", "blue")
        view = json.loads(daemon.docker("network", "inspect", "blue").stdout)[0]
        assert (view["Driver"], view["IPAM"]["Driver"]) == ("test/net:latest",) * 2
        daemon.docker("run", "-d", "--name", "one", "--network", "blue", "busybox", "sleep", "99")
        answer = daemon.run("--network", "blue", "busybox", "ping", "-c", "1", f"{subnet}.1.50")
        assert "1 packets received" in answer
        done = daemon.docker("plugin", "disable", "test/net", check=False)
        assert b"is in use: network blue" in done.stderr
        daemon.docker("rm", "-f", "one")
        daemon.docker("network", "rm", "blue")
        state = json.loads((root_of(daemon) / "data/state").read_text())
        assert not any(state.values())
    finally:
        daemon.docker("rm", "-f", "one", check=False)
        daemon.docker("network", "rm", "blue", check=False)
        daemon.docker("plugin", "rm", "-f", "test/net")
    assert not [name for _, name in socket.if_nameindex() if name.startswith(tag)]


def test_after_a_reboot_containers_find_their_volumes(plugged: PrivateDaemon) -> None:
    """All processes are gone at once; the plugin is there before the containers start again."""
    daemon = plugged
    daemon.docker("plugin", "enable", NAME)
    daemon.docker("volume", "create", "-d", NAME, "kept")
    daemon.docker("run", "-d", "--name", "box", "--restart", "always", "-v", "kept:/a",
                  "busybox", "sh", "-c", "echo again >> /a/log; sleep 1000")  # fmt: skip
    log = root_of(daemon) / "data/volumes/kept/log"
    wait_until(lambda: log.exists(), what="the first run")
    (pid,) = pids_of(daemon)
    daemon.kill9()
    for victim in (pid, container_pid(daemon)):
        os.kill(victim, signal.SIGKILL)
    daemon.start()
    wait_until(lambda: log.read_text() == "again\nagain\n", what="the second run")
    daemon.docker("rm", "-f", "box")


def test_one_that_takes_its_time_holds_up_its_users_alone(
    daemon: PrivateDaemon, tmp_path: Path
) -> None:
    """The engine serves before the plugin does; containers that need it wait, others do not."""
    tree = plugin_tree(tmp_path, "volumes")
    daemon.docker("plugin", "create", "test/vol", str(tree))
    daemon.docker("plugin", "enable", "test/vol")
    try:
        daemon.docker("volume", "create", "-d", "test/vol", "kept")
        for name, volume in (("needs", "kept"), ("without", "own")):
            daemon.docker("run", "-d", "--name", name, "--restart", "always", "-v",
                          f"{volume}:/a", "busybox", "sleep", "1000")  # fmt: skip
        root = root_of(daemon)
        waiting = "import os, time\nwhile not os.path.exists('/data/go'):\n  time.sleep(0.01)\n"
        program = root / "volumes.py"
        program.write_text(waiting + program.read_text())
        victims = [
            *pids_of(daemon),
            *(daemon.inspect(n)["State"]["Pid"] for n in ("needs", "without")),
        ]
        daemon.kill9()
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        daemon.start()
        wait_until(lambda: pids_of(daemon), what="the plugin's process")
        assert daemon.inspect("needs")["State"]["Status"] == "exited"
        daemon.wait_state("without", "running")
        (root / "data/go").touch()
        daemon.wait_state("needs", "running")
    finally:
        daemon.docker("rm", "-f", "needs", "without", check=False)
        daemon.docker("volume", "rm", "-f", "kept", check=False)
        daemon.docker("plugin", "rm", "-f", "test/vol")


def container_pid(daemon: PrivateDaemon) -> int:
    """Of the only container, which no engine watches now."""
    group = f"estiba-test-{daemon.bridge}/*/cgroup.procs"
    root = Path("/sys/fs/cgroup")
    for path in (*root.glob(group), *root.glob(f"*/{group}")):
        if not path.parent.name.startswith("plugin-") and path.read_text():
            return int(path.read_text().split()[0])
    raise AssertionError("the container does not run")
