"""Policies through the estiba client, with containers of a whole daemon."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sqlite3
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from tests.support.daemon import PrivateDaemon, needs_docker, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("emptied")]

SERVE = "while true; do echo served | nc -l -p 5432 >/dev/null; done"


def estiba(daemon: PrivateDaemon, *arguments: str, stdin: str = "", status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "estiba.cli.main", *arguments],
        input=stdin, capture_output=True, timeout=60, check=False, text=True,
        env={**daemon.client_environment(), "ESTIBA_HOST": daemon.url},
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def run(daemon: PrivateDaemon, name: str, *flags: str, command: str = "sleep 600") -> str:
    """Starts a container; its first address is returned."""
    estiba(daemon, "run", "-d", "--init", "--name", name, *flags, "busybox", "sh", "-c", command)
    view = json.loads(estiba(daemon, "inspect", name))[0]
    return next(iter(view["NetworkSettings"]["Networks"].values()))["IPAddress"]


def asks(daemon: PrivateDaemon, name: str, address: str, port: int = 5432) -> bool:
    done = daemon.docker(
        "exec", name, "sh", "-c", f"echo | timeout 1 nc {address} {port}", check=False
    )
    return b"served" in done.stdout


def wait_served(daemon: PrivateDaemon, name: str, address: str) -> None:
    """Between two connections nobody listens for a moment."""
    wait_until(lambda: asks(daemon, name, address), what=f"an answer to {name}")


def test_a_policy_is_set_shown_kept_and_removed(daemon: PrivateDaemon) -> None:
    estiba(daemon, "network", "create", "app")
    db = run(daemon, "db", "--network", "app", "--label", "tier=data", command=SERVE)
    run(daemon, "web", "--network", "app")
    run(daemon, "other", "--network", "app")
    wait_served(daemon, "other", db)
    text = "default closed\nallow from=web to=label:tier=data port=5432\n"
    estiba(daemon, "network", "policy", "set", "app", stdin=text)
    wait_served(daemon, "web", db)
    assert not asks(daemon, "other", db)
    shown = estiba(daemon, "network", "policy", "show", "app")
    assert "allow from=web to=label:tier=data port=5432/tcp" in shown
    view = json.loads(estiba(daemon, "network", "policy", "show", "app", "--format", "json"))
    denied = [c for c in view["Counters"] if c["Denies"] and c["Container"] == "db"]
    assert denied[0]["Packets"] > 0
    daemon.restart()
    wait_served(daemon, "web", db)
    assert not asks(daemon, "other", db)
    late = "echo | timeout 1 nc db 5432"
    joining = daemon.docker("run", "--rm", "--network", "app", "busybox", "sh", "-c", late,
                            check=False)  # fmt: skip
    assert b"served" not in joining.stdout
    estiba(daemon, "network", "policy", "rm", "app")
    wait_served(daemon, "other", db)


def test_what_is_denied_is_in_the_log_and_among_the_events(daemon: PrivateDaemon) -> None:
    estiba(daemon, "network", "create", "app")
    db = run(daemon, "db", "--network", "app", command=SERVE)
    run(daemon, "web", "--network", "app")
    estiba(daemon, "network", "policy", "set", "app", "--default", "closed")
    assert not asks(daemon, "web", db)
    view = json.loads(estiba(daemon, "inspect", "web"))[0]
    web = view["NetworkSettings"]["Networks"]["app"]["IPAddress"]
    line = f"web ({web}) → db 5432/tcp: default closed"
    wait_until(lambda: line in daemon.log.read_text(), what="a line of the log")
    denials = ("--filter", "type=network", "--filter", "event=deny", "--format", "json")
    events = wait_until(
        lambda: estiba(daemon, "events", "--since", "60s", "--until", "0s", *denials),
        what="its event",
    )
    found = json.loads(events.splitlines()[-1])["Actor"]["Attributes"]
    assert found["containerName"] == "db"
    assert (found["peerName"], found["port"], found["rule"]) == ("web", "5432", "default closed")


def test_egress_of_a_container_is_given_changed_and_told(daemon: PrivateDaemon) -> None:
    run(daemon, "web", "--egress", "none")
    view = json.loads(estiba(daemon, "inspect", "web"))[0]
    assert view["HostConfig"]["Annotations"]["estiba.egress"] == "none"
    told = estiba(daemon, "network", "explain", "web", "192.0.2.1:443", status=1)
    assert "egress none (container web)" in told
    estiba(daemon, "update", "--egress", "allow=192.0.2.0/24:443", "web")
    told = estiba(daemon, "network", "explain", "web", "192.0.2.1:443")
    assert "passes" in told
    view = json.loads(
        estiba(daemon, "network", "explain", "--format", "json", "web", "192.0.2.1:80", status=1)
    )
    assert view["Passes"] is False
    estiba(daemon, "update", "--egress", "open", "web")
    estiba(daemon, "network", "explain", "web", "192.0.2.1:80")
    refused = estiba(daemon, "run", "--egress", "sometimes", "busybox", status=125)
    assert "invalid egress 'sometimes'" in refused
    refused = estiba(daemon, "run", "--network", "host", "--egress", "none", "busybox", status=125)
    assert "no network of its own" in refused


def test_a_network_has_an_egress_for_all_its_containers(daemon: PrivateDaemon) -> None:
    estiba(daemon, "network", "create", "--egress", "allow=192.0.2.7:80", "inner")
    run(daemon, "web", "--network", "inner")
    estiba(daemon, "network", "explain", "web", "192.0.2.7:80")
    told = estiba(daemon, "network", "explain", "web", "192.0.2.7:81", status=1)
    assert "not on the list (network inner)" in told
    assert "invalid egress" in estiba(
        daemon, "network", "create", "--egress", "nothing", "bad", status=1
    )


def test_a_graph_in_all_forms(daemon: PrivateDaemon) -> None:
    estiba(daemon, "network", "create", "app")
    run(daemon, "db", "--network", "app")
    run(daemon, "web", "--network", "app", "-p", "127.0.0.1::80")
    estiba(daemon, "network", "policy", "set", "app", "--default", "closed", "--rule",
           "allow from=web to=db port=5432")  # fmt: skip
    text = estiba(daemon, "network", "graph")
    assert "→ db: 5432/tcp" in text
    assert "(host alone)" in text
    dot = estiba(daemon, "network", "graph", "--format", "dot")
    assert '"app/web" -> "app/db" [label="5432/tcp"]' in dot
    svg = ElementTree.fromstring(estiba(daemon, "network", "graph", "--format", "svg"))
    assert svg.tag.endswith("svg")
    assert json.loads(estiba(daemon, "network", "graph", "--format", "json"))["groups"]


def test_what_is_past_the_firewall_or_named_whole_is_explained_and_drawn(
    daemon: PrivateDaemon,
) -> None:
    link = f"lan{os.getpid() % 10_000_000}"
    subprocess.run(["ip", "link", "add", link, "type", "veth", "peer", f"{link}p"], check=True)
    try:
        estiba(daemon, "network", "create", "app")
        estiba(daemon, "network", "create", "-d", "macvlan", "-o", f"parent={link}",
               "--subnet", "192.0.2.0/24", "lan")  # fmt: skip
        run(daemon, "db", "--network", "app")
        run(daemon, "web", "--network", "app")
        estiba(daemon, "network", "connect", "--gw-priority", "1", "lan", "web")
        told = estiba(daemon, "network", "explain", "web", "198.51.100.1:443")
        assert "leaves by network lan, which does not pass the engine's firewall" in told
        estiba(daemon, "network", "policy", "set", "app", "--default", "closed", "--rule",
               "allow from=web to=db port=1-65535")  # fmt: skip
        assert "→ db: 1-65535/tcp" in estiba(daemon, "network", "graph")
    finally:
        subprocess.run(["ip", "link", "delete", link], check=True)


def dies(daemon: PrivateDaemon, point: str, method: str, path: str, body: object = None) -> None:
    """The daemon dies at `point` of that request, and starts again."""
    daemon.restart({"ESTIBA_FAILPOINTS": f"{point}=kill"})
    with contextlib.suppress(OSError, http.client.HTTPException):
        daemon.request(method, path, body)
    daemon.wait_death()
    daemon.start()


def test_killed_in_the_middle_of_a_change_one_policy_or_the_other_holds(
    daemon: PrivateDaemon,
) -> None:
    estiba(daemon, "network", "create", "app")
    db = run(daemon, "db", "--network", "app", command=SERVE)
    run(daemon, "web", "--network", "app")
    wait_served(daemon, "web", db)
    dies(daemon, "network.policy-set", "PUT", "/networks/app/policy", {"Text": "default closed"})
    assert "default open" in estiba(daemon, "network", "policy", "show", "app")
    # What was not answered was not done.
    wait_served(daemon, "web", db)
    estiba(daemon, "network", "policy", "set", "app", stdin="default closed")
    daemon.kill9()
    daemon.start()
    assert "default closed" in estiba(daemon, "network", "policy", "show", "app")
    assert not asks(daemon, "web", db)


def test_killed_while_a_container_joins_nothing_of_it_is_left(daemon: PrivateDaemon) -> None:
    estiba(daemon, "network", "create", "app")
    estiba(daemon, "network", "policy", "set", "app", stdin="default closed")
    estiba(daemon, "create", "--name", "web", "--network", "app", "busybox", "sleep", "600")
    dies(daemon, "network.policy-applied", "POST", "/containers/web/start")
    counters = ["nft", "list", "counters", "table", "inet", f"estiba_{daemon.bridge}"]
    # The next one that joins takes away what the dead engine counted.
    run(daemon, "db", "--network", "app")
    listed = subprocess.run(counters, capture_output=True, text=True, check=True).stdout
    assert listed.count("counter policy_x_") == 1


def test_a_policy_whose_network_is_gone_is_forgotten(daemon: PrivateDaemon) -> None:
    estiba(daemon, "network", "create", "app")
    estiba(daemon, "network", "policy", "set", "app", stdin="default closed")
    daemon.stop()
    with sqlite3.connect(daemon.data_root / "estiba.db") as database:
        database.execute("UPDATE records SET id = 'gone' WHERE kind = 'policy'")
    daemon.start()
    wait_until(lambda: not stored_policies(daemon), what="the policy of no network to be forgotten")


def stored_policies(daemon: PrivateDaemon) -> list[str]:
    with sqlite3.connect(daemon.data_root / "estiba.db") as database:
        return [row[0] for row in database.execute("SELECT id FROM records WHERE kind='policy'")]


@needs_docker(26)
def test_stock_clients_give_lists_as_annotation_and_option(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "-o", "estiba.egress=allow=192.0.2.0/24", "inner")
    daemon.docker("run", "-d", "--name", "web", "--network", "inner", "--annotation",
                  "estiba.egress=allow=192.0.2.7:443", "busybox", "sleep", "600")  # fmt: skip
    assert "passes" in estiba(daemon, "network", "explain", "web@inner", "192.0.2.7:443")
    estiba(daemon, "network", "explain", "web", "192.0.2.8:443", status=1)
    bad = daemon.docker(
        "run", "--annotation", "estiba.egress=perhaps", "busybox", "true", check=False
    )
    assert b"invalid egress 'perhaps'" in bad.stderr
