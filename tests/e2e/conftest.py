"""Fixtures of whole daemons."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon
from tests.support.leaks import HostState, assert_clean
from tests.support.plugins.managed import pids_of
from tests.support.plugins.tree import plugin_tree


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
