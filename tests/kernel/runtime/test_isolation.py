"""The isolation of a default container, read back from the live process."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
from tests.kernel.runtime.runtime_bpf import (
    AUDIT_ARCH_I386,
    AUDIT_ARCH_X86_64,
    X32_BIT,
    decide,
    outcome,
)
from tests.kernel.runtime.runtime_lab import CGROUP_PARENT, HIERARCHIES, HOST
from tests.support.daemon import wait_until

from estiba.kernel import capabilities
from estiba.kernel.blocking import run_blocking
from estiba.kernel.seccomp import compile_filter, read_filters
from estiba.model.container import DeviceMapping, Resources, Ulimit
from estiba.runtime.devices import device_number
from estiba.runtime.monitor import Monitored
from estiba.runtime.mounts import bind, tmpfs
from estiba.runtime.namespaces import Namespaces, namespace_of
from estiba.runtime.resources import build_resources
from estiba.runtime.users import User
from estiba.security.profiles.capabilities import DEFAULT
from estiba.security.profiles.seccomp import default_profile, load_profile

pytestmark = pytest.mark.kernel

REFERENCE = Path(__file__).parents[2] / "unit/security/testfiles/docker-default.json"
CALLS = {
        "read": 0, "socket": 41, "clone": 56, "execve": 59, "ptrace": 101, "mount": 165,
        "personality": 135, "unshare": 272, "clone3": 435, "io_uring_setup": 425, "bpf": 321,
        "keyctl": 250, "userfaultfd": 323, "open_by_handle_at": 304, "reboot": 169, "chroot": 161,
        "init_module": 175, "kexec_load": 246, "setns": 308, "perf_event_open": 298,
        "pivot_root": 155,
        "add_key": 248, "umount2": 166, "swapon": 167, "iopl": 172, "acct": 163, "syslog": 103,
}  # fmt: skip


async def running(lab, **kw) -> tuple[object, Monitored]:
    container = lab.container("sleep", "1000", **kw)
    monitored = await container.create()
    await container.start()
    return container, monitored


async def live_filter(monitored: Monitored) -> bytes:
    filters = await run_blocking(read_filters, monitored.container.pid)
    assert len(filters) == 1
    return filters[0]


async def test_the_live_filter_decides_as_the_profile_says(lab) -> None:
    _, monitored = await running(lab)
    program = await live_filter(monitored)

    def result(name: str, *args: int, **kw: int) -> str:
        return outcome(decide(program, CALLS[name], *args, **kw))

    families = {family: result("socket", family) for family in range(64)}
    assert {family for family, what in families.items() if what != "allow"} == {
        socket.AF_ALG,
        socket.AF_VSOCK,
    }
    assert families[socket.AF_ALG] == families[socket.AF_VSOCK] == "errno 1"
    assert result("clone", 0x01200011) == "allow"
    for bit in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert result("clone", bit | 17) == "errno 1", hex(bit)
    assert result("clone3") == "errno 38"
    assert result("personality", 0xFFFFFFFF) == "allow"
    assert result("personality", 0x0040000) == "errno 1"  # ADDR_NO_RANDOMIZE
    for name in ("read", "execve", "ptrace", "chroot"):
        assert result(name) == "allow", name
    for name in (
        "mount umount2 unshare setns bpf keyctl add_key userfaultfd io_uring_setup reboot "
        "open_by_handle_at init_module kexec_load perf_event_open pivot_root swapon iopl acct "
        "syslog"
    ).split():
        assert result(name) == "errno 1", name
    # The same by the doors of 32-bit and x32 programs: i386 socket is 359, mount 21.
    assert outcome(decide(program, 359, socket.AF_ALG, arch=AUDIT_ARCH_I386)) == "errno 1"
    assert outcome(decide(program, 359, socket.AF_INET, arch=AUDIT_ARCH_I386)) == "allow"
    assert outcome(decide(program, 21, arch=AUDIT_ARCH_I386)) == "errno 1"
    assert outcome(decide(program, X32_BIT | 165)) == "errno 1"


async def test_every_call_is_decided_as_the_reference_profile_decides_it(lab) -> None:
    _, monitored = await running(lab)
    live = await live_filter(monitored)
    reference = load_profile(REFERENCE.read_text(), HOST.machine, DEFAULT)
    expected = compile_filter(reference)
    assert expected is not None
    for arch in (AUDIT_ARCH_X86_64, AUDIT_ARCH_I386):
        for number in (*range(600), *range(X32_BIT, X32_BIT + 600)):
            for argument in (0, 1, 16, 38, 39, 40, 41, 0x20008, 0x10000000, 0xFFFFFFFF):
                arguments = (argument, argument)
                ours = decide(live, number, *arguments, arch=arch)
                theirs = decide(expected, number, *arguments, arch=arch)
                is_recent = lab.runtime.name == "runc" and number > 440
                assert ours == theirs or (is_recent and outcome(ours) == "errno 38"), number


async def test_the_ready_made_filter_is_what_the_runtime_would_compile(lab) -> None:
    if lab.runtime.name == "runc":
        pytest.skip("runc does not know the annotation")

    def without(spec: dict) -> None:  # type: ignore[type-arg]
        del spec["annotations"]

    _, ready_made = await running(lab)
    _, compiled = await running(lab, change=without)
    ours, theirs = await live_filter(ready_made), await live_filter(compiled)
    assert ours == compile_filter(default_profile(HOST.machine, DEFAULT))
    assert ours.endswith(theirs)


async def test_calls_newer_than_libseccomp(lab) -> None:
    """Allowed by crun through the ready-made filter; runc has them fall back."""
    _, monitored = await running(lab)
    program = await live_filter(monitored)
    allowed = "allow" if lab.runtime.name == "crun" else "errno 38"
    for arch in (AUDIT_ARCH_X86_64, AUDIT_ARCH_I386):
        for number in (452, 457, 462, 466):  # fchmodat2, statmount, mseal, removexattrat
            assert outcome(decide(program, number, arch=arch)) in (allowed, "allow"), number
        for number in (467, 470, 600):
            assert outcome(decide(program, number, arch=arch)) == "errno 38", number
        assert outcome(decide(program, 425, arch=arch)) == "errno 1"  # io_uring_setup


async def test_unconfined_has_no_filter(lab) -> None:
    _, monitored = await running(lab, host={"security_opt": ["seccomp=unconfined"]})
    assert await run_blocking(read_filters, monitored.container.pid) == []


async def test_capabilities_are_dockers_fourteen(lab) -> None:
    _, monitored = await running(lab)
    pid = monitored.container.pid
    for kind in ("CapBnd", "CapEff", "CapPrm"):
        assert capabilities.read_set(kind, pid) == set(DEFAULT)
    for kind in ("CapInh", "CapAmb"):
        assert capabilities.read_set(kind, pid) == set()


async def test_another_user_has_none_but_could_get_them(lab) -> None:
    _, monitored = await running(lab, user=User(8, 12, (77, 78)))
    pid = monitored.container.pid
    assert capabilities.read_set("CapEff", pid) == set()
    assert capabilities.read_set("CapBnd", pid) == set(DEFAULT)
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Uid:\t8\t8\t8\t8" in status
    assert "Groups:\t77 78" in status


async def test_privileged_works_with_what_the_engine_has(lab) -> None:
    script = "mount -t tmpfs x /tmp && echo mounted; touch /proc/sys/kernel/hostname && ls /dev"
    container = lab.container("sh", "-c", script, host={"privileged": True})
    assert (await container.run()).code == 0
    log = container.log().split()
    assert log[0] == "mounted"
    assert set(log) > {"null", "tty", "urandom"}


async def test_no_new_privileges(lab) -> None:
    _, monitored = await running(lab, host={"security_opt": ["no-new-privileges"]})
    assert "NoNewPrivs:\t1" in Path(f"/proc/{monitored.container.pid}/status").read_text()


async def test_namespaces_are_its_own_or_shared(lab) -> None:
    _, monitored = await running(lab)
    pid = monitored.container.pid
    for kind in ("mnt", "pid", "ipc", "uts", "net", "cgroup"):
        own = namespace_of(pid, kind).readlink()
        assert own != Path(f"/proc/self/ns/{kind}").readlink(), kind
    joined = Namespaces(
        network=namespace_of(pid, "net"),
        pid=namespace_of(pid, "pid"),
        ipc=namespace_of(pid, "ipc"),
        uts=None,
        cgroup=None,
    )
    _, second = await running(lab, namespaces=joined, host={"network_mode": "container:x"})
    for kind in ("net", "pid", "ipc"):
        own = namespace_of(second.container.pid, kind).readlink()
        assert own == namespace_of(pid, kind).readlink(), kind
    for kind in ("uts", "cgroup"):
        own = namespace_of(second.container.pid, kind).readlink()
        assert own == Path(f"/proc/self/ns/{kind}").readlink(), kind


async def test_host_network_and_pid(lab) -> None:
    namespaces = Namespaces(network=None, pid=None)
    _, monitored = await running(lab, namespaces=namespaces, host={"network_mode": "host"})
    for kind in ("net", "pid"):
        own = namespace_of(monitored.container.pid, kind).readlink()
        assert own == Path(f"/proc/self/ns/{kind}").readlink()


async def test_what_is_masked_and_read_only(lab) -> None:
    script = """
        exec 2>&1; wc -c < /proc/interrupts; wc -c < /proc/timer_list; ls /sys/firmware | wc -l
        (echo 1 > /proc/sys/kernel/pid_max); mkdir /sys/fs/cgroup/x /sys/fs/cgroup/memory/x
        grep -c /sys/fs/cgroup /proc/self/mountinfo; cat /proc/self/cgroup
    """
    container = lab.container("sh", "-c", script)
    await container.run()
    lines = container.log().splitlines()
    assert lines[:3] == ["0", "0", "0"]
    assert sum("Read-only file system" in line for line in lines) >= 2
    groups = [line.rpartition(":")[2] for line in lines if line[:1].isdigit() and ":" in line]
    assert groups
    assert set(groups) == {"/"}  # a cgroup namespace of its own


async def test_devices_are_the_usual_ones(lab) -> None:
    script = "ls /dev | tr '\\n' ' '; mknod /tmp/mem c 1 1 && cat /tmp/mem"
    container = lab.container("sh", "-c", script)
    assert (await container.run()).code != 0
    text = container.log()
    assert "Operation not permitted" in text
    names = set(text.splitlines()[0].split()) | set(text.split())
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm"} <= names
    assert "kmsg" not in names


async def test_a_device_that_is_given(lab) -> None:
    mapping = {"path_on_host": "/dev/kmsg", "path_in_container": "/dev/log-of-kernel"}
    host = {"devices": [DeviceMapping(**mapping, cgroup_permissions="r")]}
    script = "ls -l /dev/log-of-kernel; echo x > /dev/log-of-kernel"
    container = lab.container("sh", "-c", script, host=host)
    await container.run()
    assert "1,  11" in container.log()
    assert "Operation not permitted" in container.log()


async def test_limits_mounts_sysctls_and_names(lab, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("from the host\n")
    script = """
        exec 2>&1; cat /data/file; touch /data/new /bin/new; ulimit -n; hostname
        cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ip_default_ttl
        df -k /dev/shm | tail -1 | awk '{print $2}'; cat /proc/self/oom_score_adj
        grep ' /scratch ' /proc/mounts
    """
    host = {
        "readonly_rootfs": True,
        "shm_size": 8 << 20,
        "oom_score_adj": 321,
        "ulimits": [Ulimit(name="nofile", soft=77, hard=88)],
        "sysctls": {"net.ipv4.ip_default_ttl": "77"},
    }
    mounts = (bind(tmp_path / "data", "/data", rw=False), tmpfs("/scratch", "size=1m,mode=700"))
    (lab.root / "data").mkdir()
    (lab.root / "scratch").mkdir()
    container = lab.container("sh", "-c", script, host=host, mounts=mounts)
    await container.run()
    lines = container.log().splitlines()
    assert lines[0] == "from the host"
    assert sum("Read-only file system" in line for line in lines) == 2
    rest = [line for line in lines[1:] if "Read-only" not in line]
    assert rest[:6] == ["77", "lab", "0", "77", "8192", "321"]
    assert "size=1024k,mode=700" in rest[6]
    assert "noexec" in rest[6]


async def test_resources_arrive_in_the_cgroup_and_can_be_updated(lab) -> None:
    host = {
        "memory": 64 << 20,
        "memory_swap": 64 << 20,
        "memory_reservation": 32 << 20,
        "nano_cpus": 500_000_000,
        "cpu_shares": 512,
        "cpuset_cpus": "0",
        "pids_limit": 33,
    }
    container, _ = await running(lab, host=host)
    group = f"{CGROUP_PARENT}/{container.id}"
    stats = HIERARCHIES.stats(group)
    assert stats.memory.limit == 64 << 20
    assert stats.pids.limit == 33
    assert stats.cpu.total_ns > 0
    # What started the program had threads, which the kernel counts until they are cleared away.
    wait_until(lambda: HIERARCHIES.stats(group).pids.current == 1, what="the program to be alone")
    assert HIERARCHIES.processes(group) == [container.monitored.container.pid]
    wanted = Resources(memory=96 << 20, memory_swap=96 << 20, pids_limit=44, nano_cpus=250_000_000)
    await lab.runtime.update(container.id, build_resources(wanted, device_number=device_number))
    stats = HIERARCHIES.stats(group)
    assert (stats.memory.limit, stats.pids.limit) == (96 << 20, 44)
    files = {"cpu.cfs_quota_us": "25000\n", "cpu.max": "25000 100000\n"}
    found = [
        (directory / name).read_text() == text
        for directory in HIERARCHIES.directories(group)
        for name, text in files.items()
        if (directory / name).exists()
    ]
    assert found == [True]


async def test_pause_and_resume(lab) -> None:
    container, _ = await running(lab)
    await lab.runtime.pause(container.id)
    assert await lab.runtime.state(container.id) == "paused"
    await lab.runtime.resume(container.id)
    assert await lab.runtime.state(container.id) == "running"


async def test_init_is_the_first_process(lab) -> None:
    tini = shutil.which("tini-static") or shutil.which("tini")
    assert tini
    container = lab.container("sh", "-c", "cat /proc/1/comm; exit 5", init=Path(tini))
    assert (await container.run()).code == 5
    assert container.log() == "docker-init\n"
