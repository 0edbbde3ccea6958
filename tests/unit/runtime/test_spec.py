"""The runtime-spec of a container: what each wish of the user becomes."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from estiba.kernel.capabilities import NAMES
from estiba.model.container import (
    Config,
    DeviceMapping,
    HostConfig,
    Resources,
    ThrottleDevice,
    TmpfsOptions,
    WeightDevice,
)
from estiba.model.errors import InvalidArgument
from estiba.runtime.devices import Devices, resolve_devices
from estiba.runtime.mounts import SpecMount, bind, tmpfs, tmpfs_mount
from estiba.runtime.namespaces import NEW, Namespaces
from estiba.runtime.process import build_env
from estiba.runtime.resources import build_resources
from estiba.runtime.spec import SpecInput, build_spec
from estiba.runtime.users import User
from estiba.security.profiles.profile import Host, decide_profile
from estiba.security.profiles.seccomp import Machine

HOST = Host(Machine("amd64", (6, 1)), frozenset(NAMES), None, (0,))


def build(
    config: dict[str, Any] | None = None, host: dict[str, Any] | None = None, **inputs: Any
) -> dict[str, Any]:
    host_config = HostConfig(**host or {})
    defaults: dict[str, Any] = {
        "config": Config(**config or {}),
        "host": host_config,
        "args": ["/bin/app", "-v"],
        "user": User(home="/root"),
        "hostname": "c1",
        "rootfs": Path("/run/c1/rootfs"),
        "namespaces": Namespaces(network=Path("/run/netns/c1")),
        "mounts": [],
        "cgroup_path": "/estiba/c1",
        "profile": decide_profile(host_config, HOST),
        "devices": Devices(),
        "device_number": lambda path: (8, 16),
    }
    return build_spec(SpecInput(**{**defaults, **inputs}))


def mounts_of(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {mount["destination"]: mount for mount in spec["mounts"]}


def test_a_plain_container() -> None:
    spec = build()
    assert spec["ociVersion"] == "1.0.2"
    assert spec["root"] == {"path": "/run/c1/rootfs", "readonly": False}
    assert spec["hostname"] == "c1"
    process = spec["process"]
    assert process["args"] == ["/bin/app", "-v"]
    assert process["cwd"] == "/"
    assert process["terminal"] is False
    assert process["noNewPrivileges"] is False
    assert process["oomScoreAdj"] == 0
    assert process["user"] == {"uid": 0, "gid": 0, "additionalGids": []}
    assert process["capabilities"]["inheritable"] == process["capabilities"]["ambient"] == []
    assert len(process["capabilities"]["effective"]) == 14
    assert process["env"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=c1",
        "HOME=/root",
    ]
    linux = spec["linux"]
    assert linux["cgroupsPath"] == "/estiba/c1"
    assert linux["namespaces"] == [
        {"type": "mount"},
        {"type": "pid"},
        {"type": "ipc"},
        {"type": "uts"},
        {"type": "network", "path": "/run/netns/c1"},
        {"type": "cgroup"},
    ]
    assert linux["sysctl"] == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
    }
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert "hooks" not in spec


def test_base_mounts() -> None:
    mounts = mounts_of(build(host={"shm_size": 1234}))
    assert list(mounts) == [
        "/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm",
    ]  # fmt: skip
    assert "ro" in mounts["/sys"]["options"]
    assert "ro" in mounts["/sys/fs/cgroup"]["options"]
    assert "size=1234" in mounts["/dev/shm"]["options"]


def test_privileged() -> None:
    spec = build(host={"privileged": True})
    linux, mounts = spec["linux"], mounts_of(spec)
    assert "seccomp" not in linux
    assert linux["maskedPaths"] == linux["readonlyPaths"] == []
    assert "rw" in mounts["/sys"]["options"]
    assert "rw" in mounts["/sys/fs/cgroup"]["options"]
    assert set(spec["process"]["capabilities"]["bounding"]) == set(NAMES)
    assert "annotations" not in spec


def test_the_ready_made_filter_cannot_be_replaced_by_an_annotation() -> None:
    key = "run.oci.seccomp_bpf_data"
    spec = build(host={"annotations": {key: "mine", "other": "kept"}})
    assert spec["annotations"]["other"] == "kept"
    assert len(base64.b64decode(spec["annotations"][key])) % 8 == 0
    unconfined = {"annotations": {key: "mine"}, "security_opt": ["seccomp=unconfined"]}
    assert "annotations" not in build(host=unconfined)


def test_another_user_has_no_effective_capabilities() -> None:
    process = build(user=User(5, 6, (7,), "/home"))["process"]
    assert process["user"] == {"uid": 5, "gid": 6, "additionalGids": [7]}
    assert process["capabilities"]["effective"] == process["capabilities"]["permitted"] == []
    assert process["capabilities"]["bounding"]


def test_terminal_with_size() -> None:
    process = build({"tty": True}, {"console_size": [40, 120]})["process"]
    assert process["terminal"]
    assert process["consoleSize"] == {"height": 40, "width": 120}
    assert "TERM=xterm" in process["env"]
    assert "consoleSize" not in build({"tty": True})["process"]


def test_environment_of_the_user_wins() -> None:
    env = build_env(["PATH=/x", "HOME=/y", "A=1", "A=2"], hostname="h", tty=False, home="/root")
    assert env == ["PATH=/x", "HOSTNAME=h", "HOME=/y", "A=2"]


def test_init_runs_the_program() -> None:
    spec = build(init=Path("/usr/bin/tini"))
    assert spec["process"]["args"] == ["/sbin/docker-init", "--", "/bin/app", "-v"]
    assert mounts_of(spec)["/sbin/docker-init"]["options"] == ["rbind", "ro", "rprivate"]


def test_namespaces_of_others() -> None:
    namespaces = Namespaces(
        network=None, pid=Path("/proc/7/ns/pid"), ipc=None, uts=None, cgroup=None
    )
    host = {"network_mode": "host", "ipc_mode": "host", "sysctls": {"a.b": "1"}}
    spec = build(host=host, namespaces=namespaces)
    assert spec["linux"]["namespaces"] == [
        {"type": "mount"},
        {"type": "pid", "path": "/proc/7/ns/pid"},
    ]
    assert "hostname" not in spec
    assert spec["linux"]["sysctl"] == {"a.b": "1"}
    assert mounts_of(spec)["/dev/shm"]["source"] == "/dev/shm"
    assert Path() == NEW


def test_shm_of_others_and_none() -> None:
    assert mounts_of(build(shm=Path("/run/c0/shm")))["/dev/shm"]["source"] == "/run/c0/shm"
    assert "/dev/shm" not in mounts_of(build(host={"ipc_mode": "none"}))


def test_wanted_mounts_replace_the_base_and_parents_come_first() -> None:
    wanted = [
        bind(Path("/h/deep"), "/data/a/b"),
        bind(Path("/h/top"), "/data", rw=False, propagation="rslave", recursive=False),
        tmpfs("/dev/shm"),
    ]
    spec = build(mounts=wanted)
    order = [mount["destination"] for mount in spec["mounts"]]
    assert order.index("/data") < order.index("/data/a/b")
    assert order.count("/dev/shm") == 1
    assert mounts_of(spec)["/data"]["options"] == ["bind", "ro", "slave"]
    assert spec["linux"]["rootfsPropagation"] == "rslave"
    own_dev = build(mounts=[bind(Path("/dev"), "/dev")])
    assert not [path for path in mounts_of(own_dev) if path.startswith("/dev/")]


def test_tmpfs_options() -> None:
    assert tmpfs("/x").options == ("noexec", "nosuid", "nodev")
    assert tmpfs("/x", "exec,size=1m,mode=755,nosuid").options == (
        "nosuid", "nodev", "exec", "size=1m", "mode=755",
    )  # fmt: skip
    options = TmpfsOptions(size_bytes=4096, mode=0o700, options=[["exec"], ["uid", "5"]])
    assert tmpfs_mount("/x", options, rw=False) == SpecMount(
        "/x",
        "tmpfs",
        "tmpfs",
        ("nosuid", "nodev", "exec", "uid=5", "ro", "size=4096", "mode=700"),
    )
    for bad in ("bind", "size", "upperdir=/etc", "mode=1,x"):
        with pytest.raises(InvalidArgument, match="invalid tmpfs option"):
            tmpfs("/x", bad)


def resources(**wanted: Any) -> dict[str, Any]:
    return build_resources(Resources(**wanted), device_number=lambda path: (8, 16))


def test_resources() -> None:
    assert resources() == {}
    assert resources(
        memory=10, memory_swap=-1, memory_reservation=5, memory_swappiness=0, oom_kill_disable=True
    )["memory"] == {
        "limit": 10, "swap": -1, "reservation": 5, "swappiness": 0, "disableOOMKiller": True,
    }  # fmt: skip
    assert resources(nano_cpus=1_500_000_000)["cpu"] == {"period": 100_000, "quota": 150_000}
    assert resources(cpu_shares=2, cpu_quota=5, cpu_period=9, cpuset_cpus="0", cpuset_mems="1")[
        "cpu"
    ] == {"shares": 2, "period": 9, "quota": 5, "cpus": "0", "mems": "1"}
    assert resources(cpu_shares=1)["cpu"] == {"shares": 2}
    assert resources(cpu_shares=1 << 40)["cpu"] == {"shares": 262_144}
    assert "pids" not in resources(pids_limit=-1)
    assert "pids" not in resources(pids_limit=0)
    assert "cpu" not in resources(cpu_quota=-1)
    assert resources(
        blkio_weight=300,
        blkio_weight_device=[WeightDevice(path="/dev/sdb", weight=5)],
        blkio_device_read_iops=[ThrottleDevice(path="/dev/sdb", rate=7)],
    )["blockIO"] == {
        "weight": 300,
        "weightDevice": [{"major": 8, "minor": 16, "weight": 5}],
        "throttleReadIOPSDevice": [{"major": 8, "minor": 16, "rate": 7}],
    }


def test_without_swap_accounting_no_swap_limit() -> None:
    wanted = Resources(memory=10, memory_swap=20)
    built = build_resources(wanted, device_number=lambda _: (0, 0), can_limit_swap=False)
    assert built == {"memory": {"limit": 10}}


def test_devices() -> None:
    mapping = DeviceMapping(
        path_on_host="/dev/null", path_in_container="/dev/nothing", cgroup_permissions="r"
    )
    wanted = HostConfig(devices=[mapping], device_cgroup_rules=["c 9:* rw"])
    devices = resolve_devices(wanted)
    spec = build(devices=devices)
    (node,) = spec["linux"]["devices"]
    assert (node["path"], node["type"], node["major"], node["minor"]) == ("/dev/nothing", "c", 1, 3)
    rules = spec["linux"]["resources"]["devices"]
    assert rules[-2:] == [
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"},
        {"allow": True, "type": "c", "major": 9, "access": "rw"},
    ]


@pytest.mark.parametrize(
    ("path", "words"), [("/dev/nope", "no such file or directory"), ("/etc/passwd", "not a device")]
)
def test_a_device_that_is_none(path: str, words: str) -> None:
    wanted = HostConfig(devices=[DeviceMapping(path_on_host=path)])
    with pytest.raises(InvalidArgument, match=words):
        resolve_devices(wanted)


def test_privileged_has_the_hosts_devices() -> None:
    devices = resolve_devices(HostConfig(privileged=True))
    paths = {device.path for device in devices.nodes}
    assert "/dev/null" in paths
    assert not {path for path in paths if path.startswith(("/dev/pts/", "/dev/shm"))}
    assert devices.rules == ({"allow": True, "access": "rwm"},)
