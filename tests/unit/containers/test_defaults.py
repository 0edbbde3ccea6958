"""How a request, its image and the engine's defaults become one container."""

from __future__ import annotations

import pytest

from estiba.containers.defaults import fill_host, merge_env, merge_health, merge_image
from estiba.model.container import Config, HealthConfig, HostConfig, LogConfig
from estiba.model.errors import InvalidArgument
from estiba.model.image import ImageProcessConfig


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "image_entrypoint", "image_cmd", "argv"),
    [
        (None, None, ["e"], ["c"], ["e", "c"]),
        (None, ["x"], ["e"], ["c"], ["e", "x"]),
        (["x"], None, ["e"], ["c"], ["x"]),
        (["x"], ["y"], ["e"], ["c"], ["x", "y"]),
        ([""], ["y"], ["e"], ["c"], ["y"]),
        ([], ["y"], ["e"], ["c"], ["y"]),
        ([], None, ["e"], ["c"], ["c"]),
        (None, None, None, ["c"], ["c"]),
        (None, None, ["e"], None, ["e"]),
        (None, [], ["e"], ["c"], ["e", "c"]),
    ],
)
def test_what_is_run(
    entrypoint: list[str] | None,
    cmd: list[str] | None,
    image_entrypoint: list[str] | None,
    image_cmd: list[str] | None,
    argv: list[str],
) -> None:
    image = ImageProcessConfig(entrypoint=image_entrypoint, cmd=image_cmd)
    merged = merge_image(Config(entrypoint=entrypoint, cmd=cmd), image)
    assert [*(merged.entrypoint or []), *(merged.cmd or [])] == argv


@pytest.mark.parametrize("entrypoint", [None, [], [""]])
def test_nothing_to_run(entrypoint: list[str] | None) -> None:
    with pytest.raises(InvalidArgument, match="no command specified"):
        merge_image(Config(entrypoint=entrypoint), ImageProcessConfig())


def test_everything_else_comes_from_the_image_where_it_is_open() -> None:
    image = ImageProcessConfig(
        user="app",
        env=["PATH=/bin", "A=image"],
        cmd=["c"],
        exposed_ports={"80/tcp": {}},
        volumes={"/data": {}},
        labels={"a": "image", "b": "image"},
        working_dir="/srv",
        stop_signal="SIGINT",
        shell=["bash", "-c"],
    )
    inherited = merge_image(Config(), image)
    assert inherited.user == "app"
    assert inherited.working_dir == "/srv"
    assert inherited.stop_signal == "SIGINT"
    assert inherited.shell == ["bash", "-c"]
    assert inherited.labels == {"a": "image", "b": "image"}
    own = Config(
        user="me",
        env=["A=own"],
        exposed_ports={"90/udp": {}},
        volumes={"/more": {}},
        labels={"a": "own"},
        working_dir="/home",
        stop_signal="SIGQUIT",
    )
    merged = merge_image(own, image)
    assert (merged.user, merged.working_dir, merged.stop_signal) == ("me", "/home", "SIGQUIT")
    assert set(merged.exposed_ports) == {"80/tcp", "90/udp"}
    assert set(merged.volumes) == {"/data", "/more"}
    assert merged.labels == {"a": "own", "b": "image"}
    assert merged.env == ["A=own", "PATH=/bin"]


@pytest.mark.parametrize(
    ("wanted", "inherited", "merged"),
    [
        ([], ["A=1"], ["A=1"]),
        (["A=2"], ["A=1", "B=1"], ["A=2", "B=1"]),
        (["A"], ["A=1", "B=1"], ["A", "B=1"]),
        (["A="], ["A=1"], ["A="]),
        (["A=1=2"], [], ["A=1=2"]),
        (["AB=1"], ["A=1"], ["AB=1", "A=1"]),
    ],
)
def test_environment(wanted: list[str], inherited: list[str], merged: list[str]) -> None:
    assert merge_env(wanted, inherited) == merged


def test_health_checks_are_merged_field_by_field() -> None:
    image = HealthConfig(test=["CMD", "a"], interval=1, timeout=2, retries=3, start_period=4)
    assert merge_health(None, None) is None
    assert merge_health(None, image) == image
    assert merge_health(HealthConfig(interval=9), None) == HealthConfig(interval=9)
    assert merge_health(HealthConfig(interval=9), image) == HealthConfig(
        test=["CMD", "a"], interval=9, timeout=2, retries=3, start_period=4
    )
    off = merge_health(HealthConfig(test=["NONE"]), image)
    assert off is not None
    assert off.test == ["NONE"]


LOG = LogConfig(type="json-file", config={"max-size": "100m"})


def test_the_host_part_shows_what_is_in_force() -> None:
    filled = fill_host(HostConfig(), runtime="crun", log=LOG)
    assert filled.network_mode == "bridge"
    assert (filled.ipc_mode, filled.cgroupns_mode) == ("private", "private")
    assert filled.shm_size == 64 << 20
    assert filled.runtime == "crun"
    assert filled.log_config == LOG


def test_what_was_given_stays() -> None:
    given = HostConfig(
        network_mode="none",
        ipc_mode="host",
        cgroupns_mode="host",
        shm_size=1,
        runtime="runc",
        log_config=LogConfig(type="local", config={"max-file": "1"}),
        memory=100,
        memory_swap=-1,
    )
    assert fill_host(given, runtime="crun", log=LOG) == given


@pytest.mark.parametrize(
    ("given", "mode"), [("", "bridge"), ("default", "bridge"), ("host", "host"), ("mine", "mine")]
)
def test_network_mode(given: str, mode: str) -> None:
    filled = fill_host(HostConfig(network_mode=given), runtime="crun", log=LOG)
    assert filled.network_mode == mode


@pytest.mark.parametrize(("cgroup_v2", "mode"), [(False, "host"), (True, "private")])
def test_privileged_containers_share_the_host_s_cgroups_on_v1(cgroup_v2: bool, mode: str) -> None:
    host = HostConfig(privileged=True)
    filled = fill_host(host, runtime="crun", log=LOG, cgroup_v2=cgroup_v2)
    assert filled.cgroupns_mode == mode


@pytest.mark.parametrize(
    ("memory", "swap", "filled"), [(0, 0, 0), (100, 0, 200), (100, 150, 150), (100, -1, -1)]
)
def test_swap_defaults_to_as_much_as_memory(memory: int, swap: int, filled: int) -> None:
    host = HostConfig(memory=memory, memory_swap=swap)
    assert fill_host(host, runtime="crun", log=LOG).memory_swap == filled


@pytest.mark.parametrize("driver", ["", "json-file"])
def test_log_options_join_those_of_the_engine_s_own_driver(driver: str) -> None:
    host = HostConfig(log_config=LogConfig(type=driver, config={"max-file": "5"}))
    filled = fill_host(host, runtime="crun", log=LOG)
    assert filled.log_config == LogConfig(
        type="json-file", config={"max-size": "100m", "max-file": "5"}
    )
