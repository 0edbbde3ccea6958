"""Limits that the host's kernel lacks are named and left out."""

from __future__ import annotations

from typing import Any

import pytest

from estiba.containers.hostfacts import HostFacts
from estiba.containers.unhonoured import honoured_limits, limit_warnings, warnings_for
from estiba.kernel.cgroup import Feature
from estiba.model.container import (
    Config,
    HealthConfig,
    HostConfig,
    Resources,
    ThrottleDevice,
    WeightDevice,
)

MB = 1 << 20
RATES = [ThrottleDevice(path="/dev/sda", rate=1)]


def facts(*lacking: Feature) -> HostFacts:
    features = frozenset(Feature) - set(lacking)
    return HostFacts(cpus=4, memory_bytes=8 << 30, cgroup_v2=True, features=features)


@pytest.mark.parametrize(
    ("feature", "fields", "says"),
    [
        (Feature.MEMORY, {"memory": 10 * MB, "memory_swap": 20 * MB}, "memory limit"),
        (Feature.MEMORY_RESERVATION, {"memory_reservation": 10 * MB}, "memory soft limit"),
        (Feature.SWAPPINESS, {"memory_swappiness": 10}, "memory swappiness"),
        (Feature.OOM_KILL_DISABLE, {"memory": MB, "oom_kill_disable": True}, "OomKillDisable"),
        (Feature.PIDS, {"pids_limit": 5}, "PIDs limit"),
        (Feature.CPU_SHARES, {"cpu_shares": 5}, "CPU shares"),
        (Feature.CPU_QUOTA, {"nano_cpus": 5}, "CPU CFS"),
        (Feature.CPU_QUOTA, {"cpu_period": 5, "cpu_quota": 5}, "CPU CFS"),
        (Feature.CPU_REALTIME, {"cpu_realtime_period": 5}, "real-time"),
        (Feature.CPUSET, {"cpuset_cpus": "0", "cpuset_mems": "0"}, "cpuset"),
        (Feature.BLKIO_WEIGHT, {"blkio_weight": 10}, "Block I/O weight"),
        (Feature.BLKIO_WEIGHT, {"blkio_weight_device": [WeightDevice(path="/dev/sda")]}, "weight"),
        (Feature.BLKIO_THROTTLE, {"blkio_device_write_iops": RATES}, "Block I/O rate"),
    ],
)
def test_what_the_host_cannot_honour_is_said_and_discarded(
    feature: Feature, fields: dict[str, Any], says: str
) -> None:
    wanted = Resources(**fields)
    warnings = list(limit_warnings(wanted, facts(feature)))
    assert len(warnings) == 1
    assert says in warnings[0]
    kept = honoured_limits(wanted, facts(feature))
    assert not list(limit_warnings(kept, facts(feature)))
    assert not list(limit_warnings(wanted, facts()))
    assert honoured_limits(wanted, facts()) == wanted


def test_memory_stays_limited_without_swap_accounting() -> None:
    wanted = Resources(memory=10 * MB)
    (warning,) = limit_warnings(wanted, facts(Feature.SWAP))
    assert "Memory limited without swap" in warning
    assert honoured_limits(wanted, facts(Feature.SWAP)).memory == 10 * MB


def test_no_limit_needs_nothing() -> None:
    free = Resources(memory_swap=-1, memory_swappiness=-1, pids_limit=-1, cpu_quota=-1)
    assert not list(limit_warnings(free, facts(*Feature)))
    assert not list(limit_warnings(Resources(pids_limit=0), facts(*Feature)))


def test_warnings_that_no_kernel_saves_from() -> None:
    (kernel_memory,) = limit_warnings(Resources(kernel_memory=1), facts())
    assert "Kernel memory" in kernel_memory
    assert honoured_limits(Resources(kernel_memory=1), facts()).kernel_memory == 0
    (endless,) = warnings_for(Config(), HostConfig(oom_kill_disable=True), facts())
    assert "no memory limit is set" in endless


def test_a_health_check_that_is_never_run_is_told() -> None:
    for test in ([], ["NONE"], ["CMD", "true"], ["CMD-SHELL", "true"]):
        config = Config(healthcheck=HealthConfig(test=test))
        assert not list(warnings_for(config, HostConfig(), facts()))
    config = Config(healthcheck=HealthConfig(test=["true"]))
    (told,) = warnings_for(config, HostConfig(), facts())
    assert told.startswith("The health check begins with 'true' and is never run")
