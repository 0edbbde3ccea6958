"""A name server asked too much, too often, or nonsense."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from pathlib import Path
from queue import Queue

import dns.flags
import dns.message
import dns.reversename
import pytest
from tests.kernel.network.askers import ask
from tests.kernel.network.naming import Named
from tests.support.daemon import wait_until

from estiba.kernel.netns import run_in_netns
from estiba.model.container import EndpointSettings
from estiba.network.dns import server as server_module
from estiba.network.dns.server import NameServer

pytestmark = pytest.mark.kernel


def send_raw(sandbox: Path, *datagrams: bytes) -> None:
    def inside() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for each in datagrams:
                client.sendto(each, ("127.0.0.11", 53))

    run_in_netns(sandbox, inside)


def test_garbage_harms_nobody(named: Named) -> None:
    named.outsider("@ 60 A 192.0.2.9")
    one = named.join("one")
    chance = random.Random(5)
    good = dns.message.make_query("name-one", "A", use_edns=0).to_wire()
    garbage = [chance.randbytes(chance.randrange(0, 600)) for _ in range(500)]
    for _ in range(500):
        bitten = bytearray(good)
        for _ in range(3):
            bitten[chance.randrange(len(bitten))] = chance.randrange(256)
        garbage.append(bytes(bitten))
    for at in range(0, len(garbage), 50):
        # No more at once than the socket's buffer holds.
        send_raw(named.sandbox("one"), *garbage[at : at + 50])
        assert named.told("one", "name-one") == one.ip_address

    def streams() -> None:
        for data in (b"", b"\0", b"\0\0", b"\xff\xff", b"\0\5hello", struct.pack("!H", 9) + b"x"):
            with socket.create_connection(("127.0.0.11", 53), timeout=5) as client:
                client.sendall(data)

    run_in_netns(named.sandbox("one"), streams)
    assert named.told("one", "name-one", tcp=True) == one.ip_address


def test_a_flood_does_not_starve_others(named: Named) -> None:
    named.serve(lambda query: None)
    named.join("loud")
    quiet = named.join("quiet")
    stop = threading.Event()
    flood = [dns.message.make_query(f"x{n}.example", "A").to_wire() for n in range(200)]
    flood += [dns.message.make_query("name-quiet", "A").to_wire()] * 200

    def inside() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            while not stop.is_set():
                for each in flood:
                    client.sendto(each, ("127.0.0.11", 53))

    thread = threading.Thread(target=run_in_netns, args=(named.sandbox("loud"), inside))
    thread.start()
    try:
        took = []
        for _ in range(50):
            began = time.monotonic()
            assert named.told("quiet", "name-quiet") == quiet.ip_address
            took.append(time.monotonic() - began)
    finally:
        stop.set()
        thread.join()
    assert sorted(took)[25] < 0.5


def test_questions_under_way_are_limited(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_PENDING", 5)
    named.serve(lambda query: None)
    named.join("one")
    queries = [dns.message.make_query(f"x{n}.example", "A").to_wire() for n in range(5)]
    send_raw(named.sandbox("one"), *queries)
    wait_until(lambda: named.told("one", "y.example") == "REFUSED", what="a refusal")
    assert named.told("one", "name-one") != "REFUSED"


def test_who_leaves_in_the_middle_takes_his_questions_along(named: Named) -> None:
    """Those that were read and not yet sent on when he left count for nobody any more."""
    named.serve(lambda query: None)
    named.join("one")
    asked, counted = threading.Event(), Queue[int]()

    def read_and_remove(server: NameServer) -> None:
        assert asked.wait(10)
        server._read(server._clients["one"])
        counted.put(server._errands)
        server.remove("one")

    named.names._thread.call(read_and_remove)
    queries = [dns.message.make_query(f"x{n}.example", "A").to_wire() for n in range(5)]
    send_raw(named.sandbox("one"), *queries)
    asked.set()
    assert counted.get(timeout=10) == 5

    def count() -> int:
        named.names._thread.call(lambda server: counted.put(server._errands))
        return counted.get(timeout=10)

    wait_until(lambda: count() == 0, what="the questions to be over")


def test_answers_a_second_are_limited(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    window_s = 1.0
    monkeypatch.setattr(server_module, "WINDOW_S", window_s)
    monkeypatch.setattr(server_module, "MAX_IN_WINDOW", 16)
    one = named.join("one")
    two = named.join("two")

    def inside() -> float:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.connect(("127.0.0.11", 53))
            began = time.monotonic()
            for _ in range(32):
                client.send(dns.message.make_query("name-one", "A").to_wire())
            for _ in range(32):
                client.recv(512)
            return time.monotonic() - began

    thread = threading.Thread(target=run_in_netns, args=(named.sandbox("one"), inside))
    thread.start()
    began = time.monotonic()
    assert named.told("two", "name-two") == two.ip_address
    assert time.monotonic() - began < window_s, "others do not wait"
    thread.join()
    assert window_s <= run_in_netns(named.sandbox("one"), inside) < 10 * window_s
    assert named.told("one", "name-one", tcp=True) == one.ip_address


def test_open_streams_are_limited(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_STREAMS", 2)
    one = named.join("one")

    def inside() -> list[socket.socket]:
        return [socket.create_connection(("127.0.0.11", 53), timeout=5) for _ in range(2)]

    held = run_in_netns(named.sandbox("one"), inside)
    with pytest.raises((OSError, EOFError)):
        named.told("one", "name-one", tcp=True, wait_s=3)
    for each in held:
        each.close()

    def is_told() -> bool:
        try:
            return named.told("one", "name-one", tcp=True, wait_s=3) == one.ip_address
        except (OSError, EOFError):
            return False

    wait_until(is_told, what="room for another stream")


def test_several_questions_on_one_stream(named: Named) -> None:
    one = named.join("one")

    def inside() -> list[str]:
        found = []
        with socket.create_connection(("127.0.0.11", 53), timeout=5) as client:
            for _ in range(5):
                wire = dns.message.make_query("name-one", "A").to_wire()
                client.sendall(struct.pack("!H", len(wire)) + wire)
                (length,) = struct.unpack("!H", client.recv(2, socket.MSG_WAITALL))
                reply = dns.message.from_wire(client.recv(length, socket.MSG_WAITALL))
                found.append(reply.answer[0][0].to_text())
        return found

    assert run_in_netns(named.sandbox("one"), inside) == [one.ip_address] * 5


def test_two_hundred_names(named: Named) -> None:
    shared = EndpointSettings(aliases=["all"])
    endpoints = [named.join(f"c{number}", settings=shared) for number in range(200)]
    for endpoint in endpoints[::20]:
        assert named.told("c0", endpoint.container_name) == endpoint.ip_address
    short = ask(named.sandbox("c0"), "all")
    assert short.flags & dns.flags.TC
    assert len(ask(named.sandbox("c0"), "all", tcp=True).answer[0]) == 200
    began = time.monotonic()
    named.again()
    assert named.told("c199", "name-c0") == endpoints[0].ip_address
    assert time.monotonic() - began < 5
