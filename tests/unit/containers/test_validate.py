"""Requests that make sense, and every reason for which one is refused or warned about."""

from __future__ import annotations

from typing import Any

import pytest

from estiba.containers.hostfacts import HostFacts
from estiba.containers.unhonoured import warnings_for
from estiba.containers.validate import (
    check_config,
    check_host,
    check_network_conflicts,
    parse_host_port,
    parse_port,
    parse_size,
)
from estiba.model.container import (
    Config,
    HealthConfig,
    HostConfig,
    LogConfig,
    PortBinding,
    RestartPolicy,
    Ulimit,
)
from estiba.model.errors import InvalidArgument

MB = 1 << 20
FACTS = HostFacts(cpus=4, memory_bytes=8 << 30, cgroup_v2=True)

# -- Config --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(hostname="web-1.example.com", domainname="example.com"),
        Config(hostname="under_score"),
        Config(hostname="a" * 64),
        Config(working_dir="/srv"),
        Config(env=["A=1", "B", "C=", "D=x=y", "ü=1"]),
        Config(stop_signal="SIGRTMIN+3"),
        Config(exposed_ports={"80": {}, "53/udp": {}, "8000-8010/tcp": {}, "9/SCTP": {}}),
        Config(healthcheck=HealthConfig(test=["CMD", "true"])),
    ],
)
def test_configs_accepted(config: Config) -> None:
    check_config(config)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (Config(hostname="-a"), "invalid hostname '-a'"),
        (Config(hostname="a-"), "invalid hostname"),
        (Config(hostname="a..b"), "invalid hostname"),
        (Config(hostname="a" * 65), "invalid hostname"),
        (Config(hostname="a b"), "invalid hostname"),
        (Config(hostname="a\n"), "invalid hostname"),
        (Config(hostname="a\nnameserver 1.1.1.1"), "invalid hostname"),
        (Config(domainname="a_.-"), "invalid domainname"),
        (Config(working_dir="srv"), "needs to be an absolute path"),
        (Config(env=[""]), "invalid environment variable"),
        (Config(env=["=1"]), "invalid environment variable"),
        (Config(env=["A=1\0B=2"]), "invalid environment variable"),
        (Config(stop_signal="SIGFOO"), "invalid signal"),
        (Config(exposed_ports={"http": {}}), "invalid port"),
        (Config(exposed_ports={"80/icmp": {}}), "invalid proto"),
        (Config(healthcheck=HealthConfig(test=["CMD"])), "invalid health check"),
    ],
)
def test_configs_refused(config: Config, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        check_config(config)


# -- HostConfig ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"memory": 6 * MB, "memory_swap": 6 * MB, "memory_reservation": 6 * MB},
        {"memory": 100 * MB, "memory_swap": -1, "memory_swappiness": 0},
        {"memory_swappiness": -1},
        {"nano_cpus": 4_000_000_000},
        {"nano_cpus": 10_000_000},
        {"cpu_period": 1000, "cpu_quota": 1000},
        {"cpu_period": 1_000_000, "cpu_quota": -1},
        {"cpuset_cpus": "0-3", "cpuset_mems": "0"},
        {"cpuset_cpus": "0,2-3"},
        {"blkio_weight": 10},
        {"blkio_weight": 1000},
        {"pids_limit": -2},
        {"pids_limit": 0},
        {"ulimits": [Ulimit(name="nofile", soft=1, hard=-1)]},
        {"ulimits": [Ulimit(name="nofile", soft=5, hard=5)]},
        {"oom_score_adj": -1000},
        {"ipc_mode": "container:x", "pid_mode": "host", "uts_mode": "host"},
        {"ipc_mode": "shareable", "cgroupns_mode": "private"},
        {"userns_mode": "host"},
        {"runtime": "runc"},
        {"port_bindings": {"80/tcp": [PortBinding(host_ip="::1", host_port="8080-8090")]}},
        {"port_bindings": {"80": [PortBinding()]}},
        {"dns": ["1.1.1.1", "2001:db8::1"]},
        {"extra_hosts": ["a:1.1.1.1", "b:2001:db8::1", "c:[::1]", "d:host-gateway"]},
        {"log_config": LogConfig(type="json-file", config={"max-size": "10m", "max-file": "2"})},
        {"log_config": LogConfig(type="none")},
        {"log_config": LogConfig(config={"max-size": "-1"})},
        {"restart_policy": RestartPolicy(name="on-unhealthy", maximum_retry_count=2)},
    ],
)
def test_hosts_accepted(fields: dict[str, Any]) -> None:
    check_host(HostConfig(**fields), FACTS)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"memory": 6 * MB - 1}, "Minimum memory limit allowed is 6MB"),
        ({"memory_swap": 10 * MB}, "always set the Memory limit"),
        ({"memory": 10 * MB, "memory_swap": 9 * MB}, "larger than memory limit"),
        ({"memory_reservation": 1}, "Minimum memory reservation"),
        ({"memory": 10 * MB, "memory_reservation": 11 * MB}, "less than memory reservation"),
        ({"memory_swappiness": 101}, "swappiness range is 0-100"),
        ({"memory_swappiness": -2}, "swappiness range is 0-100"),
        ({"nano_cpus": 4_000_000_001}, "only 4 CPUs available"),
        ({"nano_cpus": -1}, "range of CPUs"),
        ({"nano_cpus": 1_000_000_000, "cpu_quota": 5000}, "cannot both be set"),
        ({"nano_cpus": 1_000_000_000, "cpu_period": 5000}, "cannot both be set"),
        ({"cpu_period": 999}, "CPU cfs period"),
        ({"cpu_period": 1_000_001}, "CPU cfs period"),
        ({"cpu_quota": 999}, "CPU cfs quota"),
        ({"cpu_shares": -1}, "CPU shares"),
        ({"cpuset_cpus": "4"}, "Requested CPUs are not available - requested 4, available: 0-3"),
        ({"cpuset_cpus": "0-"}, "Invalid value 0- for cpuset cpus"),
        ({"cpuset_cpus": "a"}, "for cpuset cpus"),
        ({"cpuset_mems": "0 1"}, "for cpuset mems"),
        ({"blkio_weight": 9}, "blkio weight is from 10 to 1000"),
        ({"blkio_weight": 1001}, "blkio weight"),
        ({"ulimits": [Ulimit(name="core", soft=2, hard=1)]}, "ulimit soft limit.*core"),
        ({"oom_score_adj": 1001}, "oom score adj"),
        ({"oom_score_adj": -1001}, "oom score adj"),
        ({"shm_size": -1}, "SHM size"),
        ({"ipc_mode": "container:"}, "invalid IPC mode"),
        ({"ipc_mode": "other"}, "invalid IPC mode: other"),
        ({"pid_mode": "other"}, "invalid PID mode"),
        ({"pid_mode": "private"}, "invalid PID mode: private"),
        ({"uts_mode": "container:x"}, "invalid UTS mode: container:x"),
        ({"cgroupns_mode": "container:x"}, "invalid cgroup namespace mode: container:x"),
        ({"isolation": "hyperv"}, "invalid isolation .hyperv.: linux only supports 'default'"),
        ({"annotations": {"": "x"}}, "empty string is not permitted as an annotation key"),
        ({"uts_mode": "other"}, "invalid UTS mode"),
        ({"cgroupns_mode": "other"}, "invalid cgroup namespace mode"),
        ({"userns_mode": "auto"}, "invalid userns mode"),
        ({"network_mode": "container:"}, "invalid container format container:<name.id>"),
        ({"runtime": "gvisor"}, "unknown or invalid runtime name: gvisor .known: crun, runc"),
        ({"port_bindings": {"x": []}}, "invalid port"),
        ({"port_bindings": {"80": [PortBinding(host_port="70000")]}}, "invalid port range"),
        ({"port_bindings": {"80": [PortBinding(host_ip="localhost")]}}, "is not an IP address"),
        ({"dns": ["resolver"]}, "invalid DNS server: 'resolver'"),
        ({"extra_hosts": ["a"]}, "bad format for add-host"),
        ({"extra_hosts": ["a:"]}, "bad format for add-host"),
        ({"extra_hosts": ["a=1.1.1.1"]}, "bad format for add-host"),
        ({"extra_hosts": [":1.1.1.1"]}, "bad format for add-host"),
        ({"extra_hosts": ["a:b"]}, "invalid IP address in add-host"),
        ({"extra_hosts": ["a\nb:1.1.1.1"]}, "bad format for add-host"),
        ({"dns_search": ["a\nnameserver 6.6.6.6"]}, "invalid DNS search domain"),
        ({"dns_options": ["ndots:1 x"]}, "invalid DNS option"),
        ({"cgroup_parent": "/../../../tmp"}, "invalid cgroup parent"),
        ({"cgroup_parent": "/a\nb"}, "invalid cgroup parent"),
        ({"log_config": LogConfig(type="splunk")}, "no log driver named 'splunk'"),
        ({"log_config": LogConfig(type="none", config={"max-size": "1m"})}, "unknown log opt"),
        ({"log_config": LogConfig(config={"x": "1"})}, "log opt 'x' for json-file log driver"),
        ({"log_config": LogConfig(type="local", config={"tag": "x"})}, "unknown log opt 'tag'"),
        ({"log_config": LogConfig(config={"max-size": "big"})}, "invalid size: 'big'"),
        ({"log_config": LogConfig(config={"max-file": "0"})}, "max-file cannot be less than 1"),
        ({"log_config": LogConfig(config={"max-file": "x"})}, "max-file cannot be less than 1"),
        ({"log_config": LogConfig(config={"max-file": "9" * 5000})}, "max-file cannot be"),
        ({"restart_policy": RestartPolicy(name="maybe")}, "invalid restart policy"),
    ],
)
def test_hosts_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        check_host(HostConfig(**fields), FACTS)


@pytest.mark.parametrize(
    ("config", "fields", "what"),
    [
        (Config(hostname="a"), {}, "hostname"),
        (Config(), {"links": ["a"]}, "container type network can't be used with links"),
        (Config(), {"dns": ["1.1.1.1"]}, "dns"),
        (Config(), {"extra_hosts": ["a:1.1.1.1"]}, "custom host-to-IP"),
        (Config(), {"port_bindings": {"80": []}}, "port publishing"),
        (Config(), {"publish_all_ports": True}, "port publishing"),
        (Config(mac_address="02:42:ac:11:00:02"), {}, "mac-address"),
        (Config(exposed_ports={"80/tcp": {}}), {}, "port exposing"),
    ],
)
def test_a_shared_network_leaves_nothing_of_it_to_choose(
    config: Config, fields: dict[str, Any], what: str
) -> None:
    host = HostConfig(network_mode="container:other", **fields)
    with pytest.raises(InvalidArgument, match=f"conflicting options: {what}"):
        check_network_conflicts(config, host)
    check_network_conflicts(config, HostConfig(network_mode="bridge", **fields))


def test_the_host_s_uts_namespace_leaves_no_name_to_choose() -> None:
    with pytest.raises(InvalidArgument, match="hostname and the UTS mode"):
        check_network_conflicts(Config(hostname="a"), HostConfig(uts_mode="host"))
    check_network_conflicts(Config(), HostConfig(uts_mode="host"))


# -- small grammars ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("100", 100),
        ("10b", 10),
        ("1k", 1024),
        ("1KB", 1024),
        ("10m", 10 * MB),
        ("2Gb", 2 << 30),
        (" 5m ", 5 * MB),
        ("-1", -1),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-2", "1.5m", "1t", "1 m", "0x10", "10mm", "9" * 5000])
def test_sizes_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "ports", "protocol"),
    [
        ("80", range(80, 81), "tcp"),
        ("80/tcp", range(80, 81), "tcp"),
        ("53/UDP", range(53, 54), "udp"),
        ("8000-8002/sctp", range(8000, 8003), "sctp"),
        ("1-65535", range(1, 65536), "tcp"),
        ("80/", range(80, 81), "tcp"),
    ],
)
def test_ports(text: str, ports: range, protocol: str) -> None:
    assert parse_port(text) == (ports, protocol)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "65536",
        "90-80",
        "80-",
        "-80",
        "80/icmp",
        "80-90-95",
        "a",
        "80,90",
        "80/tcp/udp",
        "8" * 5000,
    ],
)
def test_ports_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid"):
        parse_port(text)


def test_host_ports() -> None:
    assert parse_host_port("") is None
    assert parse_host_port("0") is None
    assert parse_host_port("8080") == range(8080, 8081)
    assert parse_host_port("8080-8081") == range(8080, 8082)
    with pytest.raises(InvalidArgument, match="invalid port"):
        parse_host_port("8080/tcp")


# -- warnings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"storage_opt": {"size": "1g"}}, "StorageOpt"),
        ({"cpu_count": 1}, "Windows"),
        ({"cgroup": "x"}, "Cgroup"),
        ({"log_config": LogConfig(config={"labels": "a", "env": "b"})}, "env, labels"),
        ({"network_mode": "host", "port_bindings": {"80": []}}, "Published ports"),
        ({"network_mode": "none", "publish_all_ports": True}, "Published ports"),
    ],
)
def test_what_the_engine_cannot_honour_is_said(fields: dict[str, Any], says: str) -> None:
    warnings = list(warnings_for(Config(), HostConfig(**fields), FACTS))
    assert len(warnings) == 1
    assert says in warnings[0]


def test_a_plain_request_has_no_warnings() -> None:
    assert not list(warnings_for(Config(), HostConfig(memory_swappiness=-1), FACTS))
    assert list(warnings_for(Config(args_escaped=True), HostConfig(), FACTS))
