"""Legacy links: how they are written, and what a linking container is told."""

from __future__ import annotations

import pytest
from tests.support.records import container_id, make_record

from estiba.containers.links import (
    check_links,
    environment,
    exposed,
    link_names,
    linked_addresses,
    parse_link,
    plan_links,
)
from estiba.containers.record import AttachedNetwork, ContainerRecord
from estiba.model.container import Config, EndpointSettings, HostConfig
from estiba.model.errors import InvalidArgument, NotFound
from estiba.model.state import ContainerState
from estiba.network.record import Endpoint


def child(*ports: str, network: str = "bridge", **fields: object) -> ContainerRecord:
    """A container `db` that runs on the network at 172.17.0.5."""
    endpoint = Endpoint(
        id="e" * 64, network_id="n" * 64, network_name=network, driver="bridge",
        container_id=container_id("db"), container_name="db", requested=EndpointSettings(),
        ip_address="172.17.0.5", ipv6_address="fd00::5",
    )  # fmt: skip
    made = {
        "config": Config(
            cmd=["x"], exposed_ports={port: {} for port in ports},
            env=["PATH=/bin", "HOME=/", "USER=sa", "BARE"],
        ),
        "host_config": HostConfig(network_mode=network),
        "networks": [
            AttachedNetwork(network=network, requested=EndpointSettings(), endpoint=endpoint)
        ],
        "state": ContainerState.RUNNING,
    }  # fmt: skip
    return make_record("db", **{**made, **fields})


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("db", ("db", "db")),
        ("db:sql", ("db", "sql")),
        ("/db:/web/sql", ("db", "sql")),
        ("db:/sql", ("db", "sql")),
    ],
)
def test_forms_of_a_link(text: str, link: tuple[str, str]) -> None:
    assert parse_link(text) == link


@pytest.mark.parametrize("text", ["", ":", "db:", "a:b:c", "db:a/b"])
def test_forms_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="bad format for links"):
        parse_link(text)


def test_links_are_of_the_default_bridge() -> None:
    db, shared = child(), make_record("side", host_config=HostConfig(network_mode="container:db"))
    hosted = make_record("hosted", host_config=HostConfig(network_mode="host"))
    known = {"db": db, "side": shared, "hosted": hosted}

    def find(name: str) -> ContainerRecord:
        if name not in known:
            raise NotFound(f"No such container: {name}")
        return known[name]

    host = HostConfig(links=["db:sql", "side:s"])
    assert plan_links(host, find) == {"sql": db.id, "s": db.id}
    assert plan_links(HostConfig(network_mode="own", links=["db:sql"]), find) == {}
    with pytest.raises(InvalidArgument, match="could not get container for x: No such container"):
        plan_links(HostConfig(links=["x"]), find)
    with pytest.raises(InvalidArgument, match="host type networking can't be used with links"):
        plan_links(HostConfig(links=["hosted"]), find)


def test_what_the_program_is_told() -> None:
    db = child("3306", "80-82/tcp", "81/udp", "90")
    web = make_record("web")
    assert environment(web, {"my-sql": db}) == [
        "MY_SQL_PORT=tcp://172.17.0.5:80",
        *(line for port in (80, 81, 82, 90, 3306) for line in _port(port, "tcp")),
        *_port(81, "udp"),
        "MY_SQL_PORT_80_TCP_START=tcp://172.17.0.5:80",
        "MY_SQL_PORT_80_TCP_PORT_START=80",
        "MY_SQL_PORT_80_TCP_END=tcp://172.17.0.5:82",
        "MY_SQL_PORT_80_TCP_PORT_END=82",
        "MY_SQL_NAME=/web/my-sql",
        "MY_SQL_ENV_USER=sa",
    ]
    assert exposed(db)[0] == (80, "tcp") and exposed(db)[-1] == (81, "udp")


@pytest.mark.parametrize(
    ("ports", "first"),
    [(["90/tcp", "33/udp"], "udp://172.17.0.5:33"), (["53/udp", "53"], "tcp://172.17.0.5:53")],
)
def test_the_first_port_is_the_lowest_then_tcp(ports: list[str], first: str) -> None:
    assert environment(make_record("web"), {"x": child(*ports)})[0] == f"X_PORT={first}"


def _port(port: int, protocol: str) -> list[str]:
    one = f"MY_SQL_PORT_{port}_{protocol.upper()}"
    return [
        f"{one}={protocol}://172.17.0.5:{port}",
        f"{one}_ADDR=172.17.0.5",
        f"{one}_PORT={port}",
        f"{one}_PROTO={protocol}",
    ]


def test_lines_of_etc_hosts() -> None:
    db = child()
    assert link_names("sql", db) == f"sql {db.id[:12]} db"
    assert link_names("db", db) == f"db {db.id[:12]}"
    assert linked_addresses(db) == ["172.17.0.5", "fd00::5"]
    assert linked_addresses(child(state=ContainerState.EXITED)) == []


def test_a_linked_container_must_run_on_the_bridge() -> None:
    web = make_record("web")
    check_links(web, {"sql": child()})
    with pytest.raises(InvalidArgument, match="Cannot link to a non running container: /db AS"):
        check_links(web, {"sql": child(state=ContainerState.EXITED)})
    with pytest.raises(InvalidArgument, match="not attached to default bridge network"):
        check_links(web, {"sql": child(network="own")})
