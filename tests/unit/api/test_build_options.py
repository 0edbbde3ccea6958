"""POST /build: what its query comes to, as stock clients send it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode

import pytest

from estiba.api.build_ports import BuildOptions
from estiba.api.ports import Backends
from estiba.api.router import Router
from estiba.api.routes_builds import BUNDLE, BuildRoutes
from estiba.api.server import Server
from estiba.http1 import Body, Connection, HttpRequest


class Builds:
    """Takes note of what it is asked for."""

    def __init__(self) -> None:
        self.options: BuildOptions | None = None
        self.registries = ""
        self.pruned: dict[str, Any] = {}

    async def build(
        self, body: Body, options: BuildOptions, registries: str
    ) -> AsyncIterator[dict[str, str]]:
        self.options, self.registries = options, registries
        yield {"stream": "classic"}

    async def build_bundle(self, body: Body, registries: str) -> AsyncIterator[dict[str, str]]:
        self.registries = registries
        yield {"result": "bundle"}

    async def prune(self, **options: Any) -> dict[str, Any]:
        self.pruned = options
        return {"CachesDeleted": None, "SpaceReclaimed": 0}


async def post(
    target: str, headers: dict[str, str] | None = None
) -> tuple[int, Builds, list[dict[str, Any]]]:
    builds = Builds()
    router = Router()
    BuildRoutes(cast(Backends, SimpleNamespace(builds=builds))).register(router)
    server = Server(router)
    connection = Connection(server.handle, peer="unix")
    body = Body(connection)
    body.end()
    request = HttpRequest("POST", target, {"host": "x", **(headers or {})}, body, connection)
    response = await server.handle(request)
    assert response.body is not None
    pieces = (
        [response.body]
        if isinstance(response.body, bytes)
        else [piece async for piece in response.body]
    )
    lines = b"".join(pieces).splitlines()
    return response.status, builds, [json.loads(line) for line in lines]


async def options(**query: Any) -> BuildOptions:
    status, builds, lines = await post(f"/v1.51/build?{urlencode(query, doseq=True)}")
    assert status == 200, lines
    assert builds.options is not None
    return builds.options


async def refused(**query: Any) -> str:
    status, builds, lines = await post(f"/v1.51/build?{urlencode(query, doseq=True)}")
    assert status == 400 and builds.options is None
    return str(lines[0]["message"])


async def test_nothing_asked_for() -> None:
    found = await options()
    assert (found.dockerfile, found.tags, found.remote, found.target) == ("", [], "", "")
    assert (found.build_args, found.labels, found.extra_hosts) == ({}, {}, [])
    assert (found.cache_from, found.ulimits) == ([], [])
    assert not (found.quiet or found.no_cache or found.pull or found.squash)
    assert (found.memory_bytes, found.shm_bytes, found.cpu_quota_us) == (0, 0, 0)


async def test_what_dockers_client_sends() -> None:
    """`docker build` 28 without BuildKit, with all that it knows."""
    found = await options(
        buildargs='{"A":"1","B":null}', cachefrom='["c:1"]', cgroupparent="/p", cpuperiod="3",
        cpuquota="4", cpusetcpus="0-1", cpusetmems="0", cpushares="2", dockerfile="d/Dockerfile",
        extrahosts=["a:1.2.3.4", "b:::1"], labels='{"l":"v"}', memory="1048576", memswap="-1",
        networkmode="default", nocache="1", pull="1", q="1", rm="1", forcerm="1", shmsize="65536",
        squash="1", t=["a:1", "b", ""], target="t", platform="linux/arm64", version="1",
        ulimits='[{"Name":"nofile","Hard":2,"Soft":1}]',
    )  # fmt: skip
    assert found == BuildOptions(
        dockerfile="d/Dockerfile", tags=["a:1", "b"], extra_hosts=["a:1.2.3.4", "b:::1"],
        remote="", quiet=True, forces_removal=True, no_cache=True, cache_from=["c:1"], pull=True,
        memory_bytes=1 << 20, memory_swap_bytes=-1, cpu_shares=2, cpuset_cpus="0-1",
        cpuset_mems="0", cpu_period_us=3, cpu_quota_us=4, cgroup_parent="/p",
        build_args={"A": "1"}, shm_bytes=65536,
        ulimits=[{"Name": "nofile", "Hard": 2, "Soft": 1}], squash=True, labels={"l": "v"},
        network="default", platform="linux/arm64", target="t",
    )  # fmt: skip


@pytest.mark.parametrize("value", ["null", "{}", ""])
async def test_empty_objects(value: str) -> None:
    found = await options(buildargs=value, labels=value)
    assert (found.build_args, found.labels) == ({}, {})


@pytest.mark.parametrize("value", ["null", "[]", ""])
async def test_empty_lists(value: str) -> None:
    found = await options(cachefrom=value, ulimits=value, extrahosts=value)
    assert (found.cache_from, found.ulimits, found.extra_hosts) == ([], [], [])


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ('["a","b"]', ["a", "b"]),
        ("a,b", ["a", "b"]),
        (["a", "b"], ["a", "b"]),
        ("host:::1", ["host:::1"]),
    ],
)
async def test_lists_in_every_form(value: str | list[str], names: list[str]) -> None:
    assert (await options(extrahosts=value)).extra_hosts == names
    assert (await options(cachefrom=value)).cache_from == names


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("buildargs", '["A=1"]'),
        ("buildargs", "{"),
        ("buildargs", '{"A":1}'),
        ("buildargs", '{"A":{"B":"C"}}'),
        ("buildargs", '{"A":"\\ud800"}'),
        ("buildargs", '{"A\\u0000":"1"}'),
        ("labels", '{"a":["b"]}'),
        ("labels", "x"),
        ("cachefrom", "[1]"),
        ("cachefrom", "[null]"),
        ("cachefrom", "[[[[[[[[]]]]]]]]"),
        ("cachefrom", "[" * 100_000),
        ("ulimits", '{"nofile":1}'),
        ("ulimits", '["nofile"]'),
        ("ulimits", '[{"Soft":99999999999999999999}]'),
        ("memory", "1g"),
        ("shmsize", "x"),
        ("cpuquota", "1" * 30),
        ("isolation", "hyperv"),
        ("networkmode", "container:x"),
        ("securityopt", "seccomp=unconfined"),
    ],
)
async def test_what_is_refused(name: str, value: str) -> None:
    message = await refused(**{name: value})
    assert name in message
    assert len(message) < 300


async def test_a_value_that_is_too_long() -> None:
    assert "longer than" in await refused(labels='{"a":"' + "x" * (1 << 20) + '"}')


async def test_buildkits_protocol_is_not_spoken() -> None:
    status, builds, lines = await post("/v1.51/build?version=2")
    assert (status, builds.options) == (501, None)
    assert "DOCKER_BUILDKIT=0" in lines[0]["message"]
    assert "estiba build" in await refused(outputs='[{"Type":"local"}]')


async def test_two_forms_by_their_content_type() -> None:
    for kind, line in (
        ("application/x-tar", {"stream": "classic"}),
        ("application/tar", {"stream": "classic"}),
        (BUNDLE, {"result": "bundle"}),
        (f"{BUNDLE}; v=1", {"result": "bundle"}),
    ):
        status, builds, lines = await post(
            "/build", {"content-type": kind, "x-registry-config": "e30="}
        )
        assert (status, lines, builds.registries) == (200, [line], "e30=")


# -- prune ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, (False, {}, None, None, None)),
        ({"all": "1"}, (True, {}, None, None, None)),
        ({"keep-storage": "5"}, (False, {}, 5, None, None)),
        ({"reserved-space": "6", "keep-storage": "5"}, (False, {}, 6, None, None)),
        ({"max-used-space": "7", "min-free-space": "8"}, (False, {}, None, 7, 8)),
        ({"filters": '{"until":{"24h":true}}'}, (False, {"until": ["24h"]}, None, None, None)),
        ({"filters": '{"id":["a"]}'}, (False, {"id": ["a"]}, None, None, None)),
    ],
)
async def test_prune(query: dict[str, str], expected: tuple[Any, ...]) -> None:
    status, builds, _ = await post(f"/v1.51/build/prune?{urlencode(query)}")
    assert status == 200
    names = ("everything", "filters", "reserved_bytes", "max_used_bytes", "min_free_bytes")
    assert tuple(builds.pruned[name] for name in names) == expected
