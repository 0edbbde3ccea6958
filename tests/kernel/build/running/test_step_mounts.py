"""The five kinds of mounts of a RUN, with all their options."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.kernel.build.running.running_lab import Lab, Told, layer

from estiba.build.ports import BindMount, CacheMount, RunMount, SecretMount, TmpfsMount
from estiba.kernel.mounts import MountFlag, mount, unmount
from estiba.model.errors import Conflict, InvalidArgument, NotFound

pytestmark = pytest.mark.kernel
both = pytest.mark.parametrize("lab", ["crun", "runc"], indirect=True)
HUSH = b"never on disk, never told"


async def refused(lab: Lab, *mounts: RunMount, because: str) -> None:
    with lab.tree() as tree, pytest.raises(InvalidArgument, match=because):
        await lab.run(tree, "/bin/true", mounts=mounts)


# -- bind --------------------------------------------------------------------------------------


@both
async def test_a_bind_is_read_only(lab: Lab, tmp_path: Path) -> None:
    source = layer(tmp_path / "src", sub__file="text\n", other="no\n")
    said = await lab.sh(
        "cat /in/file; ls /in; (echo x > /in/file) 2>/dev/null || echo ro; "
        "touch /in/new 2>/dev/null || echo ro; cat /one",
        mounts=(BindMount("/in", source, "/sub"), BindMount("/one", source, "other")),
    )
    assert said.split() == ["text", "file", "ro", "ro", "no"]


async def test_a_bind_takes_no_mount_below_its_source_along(lab: Lab, tmp_path: Path) -> None:
    source = layer(tmp_path / "src", sub__file="below\n")
    mount("tmpfs", source / "sub", "tmpfs", MountFlag(0))
    try:
        said = await lab.sh("cat /in/sub/file", mounts=(BindMount("/in", source),))
    finally:
        unmount(source / "sub")
    assert said == "below\n"


@both
async def test_changes_of_a_writable_bind_are_thrown_away(lab: Lab, tmp_path: Path) -> None:
    source = layer(tmp_path / "src", sub__file="text\n", one="1\n")
    (source / "sub").chmod(0o2751)
    os.chown(source / "sub", 12, 34)
    mounts = (
        BindMount("/in", source, "/sub", writable=True),
        BindMount("/one", source, "/one", writable=True),
    )
    said = await lab.sh(
        "stat -c '%a %u %g' /in; echo new > /in/file; rm -rf /in/sub; mkdir /in/d; cat /in/file; "
        "echo 2 >> /one; cat /one",
        mounts=mounts,
    )
    assert said.splitlines() == ["2751 12 34", "new", "1", "2"]
    assert (source / "sub/file").read_text() == "text\n"
    assert (source / "one").read_text() == "1\n"
    assert os.listdir(source / "sub") == ["file"]


async def test_a_source_stays_in_its_tree(lab: Lab, tmp_path: Path) -> None:
    source = layer(
        tmp_path / "src",
        out="->/etc",
        up="->../../../../../../etc/passwd",
        etc__own="mine\n",
        proc="->/proc/self/root",
    )
    said = await lab.sh("ls /in", mounts=(BindMount("/in", source, "/out"),))
    assert said == "own\n"
    await refused(lab, BindMount("/in", source, "/up"), because="no such file")
    await refused(lab, BindMount("/in", source, "/missing"), because="no such file.*source")
    await refused(lab, BindMount("/in", source, "/proc/etc"), because="symbolic links")
    await refused(lab, BindMount("/in", source, "../../../../etc/shadow"), because="no such file")
    os.mkfifo(source / "pipe")
    await refused(lab, BindMount("/in", source, "/pipe"), because="neither a directory nor")


# -- tmpfs -------------------------------------------------------------------------------------


@both
async def test_a_tmpfs_has_its_size_and_executes(lab: Lab) -> None:
    said = await lab.sh(
        "df -m /t | tail -1 | sed 's/  */ /g' | cut -d' ' -f2; stat -c %a /t; "
        "cp /bin/busybox /t/echo; /t/echo runs; head -c 5m /dev/zero > /t/x 2>/dev/null || "
        "echo full; grep ' /u ' /proc/mounts",
        mounts=(TmpfsMount("/t", 4 << 20), TmpfsMount("/u")),
    )
    lines = said.splitlines()
    assert lines[:4] == ["4", "1777", "runs", "full"]
    assert "nosuid,nodev" in lines[4]


# -- secrets -----------------------------------------------------------------------------------


def on_disk(base: Path, text: bytes) -> list[Path]:
    """Files of the file system of `base` that hold `text`: another one is not disk."""
    device = base.stat().st_dev
    found = []
    for directory, names, files in os.walk(base):
        names[:] = [name for name in names if os.lstat(f"{directory}/{name}").st_dev == device]
        paths = [Path(directory, name) for name in files]
        found += [path for path in paths if path.is_file() and text in path.read_bytes()]
    return found


@both
async def test_secrets(lab: Lab, tmp_path: Path) -> None:
    mounts = (
        SecretMount(HUSH, target="/run/secrets/token"),
        SecretMount(HUSH + b"\xff\0", target="/key", mode=0o440, uid=1000, gid=12),
        SecretMount(HUSH, env="TOKEN"),
        SecretMount(b"", target="/empty"),
    )
    with lab.tree() as tree:
        script = (
            "cat /run/secrets/token; echo; stat -c '%a %u %g' /run/secrets/token /key; "
            "wc -c < /key; echo $TOKEN; (echo x > /key) 2>/dev/null || echo ro; wc -c < /empty; "
            "echo ready; cat /tmp/gate"
        )
        told, gate = Told(), tree.root / "tmp/gate"
        os.mkfifo(gate)
        request = lab.request(tree, "/bin/sh", "-ec", script, mounts=mounts)
        running = asyncio.create_task(lab.executor.run(request, told))
        await told.until("ready")
        assert on_disk(tmp_path, HUSH) == []
        gate.write_text("")
        assert (await running).code == 0
        gate.unlink()
        assert [path for path in tree.changes() if path != "etc"] == ["tmp"]
    lines = told.text().splitlines()
    assert lines[0] == HUSH.decode()
    assert lines[1:] == ["400 0 0", "440 1000 12", "27", HUSH.decode(), "ro", "0", "ready"]
    assert HUSH.decode() not in repr(request)


async def test_a_secret_that_no_variable_holds(lab: Lab) -> None:
    for data in (b"\xff", b"a\0b", b"x" * 200_000):
        await refused(lab, SecretMount(data, env="TOKEN"), because="secret for the variable TOKEN")


# -- caches ------------------------------------------------------------------------------------


@both
async def test_a_cache_outlives_the_step(lab: Lab, tmp_path: Path) -> None:
    cache = CacheMount("/cache", "pip", mode=0o750, uid=12, gid=34)
    script = "stat -c '%a %u %g' /cache; cat /cache/* 2>/dev/null || true; echo $$ one >> /cache/f"
    assert await lab.sh(script, mounts=(cache,)) == "750 12 34\n"
    assert (await lab.sh(script, mounts=(cache,))).endswith("1 one\n")
    other = CacheMount("/cache", "../pip")
    assert await lab.sh("ls /cache", mounts=(other,)) == ""
    fixed = CacheMount("/cache", "pip", readonly=True)
    assert await lab.sh("touch /cache/x 2>/dev/null || echo ro", mounts=(fixed,)) == "ro\n"
    found = {each.id: each for each in await lab.caches.list()}
    assert set(found) == {"pip", "../pip"}
    assert not found["pip"].in_use
    assert found["pip"].created_ns <= found["../pip"].created_ns <= found["pip"].last_used_ns
    assert await lab.caches.size_bytes("pip") > 0
    await lab.caches.remove("pip")
    assert [each.id for each in await lab.caches.list()] == ["../pip"]
    with pytest.raises(NotFound, match="no such cache mount: pip"):
        await lab.caches.remove("pip")


async def test_a_cache_begins_with_its_seed(lab: Lab, tmp_path: Path) -> None:
    seed = layer(tmp_path / "seed", etc__in="first\n", link="->/etc")
    (seed / "etc").chmod(0o711)
    cache = CacheMount("/cache", "seeded", seed=(seed, "link"))
    said = await lab.sh("stat -c %a /cache; cat /cache/in; echo 2 > /cache/in", mounts=(cache,))
    assert said == "711\nfirst\n"
    assert await lab.sh("cat /cache/in", mounts=(cache,)) == "2\n"
    assert (seed / "etc/in").read_text() == "first\n"
    missing = CacheMount("/cache", "other", seed=(seed, "/none"))
    await refused(lab, missing, because="cannot fill a cache mount")
    assert [each.id for each in await lab.caches.list()] == ["other", "seeded"]
    # What could not be made is made at the next try.
    assert await lab.sh("ls /cache", mounts=(CacheMount("/cache", "other"),)) == ""


async def test_shared_steps_meet_in_one_directory(lab: Lab) -> None:
    cache = CacheMount("/c", "meet")
    mine, theirs = "touch /c/{0}; ", "until [ -e /c/{1} ]; do :; done"
    scripts = [(mine + theirs).format(*names) for names in (("a", "b"), ("b", "a"))]
    await asyncio.gather(*(lab.sh(script, mounts=(cache,)) for script in scripts))
    assert len(await lab.caches.list()) == 1


async def test_locked_steps_wait_for_each_other(lab: Lab) -> None:
    cache = CacheMount("/c", "one", sharing="locked")
    script = "mkdir /c/lock; cat /c/count 2>/dev/null || true; echo x >> /c/count; rmdir /c/lock"
    said = await asyncio.gather(*(lab.sh(script, mounts=(cache,)) for _ in range(6)))
    assert sorted(len(text) for text in said) == [0, 2, 4, 6, 8, 10]


async def test_private_steps_have_directories_of_their_own(lab: Lab) -> None:
    cache = CacheMount("/c", "own", sharing="private")
    script = "mkdir /c/mine; touch /sync/$(hostname); until [ $(ls /sync | wc -l) = 3 ]; do :; done"
    sync = CacheMount("/sync", "sync")
    await asyncio.gather(
        *(lab.sh(script, mounts=(cache, sync), hostname=name) for name in ("a", "b", "c"))
    )
    assert await lab.sh("ls /c", mounts=(cache,)) == "mine\n"
    held = [each for each in await lab.caches.list() if each.id == "own"]
    assert sorted(path.name for path in held[0].path.iterdir()) == ["0", "1", "2", "about.json"]


async def test_a_cache_in_use_stays_and_a_waiting_step_can_be_cancelled(lab: Lab) -> None:
    cache = CacheMount("/c", "busy", sharing="locked")
    told = Told()
    with lab.tree() as tree:
        request = lab.request(tree, "/bin/sh", "-c", "echo up; sleep 100", mounts=(cache,))
        first = asyncio.create_task(lab.executor.run(request, told))
        await told.first()
        with pytest.raises(Conflict, match="in use"):
            await lab.caches.remove("busy")
        assert [each.in_use for each in await lab.caches.list()] == [True]
        second = asyncio.create_task(lab.sh("echo never", mounts=(cache,)))
        third = asyncio.create_task(lab.sh("echo third", mounts=(cache,)))
        await asyncio.sleep(0)
        second.cancel()
        first.cancel()
        for task in (first, second):
            with pytest.raises(asyncio.CancelledError):
                await task
    assert await third == "third\n"
    await lab.caches.remove("busy")


async def test_two_caches_locked_crosswise(lab: Lab) -> None:
    a, b = (CacheMount(f"/{name}", name, sharing="locked") for name in "ab")
    runs = [lab.sh("true", mounts=pair) for pair in [(a, b), (b, a)] * 4]
    assert await asyncio.wait_for(asyncio.gather(*runs), 30) == [""] * 8
    # And one cache at two places of a step.
    twice = (a, CacheMount("/other", "a", sharing="locked"))
    assert await lab.sh("touch /a/x; ls /other", mounts=twice) == "x\n"


async def test_a_cache_that_is_none(lab: Lab) -> None:
    await refused(lab, CacheMount("/c", "x", sharing="odd"), because="invalid sharing")
    for wrong in ("", "x" * 5000, "\udcff"):
        await refused(lab, CacheMount("/c", wrong), because="invalid id")
