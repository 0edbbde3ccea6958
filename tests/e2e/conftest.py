"""Fixtures of whole daemons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon
from tests.support.leaks import HostState, assert_clean
from tests.support.plugins.managed import pids_of
from tests.support.plugins.tree import plugin_tree
from tests.support.registry import POLICY, OwnRegistry, write_people


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plugin_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture
def plugged(daemon: PrivateDaemon, tree: Path) -> Iterator[PrivateDaemon]:
    """The module's daemon with the plugin made, and nothing of it afterwards."""
    before = HostState.read(only=daemon.tag)
    daemon.docker("plugin", "create", "test/vol", str(tree))
    yield daemon
    for volume in daemon.request("GET", "/volumes")[1]["Volumes"]:
        daemon.docker("volume", "rm", "-f", volume["Name"])
    for plugin in daemon.request("GET", "/plugins")[1]:
        daemon.docker("plugin", "rm", "-f", plugin["Id"])
    assert list((daemon.data_root / "plugins/content").iterdir()) == []
    assert list((daemon.data_root / "plugins/mounts").iterdir()) == []
    assert pids_of(daemon) == []
    assert_clean(before, only=daemon.tag)


@pytest.fixture
def clean(daemon: PrivateDaemon) -> Iterator[None]:
    """No test leaves a container, mount, link or process behind."""
    before = HostState.read(only=daemon.tag)
    yield
    for line in daemon.docker("ps", "-aq").stdout.decode().split():
        daemon.docker("rm", "-fv", line)
    assert_clean(before, only=daemon.tag)


@pytest.fixture
def start_registry(tmp_path: Path) -> Iterator[Callable[..., OwnRegistry]]:
    """Starts registries by their flags; they end well and without a traceback."""
    made: list[OwnRegistry] = []

    def start(*flags: str) -> OwnRegistry:
        made.append(OwnRegistry(tmp_path / f"registry{len(made)}", flags))
        made[-1].start()
        return made[-1]

    yield start
    for registry in made:
        if registry.process is not None and registry.process.poll() is None:
            assert registry.stop() == 0
        assert "Traceback" not in registry.log.read_text()


@pytest.fixture
def guarded(tmp_path: Path) -> tuple[str, ...]:
    """Flags of a registry: `ana` and `ben`, whose passwords are their names, and their rights."""
    htpasswd, policy = tmp_path / "htpasswd", tmp_path / "policy.toml"
    policy.write_text(POLICY)
    write_people(htpasswd, ana="ana", ben="ben")
    return "--htpasswd", str(htpasswd), "--policy", str(policy)
