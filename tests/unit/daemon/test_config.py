"""Settings of the daemon: what is wrong with them is said before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from estiba.daemon.config import DaemonConfig, load
from estiba.daemon.flags import parser
from estiba.model.errors import InvalidArgument


def loaded(folder: Path, *flags: str, **content: Any) -> DaemonConfig:
    path = folder / "daemon.json"
    path.write_text(json.dumps({name.replace("_", "-"): item for name, item in content.items()}))
    return load(parser().parse_args(["--config-file", str(path), *flags]))


def test_both_places(tmp_path: Path) -> None:
    config = loaded(tmp_path, "--fixed-cidr", "10.9.0.128/25", bip="10.9.0.1/24", mtu=1400)
    assert (config.bip, config.fixed_cidr, config.mtu) == ("10.9.0.1/24", "10.9.0.128/25", 1400)


def test_an_empty_file_says_nothing() -> None:
    assert load(parser().parse_args(["--config-file", "/dev/null"])) == DaemonConfig()


def test_publish_policy(tmp_path: Path) -> None:
    assert loaded(tmp_path).publish_policy == "host"
    assert loaded(tmp_path, publish_policy="open").publish_policy == "open"
    assert loaded(tmp_path, "--publish-policy", "open").publish_policy == "open"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"mtu": "wide"}, "wrong kind"),
        ({"default_address_pools": [{"size": 24}]}, "wrong kind|base"),
        ({"runtimes": {"x": {}}}, "wrong kind|path"),
        ({"log_level": "loud"}, "invalid log-level 'loud'"),
        ({"log_driver": "fluentd"}, "no log driver named 'fluentd'"),
        ({"log_opts": {"max-size": "huge"}}, "invalid size"),
        ({"log_opts": {"colour": "blue"}}, "unknown log opt 'colour'"),
        ({"publish_policy": "shut"}, "invalid publish-policy 'shut': use host or open"),
        ({"nonsense": 1}, "unknown setting: nonsense"),
    ],
)
def test_what_is_wrong(tmp_path: Path, content: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        loaded(tmp_path, **content)


def test_addresses_of_ipv6(tmp_path: Path) -> None:
    pool = "base=fd12::/48,size=64"
    config = loaded(tmp_path, "--ipv6", "--bip6", "fd00::1/64", "--default-address-pool", pool)
    assert (config.ipv6, config.bip6, config.address_pools) == (
        True,
        "fd00::1/64",
        [("fd12::/48", 64)],
    )
    for bad in ("base=fd12::/64,size=48", "base=10.0.0.1/8,size=24", "base=10.0.0.0/8,size=31"):
        with pytest.raises(InvalidArgument, match="invalid address pool"):
            loaded(tmp_path, "--default-address-pool", bad)


def test_modes_that_containers_inherit(tmp_path: Path) -> None:
    config = loaded(tmp_path, "--default-ipc-mode", "shareable", default_cgroupns_mode="host")
    assert (config.default_ipc_mode, config.default_cgroupns_mode) == ("shareable", "host")
    with pytest.raises(InvalidArgument, match="default-ipc-mode 'host': use private or shareable"):
        loaded(tmp_path, default_ipc_mode="host")


def test_what_host_gateway_stands_for(tmp_path: Path) -> None:
    assert loaded(tmp_path, "--host-gateway-ip", "fd00:0::1").host_gateway == "fd00::1"
    with pytest.raises(InvalidArgument, match="host-gateway-ip"):
        loaded(tmp_path, host_gateway_ip="here")


def test_experimental(tmp_path: Path) -> None:
    assert loaded(tmp_path, "--experimental").experimental
    assert loaded(tmp_path, experimental=True).experimental
    assert not loaded(tmp_path, "--experimental=false").experimental


def test_what_means_nothing_here_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flags = ["--userland-proxy=false", "--live-restore", "--exec-opt", "a=b"]
    assert loaded(tmp_path, *flags, exec_opts=["c=d"], iptables=False) == DaemonConfig()
    for name in ("userland-proxy", "live-restore", "exec-opt", "iptables"):
        assert f"{name} has no effect here" in caplog.text
