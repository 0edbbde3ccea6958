"""Fixtures that all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.daemon import PrivateDaemon
from tests.support.leaks import HostState, assert_clean
from tests.support.scripted import ScriptedServer, scripted
from tests.support.served import Served

# Property tests draw the same cases in every run, however slow the machine is.
settings.register_profile(
    "estiba",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("estiba")


def pytest_configure() -> None:
    """A shell ignores it for what runs with "&", and all programs of tests would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the kernel and whole daemons need root; without it they say so."""
    if os.geteuid() == 0:
        return
    reason = pytest.mark.skip(reason="needs root: namespaces and mounts are real here")
    for item in items:
        if item.get_closest_marker("kernel") or item.get_closest_marker("e2e"):
            item.add_marker(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what the daemons said that are there."""
    report = yield
    if report.failed:
        for each in PrivateDaemon.opened:
            report.sections.append(("daemon", each.story()))
    return report


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateDaemon]:
    """A private daemon with the image busybox; checks that its containers leave nothing."""
    made = PrivateDaemon(tmp_path_factory.mktemp("daemon"))
    made.start()
    made.import_busybox()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def emptied(daemon: PrivateDaemon) -> Iterator[None]:
    """No container, network or volume of a test outlives it, nor what they need of the host."""
    before = {only: HostState.read(only=only) for only in (daemon.tag, str(daemon.root))}
    yield
    for container in daemon.request("GET", "/containers/json?all=1")[1]:
        daemon.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
    daemon.request("POST", "/networks/prune")
    for volume in daemon.request("GET", "/volumes")[1]["Volumes"] or []:
        daemon.request("DELETE", f"/volumes/{volume['Name']}?force=1")
    for only, state in before.items():
        assert_clean(state, only=only)


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., PrivateDaemon]]:
    """Makes private daemons with flags of their own."""
    made: list[PrivateDaemon] = []

    def make(*flags: str) -> PrivateDaemon:
        root = tmp_path / f"daemon{len(made)}"
        root.mkdir()
        made.append(PrivateDaemon(root, *flags))
        return made[-1]

    yield make
    for daemon in made:
        daemon.close()


@pytest.fixture
def served() -> Served:
    """What the registry of `registry` has."""
    return Served()


@pytest.fixture
def registry(served: Served) -> Iterator[ScriptedServer]:
    with scripted(served) as server:
        yield server
