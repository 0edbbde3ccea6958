"""One RUN: its program, streams, end, limits, network and isolation."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest
from tests.kernel.build.running.running_lab import STDERR, Lab, Told, layer
from tests.support.daemon import PrivateDaemon

from estiba.build.ports import RunLimits
from estiba.kernel.cgroup import Mode
from estiba.model.container import Ulimit
from estiba.model.errors import (
    CommandNotExecutable,
    CommandNotFound,
    Conflict,
    InvalidArgument,
    NotFound,
)
from estiba.network.networks import Networks
from estiba.network.record import NetworkSpec

pytestmark = pytest.mark.kernel
both = pytest.mark.parametrize("lab", ["crun", "runc"], indirect=True)
MB = 1 << 20


@both
@pytest.mark.parametrize("code", [0, 1, 3, 126, 127, 255])
async def test_the_exit_code_is_the_programs(lab: Lab, code: int) -> None:
    with lab.tree() as tree:
        end, told = await lab.run(tree, "/bin/sh", "-c", f"echo out; echo err >&2; exit {code}")
    assert (end.code, end.oom_killed) == (code, False)
    assert (told.text(), told.text(STDERR)) == ("out\n", "err\n")


async def test_a_signal_is_128_and_its_number(lab: Lab) -> None:
    with lab.tree() as tree:
        # The first process is immune to its own signals; a child is not.
        for number in (9, 15, 11):
            end, _ = await lab.run(tree, "/bin/sh", "-c", f"sh -c 'kill -{number} $$'; exit $?")
            assert end.code == 128 + number


@both
async def test_what_cannot_be_executed(lab: Lab) -> None:
    with lab.tree() as tree:
        for argv in (("missing",), ("/missing",)):
            with pytest.raises(CommandNotFound, match="missing"):
                await lab.run(tree, *argv)
        for argv in (("/etc/passwd",), ("/etc",)):
            with pytest.raises(CommandNotExecutable):
                await lab.run(tree, *argv)
        with pytest.raises(InvalidArgument, match="has no command"):
            await lab.run(tree)
        with pytest.raises(InvalidArgument, match="unable to find user nobody-knows"):
            await lab.run(tree, "/bin/true", user="nobody-knows")
        assert tree.changes() == ["etc"]


@both
async def test_what_the_kernel_cannot_execute(lab: Lab, tmp_path: Path) -> None:
    """The runtime says so on the program's own standard error, where nobody should look."""
    tops = layer(tmp_path / "layer", lost="#!/no/such/sh\n", text="no program\n")
    for name in ("lost", "text"):
        (tops / name).chmod(0o755)
    told = Told()
    with lab.tree(tops) as tree:
        with pytest.raises(CommandNotFound, match=r'exec: "/lost": no such file.*interpreter'):
            await lab.executor.run(lab.request(tree, "/lost"), told)
        with pytest.raises(CommandNotExecutable, match='exec: "/text": exec format error'):
            await lab.executor.run(lab.request(tree, "/text"), told)
        assert told.chunks == []
        # A program that says the same is believed to have said it.
        end, told = await lab.run(tree, "/bin/sh", "-c", "echo exec x: odd >&2; exit 1")
    assert (end.code, told.text(STDERR)) == (1, "exec x: odd\n")


async def test_a_here_document_is_the_programs_input(lab: Lab) -> None:
    text = b"echo first\n" + b"# much\n" * 200_000 + b"cat <<E\nlast\nE\n"
    with lab.tree() as tree:
        end, told = await lab.run(tree, "/bin/sh", stdin=text)
        assert (end.code, told.text()) == (0, "first\nlast\n")
        # A program that reads nothing is no error, and without input there is an end of file.
        assert (await lab.run(tree, "/bin/true", stdin=text))[0].code == 0
        assert (await lab.run(tree, "/bin/cat"))[1].text() == ""


async def test_much_output_arrives_whole_and_in_order(lab: Lab) -> None:
    with lab.tree() as tree:
        _, told = await lab.run(tree, "/bin/sh", "-c", "seq 400000; seq 9 >&2")
    assert told.text() == "".join(f"{number}\n" for number in range(1, 400_001))
    assert told.text(STDERR) == "".join(f"{number}\n" for number in range(1, 10))


async def test_it_ends_with_its_first_process(lab: Lab) -> None:
    """Whatever that left behind, holding the streams open, is killed."""
    script = "trap '' TERM HUP; (sleep 1000; echo late) & (exec setsid sleep 1000) & echo begun"
    with lab.tree() as tree:
        end, told = await lab.run(tree, "/bin/sh", "-c", script)
    assert (end.code, told.text()) == (0, "begun\n")


async def test_environment_directory_and_user(lab: Lab) -> None:
    script = "id -u; id -g; id -G; pwd; echo $HOME; echo $A; hostname; echo $HOSTNAME"
    with lab.tree() as tree:
        _, told = await lab.run(
            tree,
            *("/bin/sh", "-ec", script),
            user="user",
            cwd="/made/by/workdir",
            env=("PATH=/bin", "A=b c"),
            hostname="sandbox",
        )
        # What the step's own directory is made of stays, as WORKDIR makes it.
        made = [path for path in tree.changes() if path.startswith("made")]
    said = told.text().splitlines()
    assert said == [
        "1000",
        "1000",
        "1000 2000",
        "/made/by/workdir",
        "/home",
        "b c",
        *["sandbox"] * 2,
    ]
    assert made == ["made", "made/by", "made/by/workdir"]


async def test_what_the_kernel_would_refuse_is_refused_before(lab: Lab) -> None:
    with lab.tree() as tree:
        for wrong in ({"env": ("A=" + "x" * 200_000,)}, {"env": ("A=\0",)}):
            with pytest.raises(InvalidArgument):
                await lab.run(tree, "/bin/true", **wrong)
        with pytest.raises(InvalidArgument, match="cgroup parent"):
            await lab.run(tree, "/bin/true", limits=RunLimits(cgroup_parent="/../../x"))
        assert tree.changes() == []
        with pytest.raises(InvalidArgument, match="descriptors"):
            await lab.run(tree, "/bin/true", cwd="/proc/self/fd/7")


# -- network -----------------------------------------------------------------------------------


async def test_networks(lab: Lab, networks: Networks) -> None:
    named = networks.create(NetworkSpec(name="of-the-build"))
    script = "ls /sys/class/net; ip route; cat /etc/hosts /etc/hostname"
    try:
        bridge = await lab.sh(script, network="bridge")
        other = await lab.sh(script, network="of-the-build")
    finally:
        networks.remove(named.id)
    for said in (bridge, other):
        gateway = re.search(r"default via (\S+)", said)
        assert gateway
        assert "eth0" in said
        assert re.search(rf"^{gateway[1].rpartition('.')[0]}\.\d+\tbuild$", said, re.M)
    assert (
        await lab.sh("ls /sys/class/net; ip route; ping -c 1 -W 1 localhost >/dev/null") == "lo\n"
    )
    # Links of other tests come and go meanwhile.
    before = set(os.listdir("/sys/class/net"))
    said = await lab.sh("readlink /proc/self/ns/net; hostname; ls /sys/class/net", network="host")
    own, name, *links = said.split()
    assert (own, name) == (os.readlink("/proc/self/ns/net"), "build")
    assert before & set(os.listdir("/sys/class/net")) <= set(links)
    with lab.tree() as tree, pytest.raises(NotFound, match="nowhere"):
        await lab.run(tree, "/bin/true", network="nowhere")


async def test_the_way_out_is_reached(lab: Lab) -> None:
    await lab.sh("ping -c 1 -W 2 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')",
                 network="bridge")  # fmt: skip


async def test_names_of_hosts(lab: Lab) -> None:
    said = await lab.sh(
        "cat /etc/hosts /etc/resolv.conf; ip route",
        network="bridge",
        extra_hosts=("a.example:192.0.2.7", "up:host-gateway"),
    )
    gateway = re.search(r"default via (\S+)", said)
    assert gateway
    assert f"192.0.2.7\ta.example\n{gateway[1]}\tup\n" in said
    assert "nameserver " in said
    host = await lab.sh("cat /etc/hosts", network="host", extra_hosts=("up:host-gateway",))
    assert host.startswith(Path("/etc/hosts").read_text())
    assert "127.0.0.1\tup\n" in host
    with lab.tree() as tree:
        for wrong in ("up:host-gateway", "nonsense"):
            with pytest.raises(InvalidArgument):
                await lab.run(tree, "/bin/true", extra_hosts=(wrong,))


# -- limits ------------------------------------------------------------------------------------


@both
async def test_limits_hold(lab: Lab) -> None:
    limits = RunLimits(
        memory_bytes=64 * MB,
        cpu_shares=512,
        cpu_period_us=50_000,
        cpu_quota_us=25_000,
        cpuset_cpus="0",
        shm_bytes=8 * MB,
        ulimits=(Ulimit(name="nofile", soft=77, hard=88),),
    )
    v1 = (
        "memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us "
        "cpuset/cpuset.cpus"
    )
    is_v2 = lab.engine.hierarchies.mode == Mode.V2
    files = "memory.max cpu.weight cpu.max cpuset.cpus" if is_v2 else v1
    said = await lab.sh(
        f"cd /sys/fs/cgroup; cat {files}; ulimit -n; ulimit -Hn; df -m /dev/shm | tail -1",
        limits=limits,
    )
    words = said.split()
    weight = str(1 + (512 - 2) * 9999 // 262142)
    expected = [weight, "25000", "50000", "0"] if is_v2 else ["512", "25000", "50000", "0"]
    assert words[:7] == [str(64 * MB), *expected, "77", "88"]
    assert words[8] == "8"


@pytest.mark.parametrize("limits", [RunLimits(cpuset_cpus="4000"), RunLimits(cpuset_mems="0-9")])
async def test_processors_and_memory_that_the_host_lacks(lab: Lab, limits: RunLimits) -> None:
    with lab.tree() as tree, pytest.raises(InvalidArgument, match=r"are not available - requested"):
        await lab.run(tree, "/bin/true", limits=limits)


async def test_a_cgroup_parent_of_its_own(lab: Lab) -> None:
    parent = f"{lab.engine.defaults.cgroup_parent}/deep"
    told = Told()
    with lab.tree() as tree:
        limits = RunLimits(cgroup_parent=parent)
        request = lab.request(tree, "/bin/sh", "-c", "echo up; sleep 100", limits=limits)
        running = asyncio.create_task(lab.executor.run(request, told))
        await told.first()
        assert lab.engine.hierarchies.processes(f"{parent}/build-{request.id}")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    lab.engine.hierarchies.remove(parent)


@both
async def test_lack_of_memory_is_told(lab: Lab) -> None:
    limits = RunLimits(memory_bytes=16 * MB, memory_swap_bytes=16 * MB)
    hog = "head -c 64m /dev/zero | tail -n 1 | wc -c"
    with lab.tree() as tree:
        first, _ = await lab.run(tree, "/bin/sh", "-c", "exec tail -n 1 /dev/zero", limits=limits)
        child, _ = await lab.run(tree, "/bin/sh", "-c", f"set -o pipefail; {hog}", limits=limits)
        well, _ = await lab.run(tree, "/bin/sh", "-c", "exit 137", limits=limits)
    assert (first.code, first.oom_killed) == (137, True)
    assert (child.code, child.oom_killed) == (137, True)
    assert well.code == 137
    assert not well.oom_killed


# -- isolation ---------------------------------------------------------------------------------

FACTS = r"""
grep -E '^(Cap|Seccomp|NoNewPrivs|Groups|Uid|Gid)' /proc/self/status
cat /proc/self/limits /proc/self/oom_score_adj
sed 's/[^ ]* [^ ]* [^ ]* //; s#estiba[^ ]*#X#g; s#\(lowerdir\|upperdir\|workdir\)=[^ ,]*##g' \
    /proc/self/mountinfo | sed 's/^[^ ]* //' | grep -v -E '^/etc/|^/ ' | sort
ls -l /dev | sed 's/.*root *root *//; s/[A-Z][a-z][a-z] .*:[0-9]*//'
cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range
for f in /proc/keys /proc/timer_list /proc/interrupts; do head -c 10 $f | wc -c; done
ls /proc/acpi /sys/firmware | wc -l
cat /proc/1/cgroup | sed 's#/estiba.*#X#'
"""
ATTEMPTS = r"""
head -c 10 /proc/kcore | wc -c
for p in /proc/sys/kernel/domainname /proc/sysrq-trigger /sys/kernel/x; do
    (echo x > $p) 2>&1 | sed 's/.*: //'; done
mount -t tmpfs x /mnt 2>&1; unshare -m true 2>&1; mknod /tmp/sda b 8 0 2>&1; cat /tmp/sda 2>&1
rm -f /tmp/sda
"""


async def test_the_isolation_is_that_of_a_container(lab: Lab, daemon: PrivateDaemon) -> None:
    """The same program in both says the same of itself."""
    container = daemon.docker(
        "run", "--rm", "busybox", "sh", "-c", FACTS + ATTEMPTS
    ).stdout.decode()
    with lab.tree() as tree:
        _, told = await lab.run(tree, "/bin/sh", "-c", FACTS + ATTEMPTS, network="bridge")
    assert told.text().splitlines() == container.splitlines()
    assert "Seccomp:\t2" in container


async def test_namespaces_are_its_own(lab: Lab) -> None:
    said = await lab.sh(
        "for each in /proc/self/ns/*; do readlink $each; done; ls /proc | grep -c '^[0-9]'",
        network="bridge",
    )
    *own, processes = said.split()
    host = {os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    shared = {line.partition(":")[0] for line in own if line in host}
    assert shared == {"user", "time", "time_for_children"} & shared
    assert int(processes) < 6


async def test_insecure_is_privileged(lab: Lab, daemon: PrivateDaemon) -> None:
    words = ("run", "--rm", "--privileged", "busybox", "sh", "-c", FACTS)
    container = daemon.docker(*words).stdout.decode()
    said = await lab.sh(FACTS, network="bridge", insecure=True)
    assert said.splitlines() == container.splitlines()
    assert "Seccomp:\t0" in said
    # And it may mount.
    script = "mkdir /m; mount -t tmpfs x /m; umount /m; rmdir /m"
    assert await lab.sh(script, insecure=True) == ""


async def test_an_id_runs_once_at_a_time(lab: Lab) -> None:
    with lab.tree() as tree:
        request = lab.request(tree, "/bin/sh", "-c", "echo up; sleep 100")
        told = Told()
        first = asyncio.create_task(lab.executor.run(request, told))
        await told.first()
        with pytest.raises(Conflict, match="runs already"):
            await lab.executor.run(request, Told())
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
