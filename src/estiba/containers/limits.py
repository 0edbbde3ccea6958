"""Checks of a container's limits, at its creation and when they change. Pure."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from estiba.containers.hostfacts import HostFacts
from estiba.model.container import Resources
from estiba.model.errors import Conflict, InvalidArgument
from estiba.model.limits import (
    MIN_MEMORY_BYTES,
    check_cpu_set,
    check_cpu_times,
    check_memory,
    check_memory_nodes,
)

R = TypeVar("R", bound=Resources)


def check_resources(resources: Resources, facts: HostFacts) -> None:
    """Raises InvalidArgument for limits that contradict one another or the host."""
    _check_memory(resources)
    _check_cpu(resources, facts)
    if resources.blkio_weight and not 10 <= resources.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    for limit in resources.ulimits:
        if limit.soft > limit.hard and limit.hard != -1:
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.name}"
            )


def default_swap(limits: Resources) -> int:
    """Docker's rule: with a memory limit and no swap limit, as much swap as memory."""
    if limits.memory > 0 and limits.memory_swap == 0:
        return limits.memory * 2
    return limits.memory_swap


def updated(current: R, update: Resources) -> R:
    """`current` with what an update names; a first memory limit brings its swap along."""
    merged = msgspec.structs.replace(current, **named(update))
    return msgspec.structs.replace(merged, memory_swap=default_swap(merged))


def named(update: Resources) -> dict[str, object]:
    """The limits that an update names; what is zero it leaves as it is."""
    nothing = Resources()
    return {
        name: value
        for name in update.__struct_fields__
        if (value := getattr(update, name)) != getattr(nothing, name)
    }


def check_update(current: Resources, update: Resources, facts: HostFacts) -> None:
    """Raises Conflict or InvalidArgument for limits that do not go with those in force."""
    if update.nano_cpus and (current.cpu_period or current.cpu_quota > 0):
        what = "CPU Period" if current.cpu_period else "CPU Quota"
        raise Conflict(
            f"Conflicting options: Nano CPUs cannot be updated as {what} has already been set"
        )
    for what, value in (("CPU Period", update.cpu_period), ("CPU Quota", update.cpu_quota)):
        if value and current.nano_cpus:
            raise Conflict(
                f"Conflicting options: {what} cannot be updated as NanoCPUs has already been set"
            )
    if 0 < current.memory_swap < update.memory and not update.memory_swap:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time"
        )
    check_resources(updated(current, update), facts)


def _check_memory(resources: Resources) -> None:
    check_memory(resources.memory, resources.memory_swap)
    memory, reservation = resources.memory, resources.memory_reservation
    if reservation and reservation < MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if memory and reservation > memory:
        raise InvalidArgument(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    swappiness = resources.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidArgument(
            f"Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )


def _check_cpu(resources: Resources, facts: HostFacts) -> None:
    if resources.nano_cpus:
        for what, value in (("Period", resources.cpu_period), ("Quota", resources.cpu_quota)):
            if value > 0:
                raise InvalidArgument(
                    f"Conflicting options: Nano CPUs and CPU {what} cannot both be set"
                )
        if not 0 < resources.nano_cpus <= facts.cpus * 1_000_000_000:
            raise InvalidArgument(
                f"range of CPUs is from 0.01 to {facts.cpus}.00, as there are only "
                f"{facts.cpus} CPUs available"
            )
    check_cpu_times(resources.cpu_period, resources.cpu_quota)
    if resources.cpu_shares < 0:
        raise InvalidArgument(
            f"invalid CPU shares ({resources.cpu_shares}): value must be a positive integer"
        )
    if resources.cpu_realtime_runtime > resources.cpu_realtime_period > 0:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")
    check_cpu_set(resources.cpuset_cpus, facts.cpus)
    check_memory_nodes(resources.cpuset_mems, facts.memory_nodes)
