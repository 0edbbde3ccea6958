from __future__ import annotations

from pathlib import Path

from estiba.network.dns.forward import DEADLINE_S, wait_between
from estiba.network.dns.upstream import MAX_SERVERS, HostResolver, own_servers, upstreams


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(servers: object) -> str:
    return " ".join(map(str, servers))  # type: ignore[call-overload]


def test_all_servers_of_the_host_count(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    lines = ["127.0.0.53", "::1", "192.0.2.1", "192.0.2.2", "fe80::1%eth0", "nonsense", "::1"]
    path.write_text("".join(f"nameserver {line}\n" for line in lines))
    assert shown(HostResolver(path).servers) == (
        "host(127.0.0.53) host(::1) host(192.0.2.1) host(192.0.2.2) host(fe80::1%eth0)"
    )


def test_the_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path, clock = tmp_path / "resolv.conf", Clock()
    host = HostResolver(path, clock)
    assert host.servers == ()
    path.write_text("nameserver 192.0.2.1\noptions ndots:1\n")
    assert host.servers == (), "not more than once a second"
    clock.now = 1.1
    assert (shown(host.servers), host.ndots_set) == ("host(192.0.2.1)", True)
    path.unlink()
    clock.now = 3.0
    assert shown(host.servers) == "host(192.0.2.1)", "it may be in the middle of a change"
    path.write_text("options ndots:0\n")
    clock.now = 5.0
    assert (host.servers, host.ndots_set) == ((), False)


def test_own_servers() -> None:
    given = ("127.0.0.11", "127.0.0.1", "192.0.2.1", "bad", "::1")
    assert shown(own_servers(given, inside=True)) == "127.0.0.1 192.0.2.1 ::1"
    assert shown(own_servers(given, inside=False)) == "127.0.0.1 host(192.0.2.1) ::1"


def test_not_more_servers_than_there_is_time_for() -> None:
    many = [f"192.0.2.{number}" for number in range(50)]
    assert len(upstreams(many, inside=False)) == MAX_SERVERS
    for count in range(MAX_SERVERS + 1):
        assert wait_between(count) * (count - 1) < DEADLINE_S - 0.8
