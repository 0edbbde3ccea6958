"""The filters of `GET /containers/json` and of prune. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from estiba.containers.record import ContainerRecord
from estiba.model.errors import InvalidArgument
from estiba.model.state import ContainerState
from estiba.model.times import parse_moment

Filters = Mapping[str, list[str]]
_Test = Callable[[ContainerRecord, str], bool]

_PORTS = re.compile(r"\d{1,9}(-\d{0,9})?")
ANCESTOR = "ancestor"
_ORDERED = ("before", "since")
_CHOICES: dict[str, tuple[str, Sequence[str]]] = {
    "status": ("state", tuple(ContainerState)),
    "health": ("health", ("none", "starting", "healthy", "unhealthy")),
    "is-task": ("a truth", ("true", "false", "1", "0", "True", "False")),
}


def filter_containers(
    records: Iterable[ContainerRecord],
    filters: Filters,
    *,
    find: Callable[[str], ContainerRecord],
    is_ancestor: _Test,
) -> list[ContainerRecord]:
    """Those of `records` that match every filter, in some value of each.

    `find` resolves the containers of before and since. Raises InvalidArgument for an unknown
    filter or value.
    """
    for name in filters:
        if name not in _TESTS and name not in (ANCESTOR, *_ORDERED):
            raise InvalidArgument(f"invalid filter '{name}'")
    for name, values in filters.items():
        for value in values:
            _check_value(name, value)
    found = list(records)
    for name in _ORDERED:
        for value in filters.get(name, []):
            edge = find(value).created_ns
            if name == "before":
                found = [record for record in found if record.created_ns < edge]
            else:
                found = [record for record in found if record.created_ns > edge]
    for name, values in filters.items():
        if name in _ORDERED or not values:
            continue
        test = is_ancestor if name == ANCESTOR else _TESTS[name]
        combine = all if name == "label" else any
        found = [record for record in found if combine(test(record, value) for value in values)]
    return found


def _check_value(name: str, value: str) -> None:
    if name == "exited" and not re.fullmatch(r"-?\d{1,10}", value):
        raise InvalidArgument(f"invalid filter 'exited={value[:32]}': not a number")
    what, choices = _CHOICES.get(name, ("", (value,)))
    if value not in choices:
        shown = value[:32]
        raise InvalidArgument(
            f"invalid filter '{name}={shown}': invalid value for {what} ({shown}): "
            f"must be one of {', '.join(choices)}"
        )


def prune_candidates(records: Iterable[ContainerRecord], filters: Filters) -> list[ContainerRecord]:
    """What `POST /containers/prune` removes; filters are until, label and label!."""
    for name in filters:
        if name not in ("until", "label", "label!"):
            raise InvalidArgument(f"invalid filter '{name}'")
    if len(filters.get("until", [])) > 1:
        raise InvalidArgument("more than one until filter specified")
    limit_ns = min(map(parse_until, filters.get("until", [])), default=None)
    return [
        record
        for record in records
        if record.state in (ContainerState.CREATED, ContainerState.EXITED, ContainerState.DEAD)
        and (limit_ns is None or record.created_ns < limit_ns)
        and all(matches_label(record.config.labels, value) for value in filters.get("label", []))
        and not any(
            matches_label(record.config.labels, value) for value in filters.get("label!", [])
        )
    ]


def matches_label(labels: Mapping[str, str], wanted: str) -> bool:
    """`key` or `key=value`."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def parse_until(text: str) -> int:
    """Nanoseconds since the epoch. Raises InvalidArgument."""
    return parse_moment(text, now_ns=time.time_ns(), name="until")


def _name(record: ContainerRecord, value: str) -> bool:
    try:
        pattern = re.compile(value)
    except re.error:
        return value in record.name
    return bool(pattern.search(record.name) or pattern.search(f"/{record.name}"))


def _health(record: ContainerRecord, value: str) -> bool:
    return value == (record.health.status if record.health else "none")


def _exited(record: ContainerRecord, value: str) -> bool:
    return record.state == ContainerState.EXITED and record.exit_code == int(value)


def _is_task(record: ContainerRecord, value: str) -> bool:
    return value.lower() in ("false", "0")


def _port(ports: Iterable[str], value: str) -> bool:
    numbers, _, protocol = value.partition("/")
    low, _, high = numbers.partition("-")
    if not _PORTS.fullmatch(numbers):
        raise InvalidArgument(f"invalid port in a filter: {value[:32]!r}")
    wanted = range(int(low), int(high or low) + 1)
    for port in ports:
        number, _, kind = port.partition("/")
        # Of a plain EXPOSE, which may say anything.
        is_wanted = number.isdecimal() and len(number) < 10 and int(number) in wanted
        if is_wanted and (kind or "tcp") == (protocol or "tcp"):
            return True
    return False


def _host_ports(record: ContainerRecord) -> list[str]:
    """Published ports as the host has them, with their protocol."""
    return [
        f"{binding.host_port}/{port.partition('/')[2]}"
        for port, bindings in (record.ports if record.state.is_up else {}).items()
        for binding in bindings
    ]


_TESTS: dict[str, _Test] = {
    "id": lambda record, value: record.id.startswith(value),
    "name": _name,
    "label": lambda record, value: matches_label(record.config.labels, value),
    "status": lambda record, value: record.state == value,
    "exited": _exited,
    "health": _health,
    "is-task": _is_task,
    "isolation": lambda record, value: value in ("", "default"),
    "volume": lambda record, value: any(
        value in (plan.name, plan.source, plan.destination) for plan in record.mounts
    ),
    "network": lambda record, value: any(
        value == net.network
        or ((seen := net.endpoint or net.before) and value and seen.network_id.startswith(value))
        for net in record.networks
    ),
    "expose": lambda record, value: _port(record.config.exposed_ports, value),
    "publish": lambda record, value: _port(_host_ports(record), value),
}


def is_prunable(labels: Mapping[str, str], created_ns: int, filters: Filters) -> bool:
    """Whether `prune` takes a thing with these labels. Raises InvalidArgument for a filter."""
    for name in filters:
        if name not in ("until", "label", "label!", "all"):
            raise InvalidArgument(f"invalid filter '{name}'")
    return (
        all(created_ns < parse_until(value) for value in filters.get("until", []))
        and all(matches_label(labels, value) for value in filters.get("label", []))
        and not any(matches_label(labels, value) for value in filters.get("label!", []))
    )
