"""Managed plugins that travel through registries, by docker and by our own client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon
from tests.support.plugins.managed import NAME, inspect, pids_of
from tests.support.plugins.tree import plugin_tree
from tests.support.registries import GenuineRegistry, genuine_registry
from tests.support.registry import OwnRegistry

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", params=["own", "genuine"])
def registry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    root = tmp_path_factory.mktemp("registry")
    if request.param == "own":
        with OwnRegistry(root / "store") as own:
            yield own.host
        return
    if not GenuineRegistry.is_installed():
        pytest.skip("needs docker-registry")
    with genuine_registry(root / "store") as genuine:
        yield genuine.host


def test_a_plugin_travels_through_a_registry(
    daemon: PrivateDaemon, registry: str, tmp_path: Path
) -> None:
    tree = plugin_tree(tmp_path, network={"type": "host"}, linux={"capabilities": ["CAP_SYSLOG"]})
    name = f"{registry}/team/vol:1"
    daemon.docker("plugin", "create", name, str(tree))
    assert b"digest: sha256:" in daemon.docker("plugin", "push", name).stdout
    again = daemon.docker("plugin", "push", name).stdout
    assert b"Layer already exists" in again
    daemon.docker("plugin", "rm", name)
    refused = daemon.docker("plugin", "install", name, stdin=b"n\n", check=False)
    assert refused.returncode == 1
    assert b" - network: [host]" in refused.stdout
    assert b" - capabilities: [CAP_SYSLOG]" in refused.stdout
    assert daemon.docker("plugin", "ls", "-q").stdout == b""
    installed = daemon.docker(
        "plugin", "install", "--alias", "mine", "--grant-all-permissions", name, "COLOUR=red"
    )
    assert f"Installed plugin {name}".encode() in installed.stdout
    view = inspect(daemon, "mine")
    assert (view["Name"], view["PluginReference"], view["Enabled"]) == ("mine:latest", name, True)
    assert "COLOUR=red" in view["Settings"]["Env"]
    (pid,) = pids_of(daemon)
    assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    daemon.docker("volume", "create", "-d", "mine", "vol")
    daemon.run("-v", "vol:/a", "busybox", "touch", "/a/x")
    daemon.docker("volume", "rm", "vol")
    done = daemon.docker("plugin", "upgrade", "mine", check=False)
    assert b"must be disabled" in done.stderr
    daemon.docker("plugin", "disable", "mine")
    daemon.docker("plugin", "upgrade", "--grant-all-permissions", "mine")
    assert "COLOUR=red" in inspect(daemon, "mine")["Settings"]["Env"]
    daemon.docker("plugin", "enable", "mine")
    daemon.docker("plugin", "rm", "-f", "mine")
    assert pids_of(daemon) == []


def test_privileges_are_granted_exactly(
    daemon: PrivateDaemon, registry: str, tmp_path: Path
) -> None:
    tree = plugin_tree(tmp_path, linux={"capabilities": ["CAP_SYSLOG"]})
    name = f"{registry}/team/wants:1"
    daemon.docker("plugin", "create", name, str(tree))
    daemon.docker("plugin", "push", name)
    daemon.docker("plugin", "rm", name)
    status, needed = daemon.request("GET", f"/plugins/privileges?remote={name}")
    assert status == 200
    assert [one["Name"] for one in needed] == ["capabilities"]
    more = [*needed, {"Name": "network", "Description": "x", "Value": ["host"]}]
    for granted in ([], more, [{**needed[0], "Value": ["CAP_SYS_ADMIN"]}]):
        status, answer = daemon.request("POST", f"/plugins/pull?remote={name}", granted)
        assert status == 400, answer
        assert "incorrect privileges" in answer["message"]
    assert daemon.request("GET", "/plugins")[1] == []


def test_what_a_registry_has_not(daemon: PrivateDaemon, registry: str) -> None:
    done = daemon.docker(
        "plugin", "install", "--grant-all-permissions", f"{registry}/team/none", check=False
    )
    assert done.returncode == 1
    daemon.docker("tag", "busybox", f"{registry}/team/image:1")
    daemon.docker("push", f"{registry}/team/image:1")
    done = daemon.docker(
        "plugin", "install", "--grant-all-permissions", f"{registry}/team/image:1", check=False
    )
    assert b"did not find plugin config" in done.stderr
    daemon.docker("rmi", f"{registry}/team/image:1")
    assert list((daemon.data_root / "plugins/content").iterdir()) == []


def test_an_engine_killed_in_a_pull_leaves_nothing(
    make_daemon: Callable[..., PrivateDaemon], tmp_path: Path, tree: Path
) -> None:
    daemon = make_daemon()
    daemon.start({"ESTIBA_FAILPOINTS": "managed.fetched=kill"})
    with OwnRegistry(tmp_path / "registry") as own:
        name = f"{own.host}/team/vol:1"
        daemon.docker("plugin", "create", name, str(tree))
        daemon.docker("plugin", "push", name)
        daemon.docker("plugin", "rm", name)
        daemon.docker("plugin", "install", "--grant-all-permissions", name, check=False)
        daemon.wait_death()
        assert len(list((daemon.data_root / "plugins/content").iterdir())) == 1
        daemon.start()
        assert list((daemon.data_root / "plugins/content").iterdir()) == []
        daemon.docker("plugin", "install", "--disable", "--grant-all-permissions", name)
        assert inspect(daemon, name)["Enabled"] is False


# -- the client of ours ------------------------------------------------------------------------


def test_estiba_has_dockers_words(plugged: PrivateDaemon, tmp_path: Path) -> None:
    daemon = plugged

    def estiba(*words: str, stdin: bytes = b"", code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "estiba.cli.main", *words],
            input=stdin, capture_output=True, env=daemon.client_environment(), check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr.decode()
        return done.stdout.decode() + done.stderr.decode()

    assert estiba("plugin", "ls") == daemon.docker("plugin", "ls").stdout.decode()
    form = "{{json .}}"
    assert (
        estiba("plugin", "ls", "--no-trunc", "--format", form)
        == daemon.docker("plugin", "ls", "--no-trunc", "--format", form).stdout.decode()
    )
    assert (
        estiba("plugin", "inspect", NAME)
        == daemon.docker("plugin", "inspect", NAME).stdout.decode()
    )
    assert estiba("plugin", "set", NAME, "COLOUR=red") == ""
    assert estiba("plugin", "enable", NAME) == f"{NAME}\n"
    assert "already enabled" in estiba("plugin", "enable", NAME, code=1)
    assert estiba("plugin", "disable", NAME) == f"{NAME}\n"
    tree = plugin_tree(tmp_path / "tree", linux={"capabilities": ["CAP_SYSLOG"]})
    with OwnRegistry(tmp_path / "registry") as own:
        name = f"{own.host}/team/vol:1"
        assert estiba("plugin", "create", "--compress", name, str(tree)) == f"{name}\n"
        assert "digest: sha256:" in estiba("plugin", "push", name)
        assert estiba("plugin", "rm", name) == f"{name}\n"
        told = estiba("plugin", "install", name, stdin=b"\n", code=1)
        assert " - capabilities: [CAP_SYSLOG]" in told
        assert "permission denied while installing plugin" in told
        told = estiba("plugin", "install", "--disable", name, stdin=b"y\n")
        assert told.endswith(f"Installed plugin {name}\n")
        told = estiba("plugin", "upgrade", "--grant-all-permissions", name)
        assert told.endswith(f"Upgraded plugin {name} to {name}\n")
    assert estiba("plugin", "rm", "-f", name) == f"{name}\n"
