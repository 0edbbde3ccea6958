"""Limits that contradict the host, one another, or those that are in force already."""

from __future__ import annotations

from typing import Any

import pytest

from estiba.containers.hostfacts import HostFacts
from estiba.containers.limits import check_resources, check_update, updated
from estiba.containers.unhonoured import honoured_update, update_warnings
from estiba.kernel.cgroup import Feature
from estiba.model.container import DeviceMapping, HostConfig, Resources
from estiba.model.errors import Conflict, InvalidArgument

MB = 1024 * 1024
FACTS = HostFacts(
    cpus=4,
    memory_bytes=8 << 30,
    cgroup_v2=False,
    features=frozenset(Feature) - {Feature.BLKIO_WEIGHT},
)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"cpuset_cpus": "1-0"}, "Invalid value 1-0 for cpuset cpus: invalid format: 1-0"),
        ({"cpuset_mems": "7"}, "memory nodes are not available - requested 7, available: 0"),
        ({"cpu_realtime_period": 10, "cpu_realtime_runtime": 11}, "cannot be higher than cpu real"),
        ({"nano_cpus": 10**9, "cpu_quota": 5000}, "Nano CPUs and CPU Quota cannot both be set"),
        ({"nano_cpus": 10**9, "cpu_period": 5000}, "Nano CPUs and CPU Period cannot both be set"),
    ],
)
def test_limits_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        check_resources(Resources(**fields), FACTS)


@pytest.mark.parametrize(
    ("current", "update", "why"),
    [
        ({"cpu_quota": 5000}, {"nano_cpus": 10**9}, "as CPU Quota has already been set"),
        ({"cpu_period": 5000}, {"nano_cpus": 10**9}, "as CPU Period has already been set"),
        ({"nano_cpus": 10**9}, {"cpu_quota": 5000}, "as NanoCPUs has already been set"),
        ({"nano_cpus": 10**9}, {"cpu_period": 5000}, "as NanoCPUs has already been set"),
        (
            {"memory": 10 * MB, "memory_swap": 20 * MB},
            {"memory": 30 * MB},
            "update the memoryswap at the same time",
        ),
    ],
)
def test_updates_that_contradict_what_is_in_force(
    current: dict[str, Any], update: dict[str, Any], why: str
) -> None:
    with pytest.raises(Conflict, match=why):
        check_update(Resources(**current), Resources(**update), FACTS)


@pytest.mark.parametrize(
    ("current", "update"),
    [
        ({}, {"memory": 64 * MB}),
        ({"memory": 10 * MB, "memory_swap": -1}, {"memory": 30 * MB}),
        ({"memory": 10 * MB, "memory_swap": 20 * MB}, {"memory_swap": 30 * MB}),
        ({"memory": 10 * MB, "memory_swap": 20 * MB}, {"memory": 30 * MB, "memory_swap": 30 * MB}),
        ({"nano_cpus": 10**9}, {"nano_cpus": 2 * 10**9}),
    ],
)
def test_updates_accepted(current: dict[str, Any], update: dict[str, Any]) -> None:
    check_update(Resources(**current), Resources(**update), FACTS)


def test_swap_below_the_memory_limit_in_force() -> None:
    current = Resources(memory=64 * MB, memory_swap=128 * MB)
    with pytest.raises(InvalidArgument, match="larger than memory limit"):
        check_update(current, Resources(memory_swap=32 * MB), FACTS)


def test_an_update_says_what_it_leaves_as_it_is() -> None:
    update = Resources(
        memory=64 * MB, devices=[DeviceMapping(path_on_host="/dev/null")], blkio_weight=500
    )
    weight, devices = update_warnings(update, FACTS)
    assert "Weight discarded" in weight
    assert devices == "Devices is set when a container is created: not updated."
    assert honoured_update(update, FACTS) == Resources(memory=64 * MB)


def test_an_update_changes_what_it_names() -> None:
    host = HostConfig(memory=64 * MB, memory_swap=128 * MB, cpu_shares=5, privileged=True)
    changed = updated(host, Resources(memory=32 * MB, pids_limit=7))
    assert (changed.memory, changed.memory_swap) == (32 * MB, 128 * MB)
    assert (changed.cpu_shares, changed.pids_limit, changed.privileged) == (5, 7, True)


@pytest.mark.parametrize(
    ("swap", "update", "memory_swap"),
    [
        (0, {"memory": 64 * MB}, 128 * MB),
        (-1, {"memory": 512 * MB}, -1),
        (100 * MB, {"memory": 512 * MB, "memory_swap": 600 * MB}, 600 * MB),
        (100 * MB, {"memory": 512 * MB, "memory_swap": -1}, -1),
        (100 * MB, {"memory": 100 * MB}, 100 * MB),
    ],
)
def test_swap_after_an_update(swap: int, update: dict[str, Any], memory_swap: int) -> None:
    host = HostConfig(memory=50 * MB if swap else 0, memory_swap=swap)
    assert updated(host, Resources(**update)).memory_swap == memory_swap


def test_a_quota_that_was_taken_away_is_none() -> None:
    check_update(Resources(cpu_quota=-1), Resources(nano_cpus=10**9), FACTS)
