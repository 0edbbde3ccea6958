"""Health checks: what is planned, what results mean, and a watch that runs them."""

from __future__ import annotations

import asyncio

import pytest

from estiba.containers.health import (
    HEALTHY,
    KEPT_RESULTS,
    MAX_OUTPUT_BYTES,
    STARTING,
    UNHEALTHY,
    HealthPlan,
    HealthWatch,
    after_probe,
    duration,
    plan_health,
    wait_before,
)
from estiba.containers.record import Health, ProbeResult
from estiba.model.container import Config, HealthConfig
from estiba.model.errors import InvalidArgument

MS = 1_000_000


def planned(shell: list[str] | None = None, **check: object) -> HealthPlan | None:
    health = HealthConfig(**{"test": ["CMD", "true"], **check})  # type: ignore[arg-type]
    return plan_health(Config(healthcheck=health, shell=shell))


def plan(**changes: object) -> HealthPlan:
    made = {
        "argv": ["true"],
        "interval_s": 30.0,
        "timeout_s": 30.0,
        "retries": 3,
        "start_period_s": 0.0,
        "start_interval_s": 5.0,
    }
    return HealthPlan(**{**made, **changes})  # type: ignore[arg-type]


def result(code: int, number: int = 0) -> ProbeResult:
    return ProbeResult(started_ns=number, ended_ns=number + 1, exit_code=code, output="")


# -- plans ---------------------------------------------------------------------------------


def test_docker_s_defaults() -> None:
    assert planned() == HealthPlan(["true"], 30.0, 30.0, 3, 0.0, 5.0)


def test_everything_given() -> None:
    made = planned(
        test=["CMD", "check", "--fast"],
        interval=1500 * MS,
        timeout=MS,
        retries=1,
        start_period=2000 * MS,
        start_interval=10 * MS,
    )
    assert made == HealthPlan(["check", "--fast"], 1.5, 0.001, 1, 2.0, 0.01)


@pytest.mark.parametrize(
    ("shell", "argv"),
    [(None, ["/bin/sh", "-c", "a && b"]), (["bash", "-lc"], ["bash", "-lc", "a && b"])],
)
def test_a_shell_check_uses_the_image_s_shell(shell: list[str] | None, argv: list[str]) -> None:
    made = planned(shell, test=["CMD-SHELL", "a && b"])
    assert made is not None
    assert made.argv == argv
    made = planned(shell, test=["CMD-SHELL", "a && b", "zero"])
    assert made is not None, "more words are the shell's, as in Docker"
    assert made.argv == [*argv, "zero"]


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(healthcheck=HealthConfig()),
        Config(healthcheck=HealthConfig(test=["NONE"])),
        Config(healthcheck=HealthConfig(test=["true"])),
    ],
)
def test_no_check(config: Config) -> None:
    assert plan_health(config) is None


@pytest.mark.parametrize(
    ("check", "why"),
    [
        ({"test": ["CMD"]}, "invalid health check"),
        ({"test": ["CMD-SHELL"]}, "invalid health check"),
        ({"interval": MS - 1}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"test": [], "interval": MS - 1}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"test": ["NONE"], "retries": -1}, "Retries in Healthcheck cannot be negative"),
        ({"timeout": -1}, "Timeout in Healthcheck cannot be less"),
        ({"start_period": 5}, "StartPeriod in Healthcheck cannot be less"),
        ({"start_interval": 5}, "StartInterval in Healthcheck cannot be less"),
        ({"retries": -1}, "Retries in Healthcheck cannot be negative"),
    ],
)
def test_checks_refused(check: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        planned(**check)


# -- transitions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "streak", "code", "in_start", "after", "streak_after"),
    [
        (STARTING, 0, 0, True, HEALTHY, 0),
        (STARTING, 0, 0, False, HEALTHY, 0),
        (STARTING, 0, 1, True, STARTING, 0),
        (STARTING, 0, 1, False, STARTING, 1),
        (STARTING, 2, 1, False, UNHEALTHY, 3),
        (HEALTHY, 0, 1, True, HEALTHY, 1),
        (HEALTHY, 1, 1, False, HEALTHY, 2),
        (HEALTHY, 2, 1, False, UNHEALTHY, 3),
        (HEALTHY, 2, 0, False, HEALTHY, 0),
        (UNHEALTHY, 3, 1, False, UNHEALTHY, 4),
        (UNHEALTHY, 9, 0, False, HEALTHY, 0),
        (HEALTHY, 2, -1, False, UNHEALTHY, 3),
    ],
)
def test_transitions(
    before: str, streak: int, code: int, in_start: bool, after: str, streak_after: int
) -> None:
    health = Health(status=before, failing_streak=streak)
    changed = after_probe(health, result(code), plan(), in_start_period=in_start)
    assert (changed.status, changed.failing_streak) == (after, streak_after)
    assert changed.log == [result(code)]


def test_the_newest_results_are_kept() -> None:
    health = Health()
    for number in range(12):
        health = after_probe(health, result(number % 2, number), plan(), in_start_period=True)
    assert [kept.started_ns for kept in health.log] == list(range(12))[-KEPT_RESULTS:]


@pytest.mark.parametrize(
    ("status", "in_start", "wait"),
    [
        (STARTING, True, 5.0),
        (STARTING, False, 30.0),
        (HEALTHY, True, 30.0),
        (UNHEALTHY, False, 30.0),
    ],
)
def test_the_wait_before_a_probe(status: str, in_start: bool, wait: float) -> None:
    health = Health(status=status)
    assert wait_before(plan(), health, in_start_period=in_start) == wait
    quick = plan(interval_s=0.5)
    assert wait_before(quick, health, in_start_period=in_start) == 0.5


# -- the watch -----------------------------------------------------------------------------


async def test_the_watch_reports_every_result_and_goes_on_from_it() -> None:
    outcomes: list[tuple[int, str] | BaseException] = [
        (1, "no"),
        TimeoutError(),
        (0, "x" * 10_000),
        (1, "again"),
    ]
    seen: list[Health] = []
    enough = asyncio.Event()

    async def probe(argv: list[str], timeout_s: float) -> tuple[int, str]:
        assert (argv, timeout_s) == (["true"], 2.0)
        outcome = outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def report(health: Health, last: ProbeResult) -> None:
        assert health.log[-1] == last
        assert last.started_ns <= last.ended_ns
        seen.append(health)
        if not outcomes:
            enough.set()
            await asyncio.Event().wait()

    watch = HealthWatch(plan(interval_s=0.001, timeout_s=2.0, retries=2), probe, report)
    task = asyncio.create_task(watch.run(Health()))
    async with asyncio.timeout(5):
        await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(health.status, health.failing_streak) for health in seen] == [
        (STARTING, 1),
        (UNHEALTHY, 2),
        (HEALTHY, 0),
        (HEALTHY, 1),
    ]
    assert seen[1].log[-1].exit_code == -1
    assert "exceeded timeout (2s)" in seen[1].log[-1].output
    assert len(seen[2].log[-1].output) == MAX_OUTPUT_BYTES


async def test_failures_in_the_start_period_do_not_count() -> None:
    seen: list[Health] = []
    enough = asyncio.Event()

    async def probe(_argv: list[str], _timeout_s: float) -> tuple[int, str]:
        return 1, ""

    async def report(health: Health, _last: ProbeResult) -> None:
        seen.append(health)
        if len(seen) == 10:
            enough.set()

    made = plan(retries=1, start_period_s=60.0, start_interval_s=0.001)
    task = asyncio.create_task(HealthWatch(made, probe, report).run(Health()))
    async with asyncio.timeout(5):
        await enough.wait()
    task.cancel()
    assert {health.status for health in seen} == {STARTING}
    assert {health.failing_streak for health in seen} == {0}


async def test_a_check_that_cannot_be_started_failed_and_is_tried_again() -> None:
    seen: list[Health] = []
    enough = asyncio.Event()

    async def probe(_argv: list[str], _timeout_s: float) -> tuple[int, str]:
        if not seen:
            raise OSError(28, "No space left on device")
        raise InvalidArgument("unable to find user web")

    async def report(health: Health, _last: ProbeResult) -> None:
        seen.append(health)
        if len(seen) == 2:
            enough.set()

    task = asyncio.create_task(HealthWatch(plan(interval_s=0.001), probe, report).run(Health()))
    async with asyncio.timeout(5):
        await enough.wait()
    task.cancel()
    assert "No space left" in seen[0].log[0].output
    assert "unable to find user web" in seen[1].log[1].output
    assert [result.exit_code for result in seen[1].log] == [-1, -1]


async def test_a_paused_container_is_not_probed() -> None:
    """Nothing in it could answer, and it would be called unhealthy for that."""
    probed: list[bool] = []
    paused, probing = True, asyncio.Event()
    looked = asyncio.Event()

    def is_paused() -> bool:
        looked.set()
        return paused

    async def probe(_argv: list[str], _timeout_s: float) -> tuple[int, str]:
        probed.append(paused)
        probing.set()
        return 0, ""

    async def report(_health: Health, _last: ProbeResult) -> None: ...

    watch = HealthWatch(plan(interval_s=0.001), probe, report, is_paused=is_paused)
    task = asyncio.create_task(watch.run(Health()))
    async with asyncio.timeout(5):
        for _ in range(3):
            looked.clear()
            await looked.wait()
        assert not probed
        paused = False
        await probing.wait()
    task.cancel()
    assert probed[0] is False


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.05, "50ms"), (1.5, "1.5s"), (30, "30s"), (60, "1m0s"), (90.5, "1m30.5s"), (3600, "1h0m0s")],
)
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
