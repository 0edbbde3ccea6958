"""Limits, devices and counters of containers, as the kernel's own files show them.

Every test runs on version 1, hybrid and version 2 of cgroups alike, but for those that say so:
`scripts/test-cgroup2` runs them on version 2.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, wait_until

from estiba.kernel.cgroup import Feature, Hierarchies, Mode, Stats

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("clean")]

HIERARCHIES = Hierarchies.detect()
IS_V2 = HIERARCHIES.mode == Mode.V2
MB = 1 << 20
TOP = Path(__file__).parents[2]
UNITS = Path("/run/systemd/system")
only_on_v2 = pytest.mark.skipif(not IS_V2, reason="this host has no pure cgroup v2")


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Group:
    """The cgroup of a container; files are named as in version 1, then as in version 2."""

    def __init__(self, daemon: PrivateDaemon, name: str) -> None:
        self.path = f"/estiba-test-{daemon.bridge}/{daemon.inspect(name)['Id']}"

    def read(self, v1: str, v2: str) -> str:
        if IS_V2:
            return (HIERARCHIES.mounts[""] / self.path.lstrip("/") / v2).read_text().strip()
        mount = HIERARCHIES.mounts[v1.partition(".")[0]]
        return (mount / self.path.lstrip("/") / v1).read_text().strip()

    def stats(self) -> Stats:
        return HIERARCHIES.stats(self.path)

    def memory(self) -> tuple[int, int]:
        """The limits of memory and of memory with swap, in bytes."""
        memory = int(self.read("memory.limit_in_bytes", "memory.max"))
        if IS_V2:
            return memory, memory + int(self.read("", "memory.swap.max"))
        return memory, int(self.read("memory.memsw.limit_in_bytes", ""))

    def cpu(self) -> tuple[str, str]:
        """Quota and period in microseconds."""
        if IS_V2:
            quota, period = self.read("", "cpu.max").split()
            return quota, period
        return self.read("cpu.cfs_quota_us", ""), self.read("cpu.cfs_period_us", "")


def _disk() -> tuple[str, str]:
    """A disk's device node and its numbers."""
    names = sorted(os.listdir("/sys/block"), key=lambda name: name.startswith(("loop", "ram")))
    name = next(name for name in names if Path("/dev", name).exists())
    return f"/dev/{name}", Path("/sys/block", name, "dev").read_text().strip()


def _weights(shares: int) -> set[str]:
    """cpu.weight for shares: the linear rule, and the one that runtimes have used since 2025."""
    linear = 1 + (shares - 2) * 9999 // 262142
    exponent = shares.bit_length() - 1  # a power of two here
    curved = 10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34)
    return {str(linear), str(-int(-curved // 1))}


def _run(daemon: PrivateDaemon, runtime: str, *arguments: str) -> Group:
    daemon.docker("run", "-d", "--runtime", runtime, "--name", "box", *arguments)
    return Group(daemon, "box")


def test_limits_land_where_the_kernel_reads_them(daemon: PrivateDaemon, runtime: str) -> None:
    disk, numbers = _disk()
    group = _run(
        daemon, runtime, "-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m",
        "--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0", "--cpuset-mems", "0",
        "--pids-limit", "33", "--device-read-bps", f"{disk}:1mb",
        "--device-write-iops", f"{disk}:100", "busybox", "sleep", "1000",
    )  # fmt: skip
    assert group.memory() == (64 * MB, 96 * MB)
    assert group.read("memory.soft_limit_in_bytes", "memory.low") == str(32 * MB)
    assert group.cpu() == ("50000", "100000")
    assert group.read("cpu.shares", "cpu.weight") in (_weights(512) if IS_V2 else {"512"})
    assert group.read("cpuset.cpus", "cpuset.cpus") == "0"
    assert group.read("cpuset.mems", "cpuset.mems") == "0"
    assert group.read("pids.max", "pids.max") == "33"
    if IS_V2:
        assert group.read("", "io.max") == f"{numbers} rbps={MB} wbps=max riops=max wiops=100"
    else:
        assert group.read("blkio.throttle.read_bps_device", "") == f"{numbers} {MB}"
        assert group.read("blkio.throttle.write_iops_device", "") == f"{numbers} 100"


def test_memory_goes_up_and_down_while_it_runs(daemon: PrivateDaemon, runtime: str) -> None:
    """The kernel wants memory ≤ memory with swap at every moment, so the order of writes counts."""
    group = _run(daemon, runtime, "-m", "64m", "--memory-swap", "96m", "busybox", "sleep", "1000")
    for memory, swap in ((256, 300), (32, 40), (32, 32), (512, 512), (100, 512)):
        daemon.docker("update", "-m", f"{memory}m", "--memory-swap", f"{swap}m", "box")
        assert group.memory() == (memory * MB, swap * MB)
    daemon.docker("update", "-m", "200m", "box")
    assert group.memory() == (200 * MB, 512 * MB)
    failed = daemon.docker("update", "-m", "1g", "box", check=False)
    assert b"update the memoryswap at the same time" in failed.stderr
    assert group.memory() == (200 * MB, 512 * MB)
    daemon.docker("update", "--memory-swap", "-1", "box")
    unlimited = {"max", "-1", str(2**63 - 4096)}
    assert group.read("memory.memsw.limit_in_bytes", "memory.swap.max") in unlimited
    assert group.read("memory.limit_in_bytes", "memory.max") == str(200 * MB)


def test_a_first_limit_while_it_runs(daemon: PrivateDaemon, runtime: str) -> None:
    group = _run(daemon, runtime, "busybox", "sleep", "1000")
    assert group.stats().memory.limit is None
    daemon.docker("update", "-m", "64m", "--memory-reservation", "16m", "box")
    assert group.memory() == (64 * MB, 128 * MB)
    assert daemon.inspect("box")["HostConfig"]["MemorySwap"] == 128 * MB
    assert group.read("memory.soft_limit_in_bytes", "memory.low") == str(16 * MB)
    daemon.docker("update", "--cpus", "0.25", "--cpu-shares", "2048", "--cpuset-cpus", "0", "box")
    assert group.cpu() == ("25000", "100000")
    assert group.read("cpu.shares", "cpu.weight") in (_weights(2048) if IS_V2 else {"2048"})
    assert group.read("cpuset.cpus", "cpuset.cpus") == "0"
    daemon.docker("update", "--pids-limit", "20", "box")
    assert group.read("pids.max", "pids.max") == "20"
    # What was not named stayed as it was.
    assert group.memory() == (64 * MB, 128 * MB)
    assert group.cpu() == ("25000", "100000")


def test_quota_and_period_change_apart(daemon: PrivateDaemon, runtime: str) -> None:
    limits = ("--cpu-period", "50000", "--cpu-quota", "20000")
    group = _run(daemon, runtime, *limits, "busybox", "sleep", "1000")
    assert group.cpu() == ("20000", "50000")
    daemon.docker("update", "--cpu-quota", "30000", "box")
    assert group.cpu() == ("30000", "50000")
    daemon.docker("update", "--cpu-period", "80000", "box")
    assert group.cpu() == ("30000", "80000")
    failed = daemon.docker("update", "--cpus", "0.5", "box", check=False)
    assert b"CPU Period has already been set" in failed.stderr
    daemon.docker("update", "--cpu-quota", "-1", "box")
    assert group.cpu() == ("max" if IS_V2 else "-1", "80000")


def test_weights_of_block_devices(daemon: PrivateDaemon, runtime: str) -> None:
    """Where the kernel has no scheduler that weighs, the answer says so and nothing is limited."""
    features = HIERARCHIES.features(f"/estiba-test-{daemon.bridge}")
    done = daemon.docker(
        "run", "-d", "--runtime", runtime, "--name", "box", "--blkio-weight", "300",
        "busybox", "sleep", "1000",
    )  # fmt: skip
    if Feature.BLKIO_WEIGHT not in features:
        assert b"Weight discarded" in done.stderr
        assert daemon.inspect("box")["HostConfig"]["BlkioWeight"] == 0
        done = daemon.docker("update", "--blkio-weight", "500", "box")
        assert b"Weight discarded" in done.stdout
        return
    group = Group(daemon, "box")
    if not IS_V2:
        assert group.read("blkio.weight", "") == "300"
        return
    found = []
    for name in ("io.bfq.weight", "io.weight"):
        with contextlib.suppress(FileNotFoundError):
            found.append(group.read("", name).removeprefix("default "))
    # BFQ's scale is the API's, that of io.weight goes from 1 to 10,000.
    assert {"300", str(1 + (300 - 10) * 9999 // 990)} & set(found)


def test_a_limit_that_the_kernel_refuses_leaves_nothing(
    daemon: PrivateDaemon, runtime: str, tmp_path: Path
) -> None:
    """The runtime has made the group by then, and forgets it."""
    nobody = tmp_path / "disk"
    os.mknod(nobody, stat.S_IFBLK | 0o600, os.makedev(250, 99))
    limits = {"Runtime": runtime, "BlkioDeviceReadBps": [{"Path": str(nobody), "Rate": 1 << 20}]}
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": limits}
    assert daemon.request("POST", "/containers/create?name=box", body)[0] == 201
    status, answer = daemon.request("POST", "/containers/box/start")
    assert status == 400, answer
    assert "No such device" in answer["message"] or "no such device" in answer["message"]
    group = Group(daemon, "box").path
    assert not [path for path in HIERARCHIES.directories(group) if path.exists()]


@pytest.mark.parametrize("mode", ["private", "host"])
def test_the_cgroup_namespace(daemon: PrivateDaemon, runtime: str, mode: str) -> None:
    script = "cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/*/memory.limit*"
    done = daemon.docker(
        "run", "--rm", "--runtime", runtime, "--cgroupns", mode, "--cidfile",
        str(daemon.root / f"cid-{runtime}-{mode}"), "-m", "48m", "busybox", "sh", "-c", script,
        check=False,
    )  # fmt: skip
    lines = done.stdout.decode().split()
    groups = {line.rpartition(":")[2] for line in lines if line.count(":") >= 2}
    if mode == "private":
        assert groups == {"/"}
        assert str(48 * MB) in lines
    else:
        identity = (daemon.root / f"cid-{runtime}-{mode}").read_text()
        assert f"/estiba-test-{daemon.bridge}/{identity}" in groups


def test_privileged_containers_may_make_groups(daemon: PrivateDaemon, runtime: str) -> None:
    script = "d=/sys/fs/cgroup; [ -d $d/pids ] && d=$d/pids; mkdir $d/inner && rmdir $d/inner"
    private = ("--privileged", "--cgroupns", "private")
    daemon.run("--runtime", runtime, *private, "busybox", "sh", "-c", script)
    refused = daemon.docker("run", "--rm", "busybox", "sh", "-c", script, check=False)
    assert b"Read-only file system" in refused.stderr
    daemon.docker("create", "--name", "box", "--privileged", "busybox")
    mode = daemon.inspect("box")["HostConfig"]["CgroupnsMode"]
    assert mode == ("private" if IS_V2 else "host")


def test_devices_are_denied_and_allowed(daemon: PrivateDaemon, runtime: str) -> None:
    """By the device controller on version 1, by a BPF program on version 2."""
    _, disk = _disk()
    script = f"""
        mknod /tmp/disk b {disk.replace(":", " ")}; mknod /tmp/kmsg c 1 11; mknod /tmp/null c 1 3
        try() {{ (eval "$2") 2>/dev/null && echo "$1 yes" || echo "$1 no"; }}
        try disk ': < /tmp/disk'; try kmsg ': > /tmp/kmsg'; try null ': > /tmp/null'
        rm /tmp/disk /tmp/kmsg /tmp/null
    """

    def outcome(*flags: str) -> str:
        _run(daemon, runtime, *flags, "busybox", "sleep", "1000")
        text = daemon.docker("exec", "box", "sh", "-c", script).stdout.decode()
        daemon.docker("update", "--pids-limit", "100", "box")
        again = daemon.docker("exec", "box", "sh", "-c", script).stdout.decode()
        assert again == text, "an update changed the rules"
        daemon.docker("rm", "-f", "box")
        return text.replace("\n", ", ")

    assert outcome() == "disk no, kmsg no, null yes, "
    assert outcome("--device-cgroup-rule", f"b {disk} rm") == "disk yes, kmsg no, null yes, "
    assert outcome("--device-cgroup-rule", "c 1:* wm") == "disk no, kmsg yes, null yes, "
    assert outcome("--device", "/dev/kmsg:/dev/x:r") == "disk no, kmsg no, null yes, "
    assert outcome("--device", "/dev/kmsg:/dev/x:w") == "disk no, kmsg yes, null yes, "
    assert outcome("--privileged") == "disk yes, kmsg yes, null yes, "


def test_pause_is_the_kernels_freezer(daemon: PrivateDaemon, runtime: str) -> None:
    group = _run(daemon, runtime, "busybox", "sleep", "1000")
    daemon.docker("pause", "box")
    assert group.read("freezer.state", "cgroup.freeze") in ("FROZEN", "1")
    daemon.docker("unpause", "box")
    assert group.read("freezer.state", "cgroup.freeze") in ("THAWED", "0")
    daemon.docker("pause", "box")
    daemon.docker("stop", "-t", "0", "box")
    assert daemon.inspect("box")["State"]["ExitCode"] == 137


def test_out_of_memory_is_told(daemon: PrivateDaemon, runtime: str) -> None:
    fill = "head -c 50m /dev/zero > /dev/shm/x"
    limits = ("-m", "12m", "--memory-swap", "12m")
    done = daemon.docker(
        "run", "--runtime", runtime, "--name", "box", *limits, "busybox", "sh", "-c",
        f"exec {fill}", check=False,
    )  # fmt: skip
    assert done.returncode == 137
    state = daemon.inspect("box")["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)
    told = daemon.events(daemon.inspect("box")["Id"])
    assert told.replace(b" ", b"").count(b'"Action":"oom"') == 1
    daemon.docker("rm", "box")
    # A container that was killed by hand did not run out of memory.
    _run(daemon, runtime, *limits, "busybox", "sleep", "1000")
    daemon.docker("kill", "box")
    daemon.wait_state("box", "exited")
    assert not daemon.inspect("box")["State"]["OOMKilled"]


def test_a_container_that_outlives_the_lack_of_memory(daemon: PrivateDaemon, runtime: str) -> None:
    """Its child is killed; that is told at once, once, and after a restart of the daemon too."""
    script = "head -c 50m /dev/zero | tail > /dev/null; sleep 1000"
    limits = ("-m", "12m", "--memory-swap", "12m")
    _run(daemon, runtime, *limits, "busybox", "sh", "-c", script)
    wait_until(lambda: daemon.inspect("box")["State"]["OOMKilled"], what="the child to be killed")
    daemon.restart()
    assert daemon.inspect("box")["State"]["OOMKilled"]
    assert daemon.inspect("box")["State"]["Running"]
    daemon.docker("kill", "box")
    daemon.wait_state("box", "exited")
    told = daemon.events(daemon.inspect("box")["Id"])
    assert told.replace(b" ", b"").count(b'"Action":"oom"') == 1
    daemon.docker("start", "box")
    wait_until(lambda: daemon.inspect("box")["State"]["OOMKilled"], what="another child's end")


def _sample(daemon: PrivateDaemon, *, one_shot: bool = False) -> dict[str, Any]:
    path = f"/containers/box/stats?stream=false&one-shot={int(one_shot)}"
    status, sample = daemon.request("GET", path)
    assert status == 200
    return dict(sample)


def test_stats_are_what_the_kernel_counts(daemon: PrivateDaemon, runtime: str) -> None:
    script = "head -c 20m /dev/urandom > /x; cat /x > /dev/null; sleep 1000 & sleep 1000 & wait"
    limits = ("-m", "128m", "--pids-limit", "77")
    group = _run(daemon, runtime, *limits, "busybox", "sh", "-c", script)
    # Of processes: the threads of a runtime that is about to become the program count as well.
    wait_until(
        lambda: len(HIERARCHIES.processes(group.path)) == 3 and group.stats().pids.current == 3,
        what="the file to be written",
    )
    sample = _sample(daemon)
    assert sample["pids_stats"] == {"current": 3, "limit": 77}
    memory, now = sample["memory_stats"], group.stats().memory
    assert memory["limit"] == 128 * MB
    assert abs(memory["usage"] - now.usage) < 2 * MB
    cached = memory["stats"]["inactive_file" if IS_V2 else "total_inactive_file"]
    assert cached > 15 * MB
    shown = daemon.docker("stats", "--no-stream", "--format", "{{json .}}", "box").stdout
    line = json.loads(shown)
    number, unit = re.match(r"([\d.]+)(KiB|MiB)", line["MemUsage"]).groups()  # type: ignore[union-attr]
    used = float(number) * {"KiB": 1 << 10, "MiB": MB}[unit]
    assert abs(used - (memory["usage"] - cached)) < 2 * MB
    assert line["MemUsage"].endswith("/ 128MiB")
    assert line["PIDs"] == "3"
    assert [int(pid) for pid in _column(daemon, "PID")] == HIERARCHIES.processes(group.path)
    # A limit that the host cannot reach is none.
    daemon.docker("update", "-m", "100t", "--memory-swap", "100t", "box")
    host = daemon.request("GET", "/info")[1]["MemTotal"]
    assert _sample(daemon, one_shot=True)["memory_stats"]["limit"] == host


def _column(daemon: PrivateDaemon, name: str) -> list[str]:
    head, *rows = daemon.docker("top", "box", "-o", "pid,comm").stdout.decode().splitlines()
    return sorted((row.split()[head.split().index(name)] for row in rows), key=int)


def test_cpu_time_in_stats(daemon: PrivateDaemon, runtime: str) -> None:
    group = _run(daemon, runtime, "--cpus", "0.5", "busybox", "sh", "-c", "while :; do :; done")
    sample = _sample(daemon)
    before, after = sample["precpu_stats"], sample["cpu_stats"]
    used = after["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    host = after["system_cpu_usage"] - before["system_cpu_usage"]
    assert 1 < used / host * after["online_cpus"] * 100 < 75
    assert after["cpu_usage"]["total_usage"] <= group.stats().cpu.total_ns
    wait_until(
        lambda: (
            _sample(daemon, one_shot=True)["cpu_stats"]["throttling_data"]["throttled_periods"] > 0
        ),
        what="the quota to be used up",
    )


def test_disk_traffic_in_stats(daemon: PrivateDaemon, runtime: str) -> None:
    script = "dd if=/dev/zero of=/data bs=1M count=8 oflag=direct; sleep 1000"
    group = _run(daemon, runtime, "busybox", "sh", "-c", script)

    def written() -> int:
        entries = _sample(daemon, one_shot=True)["blkio_stats"]["io_service_bytes_recursive"] or []
        return sum(entry["value"] for entry in entries if entry["op"] == "write")

    wait_until(lambda: written() >= 8 * MB, what="the writes to be counted")
    assert written() == sum(
        entry.value for entry in group.stats().blkio.service_bytes if entry.operation == "write"
    )


def test_info_tells_the_truth(daemon: PrivateDaemon) -> None:
    info = daemon.request("GET", "/info")[1]
    features = HIERARCHIES.features(f"/estiba-test-{daemon.bridge}")
    assert info["CgroupVersion"] == ("2" if IS_V2 else "1")
    assert info["CgroupDriver"] == "cgroupfs"
    assert info["MemoryLimit"] == (Feature.MEMORY in features)
    assert info["PidsLimit"] == (Feature.PIDS in features)
    assert info["SwapLimit"] == (Feature.SWAP in features)
    warned = any("blkio weight" in text for text in info["Warnings"])
    assert warned == (Feature.BLKIO_WEIGHT not in features)
    assert len(info["Warnings"]) == int(warned)


# -- version 2 -----------------------------------------------------------------------------


@only_on_v2
def test_a_host_with_few_controllers(make_daemon: Callable[..., PrivateDaemon]) -> None:
    """In a part of the tree that gets CPU and pids only, seen as if it were all of it."""
    top = HIERARCHIES.mounts[""]
    outer = top / f"estiba-few-{os.getpid()}"
    (outer / "inner/init").mkdir(parents=True)
    for directory, controllers in ((top, "+cpu +pids +memory"), (outer, "+cpu +pids")):
        (directory / "cgroup.subtree_control").write_text(controllers)
    few = make_daemon()
    enter = f"echo $$ > {outer}/inner/init/cgroup.procs"
    view = "umount /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    # The namespace's root is the group that its maker was in.
    few.prefix = ["sh", "-c", f'echo $$ > {outer}/inner/cgroup.procs; exec "$@"', "sh",
                  "unshare", "--mount", "--cgroup", "sh", "-c",
                  f'{enter}; {view}; exec "$@"', "sh"]  # fmt: skip
    try:
        few.start()
        few.import_busybox()
        info = few.request("GET", "/info")[1]
        assert (info["MemoryLimit"], info["CPUSet"], info["PidsLimit"]) == (False, False, True)
        assert "WARNING: No memory limit support" in info["Warnings"]
        limits = ("-m", "64m", "--cpuset-cpus", "0", "--cpus", "0.5", "--pids-limit", "9")
        done = few.docker("run", "-d", "--name", "box", *limits, "busybox", "sleep", "1000")
        assert b"memory limit capabilities" in done.stderr
        assert b"CPU set discarded" in done.stderr
        assert few.inspect("box")["HostConfig"]["Memory"] == 0
        group = next((outer / "inner").glob("estiba-test-*/*/"))
        assert (group / "cpu.max").read_text() == "50000 100000\n"
        assert (group / "pids.max").read_text() == "9\n"
        sample = few.request("GET", "/containers/box/stats?stream=false")[1]
        assert sample["memory_stats"]["usage"] == 0
        assert sample["pids_stats"] == {"current": 1, "limit": 9}
        few.docker("pause", "box")
        few.docker("rm", "-f", "box")
    finally:
        few.close()
        subprocess.run(
            ["find", str(outer), "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"], check=True
        )


@only_on_v2
@pytest.mark.skipif(not UNITS.exists(), reason="systemd does not run here")
def test_systemd_takes_nothing_away(daemon: PrivateDaemon, runtime: str) -> None:
    """It decides anew which controllers the root hands down whenever it reads its units."""
    systemctl("daemon-reload")
    group = _run(daemon, runtime, "-m", "64m", "--cpus", "0.5", "busybox", "sleep", "1000")
    for verb in ("daemon-reload", "daemon-reexec", "daemon-reload"):
        systemctl(verb)
        assert group.cpu() == ("50000", "100000")
        assert group.memory() == (64 * MB, 128 * MB)
    daemon.docker("update", "--cpuset-cpus", "0", "--cpus", "0.25", "box")
    assert group.cpu() == ("25000", "100000")
    assert group.read("", "cpuset.cpus") == "0"


@only_on_v2
@pytest.mark.skipif(not UNITS.exists(), reason="systemd does not run here")
def test_containers_outlive_the_unit(make_daemon: Callable[..., PrivateDaemon]) -> None:
    """With the unit of docs/daemon.md; the monitors are in its group, the containers are not."""
    served = make_daemon()
    unit = UNITS / f"estiba-{served.tag}.service"
    text = re.search(r"```ini\n(.*?)```", (TOP / "docs/daemon.md").read_text(), re.DOTALL)
    assert text is not None
    command = f"ExecStart={shlex.join(served.command())}"
    unit.write_text(re.sub("ExecStart=.*", command, text[1]))
    try:
        systemctl("daemon-reload")
        systemctl("start", unit.name)
        served.wait_ready()
        served.import_busybox()
        served.docker("run", "-d", "--name", "box", "-m", "64m", "busybox", "sleep", "1000")
        before = served.inspect("box")["State"]["Pid"]
        for verb in ("restart", "kill --signal=KILL --kill-who=main"):
            systemctl(*verb.split(), unit.name)
            systemctl("start", unit.name)
            served.wait_ready()
            assert served.inspect("box")["State"]["Pid"] == before
            assert served.docker("exec", "box", "echo", "here").stdout == b"here\n"
        group = Group(served, "box")
        systemctl("stop", unit.name)
        assert group.memory() == (64 * MB, 128 * MB)
    finally:
        systemctl("stop", unit.name)
        unit.unlink()
        systemctl("daemon-reload")


def systemctl(*words: str) -> None:
    subprocess.run(["systemctl", *words], check=True)
