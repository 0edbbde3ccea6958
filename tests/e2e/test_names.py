"""Containers find each other by name: the clients that programs have, in real containers."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("emptied")]

GLIBC = [f"-v=/{name}:/{name}:ro" for name in ("usr", "lib", "lib64") if Path(f"/{name}").is_dir()]
"""The host's getent, python3 and their libraries, over the image's few."""

LOOP = ["busybox", "sleep", "1000"]


def start(daemon: PrivateDaemon, name: str, *flags: str) -> str:
    """Its address on the network that it is started on."""
    daemon.docker("run", "-d", "--name", name, *flags, *LOOP)
    networks = daemon.inspect(name)["NetworkSettings"]["Networks"]
    return str(next(iter(networks.values()))["IPAddress"])


def sh(daemon: PrivateDaemon, container: str, command: str) -> str:
    return daemon.docker("exec", container, "sh", "-c", command).stdout.decode()


def looked_up(daemon: PrivateDaemon, container: str, name: str) -> list[str]:
    """What busybox nslookup finds; nothing for a name that is not there."""
    out = daemon.docker("exec", container, "nslookup", name, check=False).stdout.decode()
    lines = out.partition("\n\n")[2].splitlines()
    return sorted(line.split()[-1] for line in lines if line.startswith("Address"))


def test_names_aliases_and_files(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "net")
    web = start(daemon, "web", "--net=net", "--network-alias=shared", "--hostname=webhost")
    db = start(daemon, "db", "--net=net", "--network-alias=shared")
    identity = daemon.inspect("web")["Id"][:12]
    for name in ("web", "WEB", "web.net", "webhost", identity):
        assert looked_up(daemon, "db", name) == [web], name
    assert looked_up(daemon, "db", "shared") == sorted([web, db])
    assert looked_up(daemon, "db", "nothing.invalid") == []
    assert "web.net" in sh(daemon, "db", f"nslookup {web}")
    resolv_conf = sh(daemon, "db", "cat /etc/resolv.conf")
    assert resolv_conf.startswith("nameserver 127.0.0.11\n")
    assert resolv_conf.count("nameserver") == 1
    assert "ndots:0" in resolv_conf


def test_programs_of_the_c_library(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "net")
    web = start(daemon, "web", "--net=net")
    start(daemon, "client", "--net=net", *GLIBC)
    assert sh(daemon, "client", "/usr/bin/getent hosts web").split() == [web, "web"]
    assert sh(daemon, "client", f"/usr/bin/getent hosts {web}").split() == [web, "web.net"]
    code = "import socket; print(socket.getaddrinfo('web', 80, type=socket.SOCK_STREAM)[0][4][0])"
    assert sh(daemon, "client", f'/usr/bin/python3 -c "{code}"').strip() == web
    missing = daemon.docker("exec", "client", "/usr/bin/getent", "hosts", "absent", check=False)
    assert missing.returncode == 2


def test_who_shares_the_network_namespace_asks_too(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "net")
    web = start(daemon, "web", "--net=net")
    daemon.docker("run", "-d", "--name", "guest", "--net=container:web", *LOOP)
    assert looked_up(daemon, "guest", "web") == [web]


def test_the_default_bridge_has_no_names(daemon: PrivateDaemon) -> None:
    start(daemon, "one")
    assert "127.0.0.11" not in sh(daemon, "one", "cat /etc/resolv.conf")


def test_search_domains_options_and_servers(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "net")
    flags = ["--dns=192.0.2.1", "--dns-search=corp.example", "--dns-option=ndots:2"]
    start(daemon, "one", "--net=net", *flags)
    assert sh(daemon, "one", "cat /etc/resolv.conf") == (
        "nameserver 127.0.0.11\nsearch corp.example\noptions ndots:2\n"
    )


def test_links_on_a_network_are_the_linking_containers_own(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "net")
    web = start(daemon, "web", "--net=net")
    start(daemon, "linked", "--net=net", "--link=web:backend")
    start(daemon, "other", "--net=net")
    assert looked_up(daemon, "linked", "backend") == [web]
    assert looked_up(daemon, "other", "backend") == []


@pytest.mark.parametrize("client", ["docker", "estiba"])
def test_custom_and_wildcard_records(daemon: PrivateDaemon, client: str) -> None:
    if client == "docker":
        records = ["--opt", "estiba.dns-record=*.apps.example=10.0.0.5,db.example=10.0.0.7"]
        daemon.docker("network", "create", *records, "net")
    else:
        texts = ["*.apps.example=10.0.0.5", "db.example=10.0.0.7", "note.example=TXT:a, b"]
        records = [f"--dns-record={text}" for text in texts]
        subprocess.run(
            [sys.executable, "-m", "estiba.cli.main", "network", "create", *records, "net"],
            env=daemon.client_environment(),
            check=True,
        )
    start(daemon, "one", "--net=net")
    assert looked_up(daemon, "one", "any.apps.example") == ["10.0.0.5"]
    assert looked_up(daemon, "one", "db.example") == ["10.0.0.7"]
    if client == "estiba":
        assert '"a, b"' in sh(daemon, "one", "nslookup -type=txt note.example")
    bad = daemon.docker("network", "create", "--opt", "estiba.dns-record=oops", "bad", check=False)
    assert b'invalid DNS record "oops"' in bad.stderr or b"invalid DNS record 'oops'" in bad.stderr


def test_networks_come_and_go_while_a_container_runs(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "net")
    web = start(daemon, "web", "--net=net")
    start(daemon, "one")
    before = sh(daemon, "one", "cat /etc/resolv.conf; stat -c %i /etc/resolv.conf")
    daemon.docker("network", "connect", "net", "one")
    after = sh(daemon, "one", "cat /etc/resolv.conf; stat -c %i /etc/resolv.conf")
    assert after.startswith("nameserver 127.0.0.11\n")
    assert before.splitlines()[-1] == after.splitlines()[-1], "the same file, for it is mounted"
    assert looked_up(daemon, "one", "web") == [web]
    daemon.docker("network", "disconnect", "net", "one")
    assert looked_up(daemon, "one", "web") == []
    daemon.restart()
    out = daemon.docker("exec", "one", "nslookup", "web.invalid", check=False)
    assert b"timed out" not in out.stdout + out.stderr, "it is served on, by the next engine too"


def test_a_resolv_conf_that_the_user_wrote_stays(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "net")
    start(daemon, "one")
    sh(daemon, "one", "echo nameserver 192.0.2.99 > /etc/resolv.conf")
    daemon.docker("network", "connect", "net", "one")
    assert sh(daemon, "one", "cat /etc/resolv.conf") == "nameserver 192.0.2.99\n"


def test_a_renamed_container_is_found_by_its_new_name(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "net")
    web = start(daemon, "web", "--net=net")
    start(daemon, "one", "--net=net")
    daemon.docker("rename", "web", "renamed")
    assert looked_up(daemon, "one", "renamed") == [web]
    assert looked_up(daemon, "one", "web") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_another_daemon_answers_at_once(daemon: PrivateDaemon, number: int) -> None:
    daemon.docker("network", "create", "net")
    web = start(daemon, "web", "--net=net")
    start(daemon, "one", "--net=net")
    assert looked_up(daemon, "one", "web") == [web]
    daemon.stop(number)
    daemon.start()
    assert looked_up(daemon, "one", "web") == [web]
    late = start(daemon, "late", "--net=net")
    assert looked_up(daemon, "one", "late") == [late]


def test_a_question_asked_while_the_daemon_is_away_is_answered_by_the_next(
    daemon: PrivateDaemon,
) -> None:
    """The C library asks again after five seconds, with the same socket; here not once only, for
    a busy machine may need longer to start the daemon.
    """
    daemon.docker("network", "create", "net")
    web = start(daemon, "web", "--net=net")
    start(daemon, "client", "--net=net", "--dns-opt=attempts:5", *GLIBC)
    pid = daemon.inspect("client")["State"]["Pid"]
    daemon.kill9()
    command = ["nsenter", "-t", str(pid), "-m", "-n", "/usr/bin/getent", "ahostsv4", "web"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as asking:
        daemon.start()
        out, _ = asking.communicate(timeout=30)
    assert out.decode().split()[:1] == [web]


@pytest.mark.parametrize("name", ["network.names-opened", "start.connected"])
def test_a_daemon_that_dies_while_names_are_opened(
    daemon: PrivateDaemon, name: str, tmp_path: Path
) -> None:
    daemon.docker("network", "create", "net")
    web = start(daemon, "web", "--net=net")
    daemon.restart({"ESTIBA_FAILPOINTS": f"{name}#{2 if name.endswith('opened') else 1}=kill"})
    daemon.docker("run", "-d", "--name", "one", "--net=net", *LOOP, check=False)
    daemon.wait_death()
    daemon.start()
    wait_until(lambda: daemon.request("GET", "/_ping")[0] == 200, what="the next daemon")
    if daemon.inspect("one")["State"]["Status"] != "running":
        daemon.docker("start", "one")
    assert looked_up(daemon, "one", "web") == [web]


def test_a_name_server_that_cannot_be_opened_fails_the_start(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "net")
    daemon.restart({"ESTIBA_FAILPOINTS": "network.names-opened=error"})
    failed = daemon.docker("run", "-d", "--name", "one", "--net=net", *LOOP, check=False)
    assert failed.returncode == 125
    assert b"name server at 127.0.0.11 cannot be opened" in failed.stderr
    daemon.docker("start", "one")
    assert looked_up(daemon, "one", "one") != []


def test_a_step_of_a_build_finds_containers_of_its_network(
    daemon: PrivateDaemon, tmp_path: Path
) -> None:
    daemon.docker("network", "create", "net")
    web = start(daemon, "web", "--net=net")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN nslookup web; cat /etc/resolv.conf\n")
    environment = {**daemon.client_environment(), "DOCKER_BUILDKIT": "0"}

    done = subprocess.run(
        ["docker", "build", "--network=net", str(tmp_path)],
        env=environment,
        capture_output=True,
        check=True,
    )
    assert web in done.stdout.decode()
    assert "nameserver 127.0.0.11" in done.stdout.decode()
