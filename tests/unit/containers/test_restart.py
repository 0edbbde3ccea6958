"""Restart policies: what is owed, after how long, and what is refused."""

from __future__ import annotations

import pytest
from tests.support.records import with_policy

from estiba.containers.restart import (
    FIRST_DELAY_S,
    MAX_DELAY_S,
    STABLE_AFTER_S,
    Restart,
    check_policy,
    decide_restart,
    delay_s,
    owes_start,
)
from estiba.model.container import RestartPolicy
from estiba.model.errors import InvalidArgument


@pytest.mark.parametrize(
    ("policy", "exit_code", "unhealthy", "owed"),
    [
        ("", 1, False, False),
        ("no", 1, False, False),
        ("always", 0, False, True),
        ("always", 1, False, True),
        ("unless-stopped", 0, False, True),
        ("unless-stopped", 137, False, True),
        ("on-failure", 0, False, False),
        ("on-failure", 1, False, True),
        ("on-unhealthy", 0, False, False),
        ("on-unhealthy", 1, False, True),
        ("on-unhealthy", 0, True, True),
        ("on-unhealthy", 143, True, True),
        ("on-failure", 0, True, False),
    ],
)
def test_what_an_exit_is_owed(policy: str, exit_code: int, unhealthy: bool, owed: bool) -> None:
    record = with_policy(policy)
    decided = decide_restart(record, exit_code=exit_code, ran_s=0, unhealthy=unhealthy)
    assert (decided is not None) == owed
    stopped = with_policy(policy, stopped_by_user=True)
    assert decide_restart(stopped, exit_code=exit_code, ran_s=0, unhealthy=unhealthy) is None


@pytest.mark.parametrize(
    ("restarts", "seconds"),
    [(0, 0.1), (1, 0.2), (2, 0.4), (5, 3.2), (9, 51.2), (10, 60), (11, 60), (10_000, 60)],
)
def test_the_delay_doubles_up_to_a_minute(restarts: int, seconds: float) -> None:
    assert delay_s(restarts) == pytest.approx(seconds)


def test_delays_never_shrink_and_stay_in_bounds() -> None:
    delays = [delay_s(restarts) for restarts in range(200)]
    assert delays == sorted(delays)
    assert delays[0] == FIRST_DELAY_S
    assert delays[-1] == MAX_DELAY_S


@pytest.mark.parametrize(
    ("ran_s", "delay"), [(0, 3.2), (STABLE_AFTER_S - 0.1, 3.2), (STABLE_AFTER_S, FIRST_DELAY_S)]
)
def test_a_stable_run_resets_the_delay_and_not_the_count(ran_s: float, delay: float) -> None:
    record = with_policy("always", restart_count=5)
    decided = decide_restart(record, exit_code=1, ran_s=ran_s)
    assert decided == Restart(pytest.approx(delay), 6)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["on-failure", "on-unhealthy"])
def test_the_maximum_counts_restarts(policy: str) -> None:
    for count, owed in [(0, True), (2, True), (3, False), (4, False)]:
        record = with_policy(policy, 3, restart_count=count)
        assert (decide_restart(record, exit_code=1, ran_s=0) is not None) == owed


@pytest.mark.parametrize("policy", ["", "no", "always", "unless-stopped", "on-failure"])
def test_policies_accepted(policy: str) -> None:
    check_policy(RestartPolicy(name=policy), auto_remove=False)


@pytest.mark.parametrize(
    ("policy", "maximum", "auto_remove", "why"),
    [
        ("sometimes", 0, False, "invalid restart policy: unknown policy 'sometimes'"),
        ("Always", 0, False, "invalid restart policy"),
        ("always", 3, False, "maximum retry count can only be used"),
        ("", 3, False, "maximum retry count can only be used with 'on-failure'"),
        ("unless-stopped", 1, False, "maximum retry count can only be used"),
        ("on-failure", -1, False, "cannot be negative"),
        ("on-unhealthy", -1, False, "cannot be negative"),
        ("always", 0, True, "AutoRemove"),
        ("on-failure", 0, True, "AutoRemove"),
    ],
)
def test_policies_refused(policy: str, maximum: int, auto_remove: bool, why: str) -> None:
    wanted = RestartPolicy(name=policy, maximum_retry_count=maximum)
    with pytest.raises(InvalidArgument, match=why):
        check_policy(wanted, auto_remove=auto_remove)


def test_no_restart_and_removal_go_together() -> None:
    check_policy(RestartPolicy(name="no"), auto_remove=True)
    check_policy(RestartPolicy(), auto_remove=True)


@pytest.mark.parametrize(
    ("policy", "exit_code", "stopped", "owed"),
    [
        ("always", 0, True, True),
        ("always", 0, False, True),
        ("unless-stopped", 0, False, True),
        ("unless-stopped", 0, True, False),
        ("on-failure", 1, False, True),
        ("on-failure", 0, False, False),
        ("on-failure", 1, True, False),
        ("on-unhealthy", 1, False, True),
        ("on-unhealthy", 0, False, False),
        ("no", 1, False, False),
        ("", 1, False, False),
    ],
)
def test_what_the_start_of_the_engine_owes(
    policy: str, exit_code: int, stopped: bool, owed: bool
) -> None:
    record = with_policy(policy, exit_code=exit_code, stopped_by_user=stopped)
    assert owes_start(record) == owed
