"""Which host ports an endpoint keeps when others are asked for."""

from __future__ import annotations

import time

from estiba.network.heldports import HeldPort
from estiba.network.hostports import PortHolder
from estiba.network.record import PortRequest


def request(container_port: int, host_port: str) -> PortRequest:
    """SCTP is held in the engine's own table alone, so the host's ports do not matter."""
    return PortRequest(container_port=container_port, protocol="sctp", host_port=host_port)


def numbers(held: list[HeldPort]) -> list[tuple[int, int]]:
    return [(port.request.container_port, port.host_port) for port in held]


def test_what_is_asked_for_again_is_kept_in_the_order_of_the_requests() -> None:
    ports = PortHolder()
    held = ports.hold("one", [request(80, "8080"), request(81, "9000-9010")], name="one")
    assert numbers(held) == [(80, 8080), (81, 9000)]
    again = ports.hold(
        "one",
        [request(82, "9000-9010"), request(81, "9000-9010"), request(80, "8080")],
        name="one",
    )
    assert numbers(again) == [(82, 9001), (81, 9000), (80, 8080)]


def test_a_port_that_the_endpoint_has_is_led_elsewhere() -> None:
    ports = PortHolder()
    ports.hold("one", [request(80, "8080"), request(81, "8081")], name="one")
    again = ports.hold("one", [request(81, "8080"), request(80, "8081")], name="one")
    assert numbers(again) == [(81, 8080), (80, 8081)]
    ports.hold("one", [], name="one")
    assert numbers(ports.hold("two", [request(80, "8080-8081")], name="two")) == [(80, 8080)]


def test_any_free_port_stays_what_it_was() -> None:
    ports = PortHolder()
    first = ports.hold("one", [request(80, ""), request(80, "")], name="one")
    assert len(set(numbers(first))) == 2
    assert numbers(ports.hold("one", [request(80, ""), request(80, "")], name="one")) == numbers(
        first
    )


def test_a_thousand_ports_are_changed_in_no_time() -> None:
    """It was a minute, with a lock that every other container waits for."""
    ports = PortHolder()
    wanted = [request(port, str(port)) for port in range(20_000, 21_000)]
    ports.hold("one", wanted, name="one")
    began = time.monotonic()
    held = ports.hold("one", [request(80, "8080"), *reversed(wanted)], name="one")
    assert time.monotonic() - began < 10
    assert len(held) == 1001


def test_a_thousand_ports_of_one_port_are_changed_in_no_time() -> None:
    ports = PortHolder()
    wanted = [request(80, str(port)) for port in range(20_000, 21_000)]
    ports.hold("one", wanted, name="one")
    began = time.monotonic()
    assert len(ports.hold("one", list(reversed(wanted)), name="one")) == 1000
    assert time.monotonic() - began < 10


def test_a_thousand_free_ports_are_found_in_no_time() -> None:
    """As `-P` of an image that exposes as many."""
    ports = PortHolder()
    began = time.monotonic()
    held = ports.hold("one", [request(port, "") for port in range(1, 1001)], name="one")
    assert time.monotonic() - began < 10
    assert len({port.host_port for port in held}) == 1000
