"""Whether and when a container that ended is started again. Pure decisions."""

from __future__ import annotations

from dataclasses import dataclass

from estiba.containers.record import ContainerRecord
from estiba.model.container import RestartPolicy
from estiba.model.errors import InvalidArgument

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 60.0
STABLE_AFTER_S = 10.0
"""A run at least this long resets the delay."""

_POLICIES = ("", "no", "always", "unless-stopped", "on-failure", "on-unhealthy")


@dataclass(frozen=True, slots=True)
class Restart:
    """Start again after `delay_s`; `count` is the new restart count."""

    delay_s: float
    count: int


def check_policy(policy: RestartPolicy, *, auto_remove: bool) -> None:
    """Raises InvalidArgument for a policy that makes no sense."""
    if policy.name not in _POLICIES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name[:32]}'; use one of 'no', "
            "'always', 'on-failure', 'on-unhealthy', or 'unless-stopped'"
        )
    counts = policy.name in ("on-failure", "on-unhealthy")
    if policy.maximum_retry_count and not counts:
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure' "
            "and 'on-unhealthy'"
        )
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def decide_restart(
    record: ContainerRecord, *, exit_code: int, ran_s: float, unhealthy: bool = False
) -> Restart | None:
    """What the policy owes a container that has just ended, or None.

    `unhealthy` says that the engine itself stopped it for its failing health check.
    """
    policy = record.host_config.restart_policy
    if record.stopped_by_user or policy.name in ("", "no"):
        return None
    if policy.name == "on-failure" and exit_code == 0:
        return None
    if policy.name == "on-unhealthy" and exit_code == 0 and not unhealthy:
        return None
    stable = ran_s >= STABLE_AFTER_S
    limit = policy.maximum_retry_count
    if limit and record.restart_count >= limit:
        return None
    return Restart(
        FIRST_DELAY_S if stable else delay_s(record.restart_count), record.restart_count + 1
    )


def delay_s(restarts: int) -> float:
    """100 ms, doubled with every restart, one minute at most."""
    return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(restarts, 20))


def owes_start(record: ContainerRecord) -> bool:
    """Whether the engine starts this container when the engine itself starts."""
    name = record.host_config.restart_policy.name
    if name == "always":
        return True
    if record.stopped_by_user:
        return False
    if name == "unless-stopped":
        return True
    return name in ("on-failure", "on-unhealthy") and record.exit_code != 0
