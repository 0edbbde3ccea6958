"""Filters of containers with values of every kind."""

from __future__ import annotations

import pytest
from tests.support.records import make_record

from estiba.containers.record import ContainerRecord
from estiba.daemon.adapters.container_filters import filter_containers
from estiba.model.container import Config
from estiba.model.errors import InvalidArgument


def exposing(filters: dict[str, list[str]]) -> list[ContainerRecord]:
    record = make_record(config=Config(cmd=["sleep"], exposed_ports={"80/tcp": {}}))
    return filter_containers([record], filters, find=lambda _: record, is_ancestor=lambda *_: False)


@pytest.mark.parametrize(
    ("value", "count"), [("80", 1), ("80/tcp", 1), ("79-81", 1), ("80/udp", 0), ("81-90", 0)]
)
def test_exposed_ports(value: str, count: int) -> None:
    assert len(exposing({"expose": [value]})) == count


@pytest.mark.parametrize("value", ["x", "", "80-x", "8" * 5000, "1-" + "8" * 5000])
def test_ports_that_are_none(value: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid port"):
        exposing({"expose": [value]})
