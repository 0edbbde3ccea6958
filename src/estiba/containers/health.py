"""Health checks: a probe at intervals in the container, and what its results mean.

The decisions are pure (`HealthPlan`, `after_probe`); `HealthWatch` runs them for one container.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from estiba.containers.record import Health, ProbeResult
from estiba.model.container import Config, HealthConfig
from estiba.model.errors import EstibaError, InvalidArgument

STARTING = "starting"
HEALTHY = "healthy"
UNHEALTHY = "unhealthy"

KEPT_RESULTS = 5
MAX_OUTPUT_BYTES = 4096
_SECOND_NS = 1_000_000_000
_LEAST_NS = 1_000_000
_KINDS = ("NONE", "CMD", "CMD-SHELL")

RunProbe = Callable[[list[str], float], Awaitable[tuple[int, str]]]
"""Runs argv in the container within so many seconds: (exit code, output).

Raises TimeoutError with what was printed until then.
"""


@dataclass(frozen=True, slots=True)
class HealthPlan:
    """A health check with all defaults filled in; times in seconds."""

    argv: list[str]
    interval_s: float
    timeout_s: float
    retries: int
    start_period_s: float
    start_interval_s: float


def is_unknown(check: HealthConfig) -> bool:
    """Whether the test is of no form that there is; Docker takes such a check and never runs it."""
    return bool(check.test) and check.test[0] not in _KINDS


def plan_health(config: Config) -> HealthPlan | None:
    """The plan for a container, or None when it has no check: one of an unknown form is never run.

    Raises InvalidArgument for a test without a command or a time below a millisecond.
    """
    check = config.healthcheck
    if check is None:
        return None
    for name, value in (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ):
        if value != 0 and value < _LEAST_NS:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")
    if not check.test or check.test[0] == "NONE" or is_unknown(check):
        return None
    kind, *rest = check.test
    if not rest:
        raise InvalidArgument(
            f"invalid health check {check.test}: use NONE, CMD with arguments, "
            "or CMD-SHELL with one string"
        )
    argv = rest if kind == "CMD" else [*(config.shell or ["/bin/sh", "-c"]), *rest]
    return HealthPlan(
        argv=argv,
        interval_s=(check.interval or 30 * _SECOND_NS) / _SECOND_NS,
        timeout_s=(check.timeout or 30 * _SECOND_NS) / _SECOND_NS,
        retries=check.retries or 3,
        start_period_s=check.start_period / _SECOND_NS,
        start_interval_s=(check.start_interval or 5 * _SECOND_NS) / _SECOND_NS,
    )


def after_probe(
    health: Health, result: ProbeResult, plan: HealthPlan, *, in_start_period: bool
) -> Health:
    """The health after `result`: a failure within the start period counts only afterwards."""
    log = [*health.log, result][-KEPT_RESULTS:]
    if result.exit_code == 0:
        return Health(status=HEALTHY, failing_streak=0, log=log)
    if in_start_period and health.status == STARTING:
        return msgspec.structs.replace(health, log=log)
    streak = health.failing_streak + 1
    status = UNHEALTHY if streak >= plan.retries else health.status
    return Health(status=status, failing_streak=streak, log=log)


def wait_before(plan: HealthPlan, health: Health, *, in_start_period: bool) -> float:
    """Seconds until the next probe."""
    if in_start_period and health.status == STARTING:
        return min(plan.start_interval_s, plan.interval_s)
    return plan.interval_s


def duration(seconds: float) -> str:
    """As Go writes it: 50ms, 1.5s, 1m30s, 1h0m0s."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:g}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


class HealthWatch:
    """Probes one running container until cancelled and reports every result.

    A container that is paused is not probed: nothing in it could answer.
    """

    def __init__(
        self,
        plan: HealthPlan,
        probe: RunProbe,
        report: Callable[[Health, ProbeResult], Awaitable[None]],
        *,
        is_paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._plan = plan
        self._probe = probe
        self._report = report
        self._is_paused = is_paused

    async def run(self, health: Health) -> None:
        """Runs until cancelled; `health` is the state to go on from."""
        started = time.monotonic()

        def starting() -> bool:
            return time.monotonic() - started < self._plan.start_period_s

        while True:
            await asyncio.sleep(wait_before(self._plan, health, in_start_period=starting()))
            if self._is_paused():
                continue
            result = await self._once()
            if self._is_paused():
                continue  # it was frozen, and says nothing of the container's health
            health = after_probe(health, result, self._plan, in_start_period=starting())
            await self._report(health, result)

    async def _once(self) -> ProbeResult:
        began = time.time_ns()
        try:
            code, output = await self._probe(self._plan.argv, self._plan.timeout_s)
        except TimeoutError as error:
            limit = duration(self._plan.timeout_s)
            code, output = -1, f"Health check exceeded timeout ({limit})"
            if printed := str(error):
                output = f"{output}: {printed}"
        except (EstibaError, OSError) as error:
            code, output = -1, f"the check could not be started: {error}"
        return ProbeResult(
            started_ns=began,
            ended_ns=time.time_ns(),
            exit_code=code,
            output=output[:MAX_OUTPUT_BYTES],
        )
