"""Volumes of a plugin in a process of its own, through the stock docker client."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.plugins import PluginProcess

pytestmark = pytest.mark.e2e


@dataclass
class World:
    daemon: PrivateDaemon
    plugin: PluginProcess
    folder: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("plugged")
    folder = root / "plugins"
    daemon = PrivateDaemon(root / "daemon", "--plugin-socket-dir", str(folder))
    (root / "daemon").mkdir()
    plugin = PluginProcess("volumes", folder / "blue.sock", root / "blue")
    plugin.start()
    daemon.start()
    daemon.import_busybox()
    try:
        yield World(daemon, plugin, folder)
    finally:
        plugin.kill()
        plugin.start()
        plugin.behave()
        daemon.close()
        plugin.kill()


@pytest.fixture(autouse=True)
def well_behaved(world: World) -> Iterator[None]:
    yield
    world.plugin.behave()
    if world.plugin.process is None:
        world.plugin.start()


def view(daemon: PrivateDaemon, name: str) -> dict[str, object]:
    return dict(json.loads(daemon.docker("volume", "inspect", name).stdout)[0])


def test_a_volume_of_a_plugin_lives_as_others_do(world: World) -> None:
    daemon, plugin = world.daemon, world.plugin
    daemon.docker("volume", "create", "-d", "blue", "-o", "size=7", "--label", "a=b", "paint")
    assert plugin.calls("VolumeDriver.Create")[-1]["Opts"] == {"size": "7"}
    shown = view(daemon, "paint")
    assert shown["Driver"] == "blue"
    assert shown["Scope"] == "global"
    assert shown["Status"] == {"users": 0, "color": "blue"}
    assert shown["Options"] == {"size": "7"}
    assert shown["Labels"] == {"a": "b"}
    listed = daemon.docker("volume", "ls", "-f", "driver=blue", "--format", "{{.Name}} {{.Driver}}")
    assert listed.stdout == b"paint blue\n"
    assert b"blue" in daemon.docker("info", "--format", "{{.Plugins.Volume}}").stdout
    daemon.run("-v", "paint:/paint", "busybox", "sh", "-c", "echo red > /paint/colour")
    assert (plugin.root / "volumes/paint/colour").read_text() == "red\n"
    assert daemon.run("-v", "paint:/paint:ro", "busybox", "cat", "/paint/colour") == "red\n"
    mounted = [call["ID"] for call in plugin.calls("VolumeDriver.Mount")]
    assert len(set(mounted)) == 2
    assert mounted == [call["ID"] for call in plugin.calls("VolumeDriver.Unmount")]
    daemon.docker("volume", "rm", "paint")
    assert not (plugin.root / "volumes/paint").exists()


def test_users_are_counted_and_a_volume_in_use_stays(world: World) -> None:
    daemon = world.daemon
    daemon.docker("run", "-d", "--name", "one", "--volume-driver", "blue", "-v", "used:/a",
                  "-v", "used:/b", "busybox", "sleep", "1000")  # fmt: skip
    daemon.docker("run", "-d", "--name", "two", "-v", "used:/a", "busybox", "sleep", "1000")
    assert view(daemon, "used")["Status"] == {"users": 2, "color": "blue"}
    assert str(view(daemon, "used")["Mountpoint"]) == str(world.plugin.root / "volumes/used")
    done = daemon.docker("volume", "rm", "used", check=False)
    assert b"volume is in use" in done.stderr
    daemon.docker("rm", "-f", "one")
    assert view(daemon, "used")["Status"] == {"users": 1, "color": "blue"}
    daemon.kill9()
    daemon.start()
    assert view(daemon, "used")["Status"] == {"users": 1, "color": "blue"}
    assert daemon.docker("exec", "two", "ls", "/a").stdout == b""
    daemon.docker("rm", "-f", "two")
    assert view(daemon, "used")["Status"] == {"users": 0, "color": "blue"}
    daemon.docker("volume", "rm", "used")


def test_what_the_plugin_refuses_is_told(world: World) -> None:
    daemon = world.daemon
    done = daemon.docker("volume", "create", "-d", "blue", "-o", "bad=1", "no", check=False)
    assert b"create no: the option bad is not for us" in done.stderr
    assert daemon.docker("volume", "inspect", "no", check=False).returncode == 1
    done = daemon.docker("volume", "create", "-d", "nobody", "no", check=False)
    assert b'error looking up volume plugin nobody: plugin "nobody" not found' in done.stderr
    daemon.docker("volume", "create", "-d", "blue", "yes")
    world.plugin.behave(Mount="the disk is asleep")
    done = daemon.docker("run", "--rm", "-v", "yes:/a", "busybox", "true", check=False)
    assert done.returncode == 125
    assert b"mount yes: the disk is asleep" in done.stderr
    world.plugin.behave(Remove="not today")
    done = daemon.docker("volume", "rm", "yes", check=False)
    assert b"remove yes: not today" in done.stderr
    assert view(daemon, "yes")["Driver"] == "blue"
    world.plugin.behave()
    daemon.docker("volume", "rm", "yes")


def test_a_container_goes_although_its_plugin_keeps_its_nameless_volume(world: World) -> None:
    daemon = world.daemon
    daemon.docker("create", "--name", "box1", "--volume-driver", "blue", "-v", "/a", "busybox")
    daemon.docker("create", "--name", "box2", "--volume-driver", "blue", "-v", "/b", "busybox")
    kept = set(daemon.docker("volume", "ls", "-q").stdout.split())
    world.plugin.behave(Remove="not today")
    assert daemon.docker("rm", "-v", "box1").stdout == b"box1\n"
    assert set(daemon.docker("volume", "ls", "-q").stdout.split()) == kept
    world.plugin.behave()
    daemon.docker("rm", "-v", "box2")
    (left,) = set(daemon.docker("volume", "ls", "-q").stdout.split()) & kept
    daemon.docker("volume", "rm", left.decode())
    assert daemon.docker("ps", "-aq").stdout == b""


@pytest.mark.parametrize("how", ["die", "garbage"])
def test_a_plugin_that_breaks_in_the_middle_harms_nobody_else(world: World, how: str) -> None:
    daemon = world.daemon
    daemon.docker("volume", "create", "-d", "blue", "shaky")
    daemon.docker("volume", "create", "calm")
    world.plugin.behave(Mount=how)
    done = daemon.docker("run", "--rm", "-v", "shaky:/a", "busybox", "true", check=False)
    assert done.returncode == 125
    assert b"plugin blue: VolumeDriver.Mount" in done.stderr
    daemon.run("-v", "calm:/a", "busybox", "true")
    world.plugin.behave()
    if how == "die":
        world.plugin.kill()
        begin = time.monotonic()
        listed = daemon.request("GET", "/volumes")[1]["Volumes"]
        # Others wait for ten seconds before they give it up.
        assert time.monotonic() - begin < 8, "lists do not wait for a plugin that is dead"
        assert {"shaky", "calm"} <= {each["Name"] for each in listed}
        world.plugin.start()
    daemon.run("-v", "shaky:/a", "busybox", "true")
    daemon.docker("volume", "rm", "shaky", "calm")


def test_a_plugin_that_hangs_holds_up_its_own_volume_alone(world: World) -> None:
    daemon = world.daemon
    for name in ("stuck", "other"):
        daemon.docker("volume", "create", "-d", "blue", name)
    world.plugin.behave(Mount="hang")
    results: list[int] = []

    def start() -> None:
        done = daemon.docker("run", "--rm", "-v", "stuck:/a", "busybox", "true", check=False)
        results.append(done.returncode)

    before = len(world.plugin.calls("VolumeDriver.Mount"))
    thread = threading.Thread(target=start)
    thread.start()
    wait_until(lambda: len(world.plugin.calls("VolumeDriver.Mount")) > before, what="the mount")
    begin = time.monotonic()
    daemon.run("busybox", "true")
    daemon.docker("volume", "create", "plain")
    daemon.docker("volume", "ls")
    daemon.docker("ps", "-a")
    assert view(daemon, "other")["Driver"] == "blue"
    assert time.monotonic() - begin < 20
    world.plugin.behave()
    thread.join()
    assert results == [0]
    daemon.docker("volume", "rm", "stuck", "other", "plain")


def test_the_engine_starts_without_a_plugin_that_has_volumes(world: World) -> None:
    daemon = world.daemon
    daemon.docker("volume", "create", "-d", "blue", "orphan")
    daemon.docker("create", "--name", "waits", "-v", "orphan:/a", "busybox", "true")
    daemon.stop()
    world.plugin.kill()
    world.plugin.socket.unlink()
    daemon.start()
    listed = daemon.docker("volume", "ls", "-q").stdout.split()
    assert b"orphan" in listed
    done = daemon.docker("start", "waits", check=False)
    assert b'plugin "blue" not found' in done.stderr
    done = daemon.docker("volume", "rm", "orphan", check=False)
    assert done.returncode == 1
    daemon.docker("rm", "waits")
    world.plugin.start()
    daemon.docker("volume", "rm", "orphan")


@pytest.mark.parametrize("socket_stays", [False, True])
def test_force_forgets_a_volume_whose_plugin_is_gone(
    make_daemon: Callable[..., PrivateDaemon], tmp_path: Path, socket_stays: bool
) -> None:
    folder = tmp_path / "plugins"
    plugin = PluginProcess("volumes", folder / "gone.sock", tmp_path / "gone")
    plugin.start()
    daemon = make_daemon("--plugin-socket-dir", str(folder))
    daemon.start()
    daemon.docker("volume", "create", "-d", "gone", "old")
    daemon.stop()
    plugin.kill()
    if not socket_stays:
        plugin.socket.unlink()
    daemon.start()
    assert daemon.docker("volume", "rm", "old", check=False).returncode == 1
    daemon.docker("volume", "rm", "-f", "old")
    assert daemon.docker("volume", "ls", "-q").stdout == b""


def test_volumes_that_others_made_are_seen_and_taken_in(world: World) -> None:
    """A plugin's volumes may come from another host, or from another engine."""
    daemon, plugin = world.daemon, world.plugin
    daemon.docker("volume", "create", "-d", "blue", "ours")
    state = plugin.state()
    state["theirs"] = {"opts": {}, "users": []}
    state["../bad"] = {"opts": {}, "users": []}
    (plugin.root / "state").write_text(json.dumps(state))
    (plugin.root / "volumes/theirs").mkdir()
    listed = daemon.docker("volume", "ls", "-f", "driver=blue", "--format", "{{.Name}}").stdout
    assert listed.split() == [b"ours", b"theirs"]
    shown = view(daemon, "theirs")
    assert (shown["Driver"], shown["CreatedAt"]) == ("blue", "2026-01-02T03:04:05Z")
    daemon.run("-v", "theirs:/a", "busybox", "touch", "/a/file")
    assert (plugin.root / "volumes/theirs/file").exists()
    daemon.docker("volume", "rm", "ours", "theirs")
    assert set(plugin.state()) == {"../bad"}
    (plugin.root / "state").unlink()


def test_an_engine_that_starts_sees_what_plugins_have(world: World) -> None:
    """Nobody has asked for the plugin in this life of the engine."""
    (world.plugin.root / "volumes/theirs").mkdir(exist_ok=True)
    state = json.dumps({"theirs": {"opts": {}, "users": []}})
    (world.plugin.root / "state").write_text(state)
    world.daemon.restart()
    assert world.daemon.docker("volume", "ls", "-q").stdout == b"theirs\n"
    world.daemon.docker("volume", "rm", "theirs")


def test_an_empty_volume_is_filled_from_the_image(world: World) -> None:
    daemon = world.daemon
    daemon.docker("volume", "create", "-d", "blue", "filled")
    listed = daemon.run("-v", "filled:/bin", "busybox", "/bin/ls", "/bin").split()
    assert "busybox" in listed
    assert (world.plugin.root / "volumes/filled/busybox").exists()
    assert view(daemon, "filled")["Status"] == {"users": 0, "color": "blue"}
    daemon.docker("volume", "rm", "filled")
