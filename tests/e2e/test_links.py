"""Legacy links, by the stock client."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.daemon import PrivateDaemon, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("emptied")]


def run(daemon: PrivateDaemon, name: str, *flags: str) -> str:
    daemon.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")
    return str(daemon.inspect(name)["NetworkSettings"]["IPAddress"])


def hosts(daemon: PrivateDaemon, name: str) -> list[str]:
    return daemon.docker("exec", name, "cat", "/etc/hosts").stdout.decode().splitlines()


def test_a_link(daemon: PrivateDaemon) -> None:
    address = run(daemon, "db", "--expose", "80", "-e", "USER=sa")
    run(daemon, "web", "--link", "db:sql")
    short = daemon.inspect("db")["Id"][:12]
    assert f"{address}\tsql {short} db" in hosts(daemon, "web")
    for command in (
        ["exec", "web", "env"],
        ["exec", "web", "sh", "-c", "tr '\\0' '\\n' < /proc/1/environ"],
    ):
        told = daemon.docker(*command).stdout.decode().splitlines()
        assert f"SQL_PORT_80_TCP_ADDR={address}" in told and "SQL_ENV_USER=sa" in told
        assert "SQL_NAME=/web/sql" in told
    daemon.docker("exec", "web", "ping", "-c1", "-W2", "sql")
    assert daemon.inspect("web")["HostConfig"]["Links"] == ["/db:/web/sql"]
    listed = daemon.request("GET", "/containers/json?all=1")[1]
    assert {tuple(one["Names"]) for one in listed} == {("/db", "/web/sql"), ("/web",)}
    assert daemon.inspect("web/sql")["Name"] == "/db"


def test_a_link_follows_its_container(daemon: PrivateDaemon) -> None:
    run(daemon, "db")
    run(daemon, "web", "--link", "db:sql")
    daemon.docker("kill", "db")
    daemon.docker("network", "disconnect", "bridge", "db")
    daemon.docker("network", "connect", "--ip", f"{daemon.subnet}.77", "bridge", "db")
    daemon.docker("start", "db")
    lines = [line for line in hosts(daemon, "web") if "sql" in line]
    assert [line.split()[0] for line in lines] == [f"{daemon.subnet}.77"]
    daemon.docker("rename", "db", "base")
    daemon.docker("rename", "web", "site")
    assert daemon.inspect("site")["HostConfig"]["Links"] == ["/base:/site/sql"]
    daemon.restart()
    daemon.docker("restart", "-t", "0", "site")
    assert any(line.startswith(f"{daemon.subnet}.77\tsql ") for line in hosts(daemon, "site"))


def test_a_link_is_taken_away(daemon: PrivateDaemon) -> None:
    run(daemon, "db")
    run(daemon, "web", "--link", "db:sql", "--link", "db:other")
    daemon.docker("rm", "--link", "/web/sql")
    assert not any("sql" in line for line in hosts(daemon, "web"))
    assert daemon.inspect("web")["HostConfig"]["Links"] == ["/db:/web/other"]
    assert daemon.docker("rm", "--link", "web/sql", check=False).returncode == 1
    assert daemon.docker("rm", "--link", "web", check=False).returncode == 1
    assert daemon.inspect("web")["State"]["Running"]
    daemon.docker("rm", "-f", "db")
    assert daemon.inspect("web")["HostConfig"]["Links"] is None
    daemon.docker("restart", "-t", "0", "web")


def test_a_link_to_what_does_not_run(daemon: PrivateDaemon) -> None:
    daemon.docker("create", "--name", "db", "busybox", "true")
    daemon.docker("create", "--name", "web", "--link", "db", "busybox", "true")
    done = daemon.docker("start", "web", check=False)
    assert b"Cannot link to a non running container: /db AS /web/db" in done.stderr
    done = daemon.docker("create", "--link", "nobody:x", "busybox", check=False)
    assert b"could not get container for nobody" in done.stderr


def test_on_networks_of_users_a_link_is_a_name(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "blue")
    run(daemon, "db", "--network", "blue")
    run(daemon, "web", "--network", "blue", "--link", "db:sql")
    view = daemon.inspect("web")
    assert view["NetworkSettings"]["Networks"]["blue"]["Links"] == ["db:sql"]
    assert not any("sql" in line for line in hosts(daemon, "web"))


def test_links_open_what_icc_closes(make_daemon: Callable[..., PrivateDaemon]) -> None:
    """Only the exposed ports, only for who is linked, and as long as it is."""
    daemon = make_daemon("--icc=false")
    daemon.start()
    daemon.import_busybox()
    serve = "echo hello > /tmp/index.html; httpd -p 81 -h /tmp; httpd -f -p 80 -h /tmp"
    daemon.docker("run", "-d", "--name", "db", "--expose", "80", "busybox", "sh", "-c", serve)
    run(daemon, "web", "--link", "db:sql")
    run(daemon, "other")

    def reaches(name: str, port: int, wait_s: int = 1) -> bool:
        address = daemon.inspect("db")["NetworkSettings"]["IPAddress"]
        script = f"printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w {wait_s} {address} {port}"
        done = daemon.docker("exec", name, "sh", "-c", script, check=False)
        return b"hello" in done.stdout

    def check() -> None:
        wait_until(lambda: reaches("web", 80, wait_s=2), what="the link")
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(reaches, ("web", "other"), (81, 80))) == [False, False]

    check()
    table = ["nft", "list", "set", "inet", f"estiba_{daemon.bridge}", "linked"]
    daemon.docker("kill", "db")
    wait_until(
        lambda: b"elements" not in subprocess.run(table, capture_output=True, check=True).stdout,
        what="the link to end with the linked container",
    )
    daemon.docker("network", "disconnect", "bridge", "db")
    daemon.docker("network", "connect", "--ip", f"{daemon.subnet}.99", "bridge", "db")
    daemon.docker("start", "db")
    check()
    daemon.kill9()
    daemon.start()
    check()
    daemon.docker("restart", "-t", "0", "web")
    check()
    address = daemon.inspect("web")["NetworkSettings"]["IPAddress"]
    assert address in subprocess.run(table, capture_output=True, text=True, check=True).stdout
    daemon.docker("rm", "--link", "web/sql")
    assert not reaches("web", 80)
    assert address not in subprocess.run(table, capture_output=True, text=True, check=True).stdout
