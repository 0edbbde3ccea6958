"""Published ports: which are asked for, and how they change."""

from __future__ import annotations

import pytest
from tests.support.records import make_record

from estiba.containers.publishing import changed_bindings, check_publishing, port_requests
from estiba.model.container import Config, HostConfig, PortBinding
from estiba.model.errors import InvalidArgument

ANY = PortBinding()
LOCAL = PortBinding(host_ip="127.0.0.1", host_port="8080")
WIDE = PortBinding(host_port="8081")


def test_bindings_are_added_and_removed() -> None:
    before = {"80/tcp": [LOCAL, WIDE], "81": [ANY]}
    assert changed_bindings(before, {}, {}) == {"80/tcp": [LOCAL, WIDE], "81/tcp": [ANY]}
    assert changed_bindings(before, {"80": [LOCAL]}, {}) == changed_bindings(before, {}, {})
    assert changed_bindings(before, {"53/udp": []}, {"80": []}) == {
        "81/tcp": [ANY],
        "53/udp": [ANY],
    }
    one = PortBinding(host_port="8080")
    assert changed_bindings(before, {}, {"80": [one]})["80/tcp"] == [WIDE]
    # Another free port of the host, each time.
    assert changed_bindings(before, {"81": []}, {})["81/tcp"] == [ANY, ANY]


def test_ranges_are_taken_apart() -> None:
    wanted = {"80-81/tcp": [PortBinding(host_port="90-91")]}
    added = changed_bindings({}, wanted, {})
    assert added == {
        "80/tcp": [PortBinding(host_port="90")],
        "81/tcp": [PortBinding(host_port="91")],
    }
    assert changed_bindings(added, {}, {"80-81": []}) == {}
    assert changed_bindings(wanted, {}, {"81": []}) == {"80/tcp": [PortBinding(host_port="90")]}


@pytest.mark.parametrize(
    ("removed", "why"),
    [
        ({"90": []}, "port 90/tcp is not published$"),
        ({"80/udp": []}, "port 80/udp is not published$"),
        ({"80": [PortBinding(host_port="9")]}, "port 80/tcp is not published at 9$"),
        (
            {"80": [PortBinding(host_ip="10.0.0.1", host_port="8080")]},
            "is not published at 10.0.0.1:8080$",
        ),
        ({"80-81": []}, "port 81/tcp is not published$"),
    ],
)
def test_what_is_not_there_cannot_go(removed: dict[str, list[PortBinding]], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        changed_bindings({"80/tcp": [LOCAL]}, {}, removed)


@pytest.mark.parametrize("mode", ["host", "container:x"])
def test_ports_that_are_not_its_own(mode: str) -> None:
    with pytest.raises(InvalidArgument, match="conflicting options: port publishing"):
        check_publishing(make_record(host_config=HostConfig(network_mode=mode)))


def test_a_free_port_is_the_one_of_the_run_before() -> None:
    """In both families it is the same number, and counts once."""
    both = [
        PortBinding(host_ip=address, host_port=port)
        for port in ("5001", "5002")
        for address in ("0.0.0.0", "::")
    ]
    record = make_record(
        config=Config(cmd=["x"], exposed_ports={"90/udp": {}}),
        host_config=HostConfig(port_bindings={"80": [ANY, ANY]}, publish_all_ports=True),
        ports={"80/tcp": both, "90/udp": [PortBinding(host_ip="0.0.0.0", host_port="5003")]},
    )
    found = [(one.key, one.preferred) for one in port_requests(record)]
    assert found == [("80/tcp", 5001), ("80/tcp", 5002), ("90/udp", 5003)]
