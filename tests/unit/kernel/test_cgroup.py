"""Control groups of all three layouts, on recorded text and trees of plain files."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba.kernel.cgroup import Feature, Hierarchies, Mode
from estiba.kernel.cgroup_stats import BlkioEntry, CpuStats, PidsStats, oom_kills

V1_LINES = """\
23 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 23 0:28 / {root} rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / {root}/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / {root}/memory rw,relatime - cgroup cgroup rw,memory
38 31 0:35 / {root}/blkio rw,relatime - cgroup cgroup rw,blkio
39 31 0:36 / {root}/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / {root}/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
UNIFIED_LINE = "41 31 0:38 / {root}/unified rw,relatime - cgroup2 cgroup2 rw\n"
V2_LINES = """\
23 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 23 0:28 / {root} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
"""
GROUP = "/estiba/c1"

V1_FILES = {
    "cpu,cpuacct/cpuacct.usage": "2500000000\n",
    "cpu,cpuacct/cpuacct.stat": "user 150\nsystem 100\n",
    "cpu,cpuacct/cpuacct.usage_percpu": "1500000000 1000000000 \n",
    "cpu,cpuacct/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 123456\n",
    "memory/memory.usage_in_bytes": "10485760\n",
    "memory/memory.max_usage_in_bytes": "20971520\n",
    "memory/memory.limit_in_bytes": "9223372036854771712\n",
    "memory/memory.failcnt": "3\n",
    "memory/memory.stat": "cache 4096\nrss 8192\ntotal_inactive_file 2048\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "pids/pids.current": "5\n",
    "pids/pids.max": "max\n",
    "pids/cgroup.procs": "12\n7\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": (
        "254:0 Read 4096\n254:0 Write 8192\n254:0 Total 12288\nTotal 12288\n"
    ),
    "blkio/blkio.throttle.io_serviced_recursive": "254:0 Read 1\nTotal 1\n",
}
V2_FILES = {
    "cpu.stat": (
        "usage_usec 2500000\nuser_usec 1500000\nsystem_usec 1000000\nnr_periods 10\n"
        "nr_throttled 4\nthrottled_usec 123\nnr_bursts 0\nburst_usec 0\n"
    ),
    "memory.current": "10485760\n",
    "memory.peak": "20971520\n",
    "memory.max": "33554432\n",
    "memory.stat": "anon 8192\nfile 4096\ninactive_file 2048\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n",
    "pids.current": "5\n",
    "pids.max": "100\n",
    "cgroup.procs": "12\n7\n",
    "io.stat": "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:0 \n",
}


def write(root: Path, files: dict[str, str], *, prefix: str = "") -> None:
    for name, text in files.items():
        controller, _, file = name.rpartition("/")
        path = root / controller / (prefix or GROUP.lstrip("/")) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def detected(mountinfo: str) -> Hierarchies:
    return Hierarchies.detect(mountinfo.encode().splitlines())


@pytest.fixture
def v1(tmp_path: Path) -> Hierarchies:
    write(tmp_path, V1_FILES)
    return detected(V1_LINES.format(root=tmp_path))


@pytest.fixture
def v2(tmp_path: Path) -> Hierarchies:
    write(tmp_path, V2_FILES)
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    return detected(V2_LINES.format(root=tmp_path))


def test_the_three_layouts_are_told_apart(tmp_path: Path) -> None:
    v1, unified, v2 = (text.format(root=tmp_path) for text in (V1_LINES, UNIFIED_LINE, V2_LINES))
    assert detected(v1).mode == Mode.V1
    assert detected(v1 + unified).mode == Mode.HYBRID
    assert detected(v2).mode == Mode.V2


def test_controllers_that_are_mounted_together_share_a_directory(v1: Hierarchies) -> None:
    assert v1.mounts["cpu"] == v1.mounts["cpuacct"]
    assert len(v1.directories(GROUP)) == 5


def test_v1_counts(v1: Hierarchies) -> None:
    stats = v1.stats(GROUP)
    assert stats.cpu == CpuStats(
        2_500_000_000, 1_500_000_000, 1_000_000_000, (1_500_000_000, 1_000_000_000), 10, 4, 123456
    )
    assert (stats.memory.usage, stats.memory.max_usage, stats.memory.limit) == (
        10485760,
        20971520,
        None,
    )
    assert stats.memory.failures == 3
    assert stats.memory.details["total_inactive_file"] == 2048
    assert stats.pids == PidsStats(5, None)
    assert stats.blkio.service_bytes[1] == BlkioEntry(254, 0, "write", 8192)
    assert stats.blkio.serviced == (BlkioEntry(254, 0, "read", 1),)
    assert v1.processes(GROUP) == [7, 12]


def test_v2_counts(v2: Hierarchies) -> None:
    stats = v2.stats(GROUP)
    assert stats.cpu == CpuStats(2_500_000_000, 1_500_000_000, 1_000_000_000, (), 10, 4, 123_000)
    assert (stats.memory.usage, stats.memory.max_usage, stats.memory.limit) == (
        10485760,
        20971520,
        33554432,
    )
    assert stats.memory.details["inactive_file"] == 2048
    assert stats.pids == PidsStats(5, 100)
    assert stats.blkio.service_bytes == (
        BlkioEntry(254, 0, "read", 4096),
        BlkioEntry(254, 0, "write", 8192),
    )
    assert v2.processes(GROUP) == [7, 12]
    events = v2.memory_events(GROUP)
    assert events is not None
    assert oom_kills(events) == 1


def test_v2_features_are_the_files_of_the_group(v2: Hierarchies, tmp_path: Path) -> None:
    found = v2.features(GROUP)
    assert {Feature.MEMORY, Feature.PIDS} <= found
    assert not found & {Feature.SWAP, Feature.CPUSET, Feature.BLKIO_WEIGHT, Feature.CPU_QUOTA}
    files = ("memory.swap.max", "cpu.weight", "cpu.max", "cpuset.cpus", "io.max", "io.bfq.weight")
    write(tmp_path, dict.fromkeys((*files, "memory.low"), "max\n"))
    lacking = {Feature.SWAPPINESS, Feature.OOM_KILL_DISABLE, Feature.CPU_REALTIME}
    assert v2.features(GROUP) == set(Feature) - lacking
    assert not v2.features("/estiba/gone")


def test_v1_features(v1: Hierarchies, tmp_path: Path) -> None:
    found = v1.features(GROUP)
    assert {Feature.MEMORY, Feature.PIDS, Feature.OOM_KILL_DISABLE} <= found
    assert not found & {Feature.SWAP, Feature.CPUSET, Feature.BLKIO_WEIGHT}
    files = ("memory/memory.memsw.limit_in_bytes", "blkio/blkio.weight")
    write(tmp_path, dict.fromkeys(files, "1\n"))
    assert v1.features(GROUP) - found == {Feature.SWAP, Feature.BLKIO_WEIGHT}


def test_a_parent_hands_its_controllers_down(v2: Hierarchies, tmp_path: Path) -> None:
    """On recorded files: what was written last stays, as no kernel adds it up."""
    (tmp_path / "cgroup.controllers").write_text("pids\n")
    write(tmp_path, {"cgroup.controllers": "pids memory\n"}, prefix="a/b")
    v2.ensure_parent("/a/b")
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+pids"
    assert (tmp_path / "a/b/cgroup.subtree_control").read_text() == "+memory"


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_a_parent_is_made_twice_in_every_hierarchy(
    layout: str, request: pytest.FixtureRequest
) -> None:
    hierarchies: Hierarchies = request.getfixturevalue(layout)
    for _ in range(2):
        hierarchies.ensure_parent("/new")
    assert all(directory.is_dir() for directory in hierarchies.directories("/new"))


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_a_group_that_is_gone_counts_zero(layout: str, request: pytest.FixtureRequest) -> None:
    hierarchies: Hierarchies = request.getfixturevalue(layout)
    assert hierarchies.stats("/estiba/gone").cpu == CpuStats()
    assert hierarchies.processes("/estiba/gone") == []
    hierarchies.remove("/estiba/gone")


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_groups_are_made_and_removed_twice(layout: str, request: pytest.FixtureRequest) -> None:
    hierarchies: Hierarchies = request.getfixturevalue(layout)
    for _ in range(2):
        hierarchies.ensure("/estiba/new")
        hierarchies.ensure("/estiba/new/below")
    assert all(directory.is_dir() for directory in hierarchies.directories("/estiba/new/below"))
    for _ in range(2):
        hierarchies.remove("/estiba/new")
    assert not any(directory.exists() for directory in hierarchies.directories("/estiba/new"))


def test_a_path_with_a_space_is_unescaped() -> None:
    line = "31 23 0:28 / /mnt/a\\040b rw - cgroup2 cgroup2 rw\n"
    assert detected(line).mounts[""] == Path("/mnt/a b")
