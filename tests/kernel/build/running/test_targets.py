"""What a step mounts leaves no trace in its layer, and leads nowhere, whatever the tree holds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.kernel.build.running.running_lab import STDERR, Lab, Tree, layer

from estiba.build.ports import (
    BindMount,
    CacheMount,
    RunMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from estiba.build.running.targets import forget_untouched
from estiba.model.errors import InvalidArgument

pytestmark = pytest.mark.kernel
both = pytest.mark.parametrize("lab", ["crun", "runc"], indirect=True)


async def nobody() -> tuple[int, object]:
    raise OSError("nobody asks it")


def all_mounts(source: Path) -> tuple[RunMount, ...]:
    return (
        BindMount("/src", source),
        BindMount("/usr/lib/deep/one", source, "/file"),
        BindMount("/rw/here", source, writable=True),
        CacheMount("/root/.cache/pip", "pip"),
        CacheMount("/root/.cache/npm", "npm", sharing="locked"),
        TmpfsMount("/var/tmp/x"),
        SecretMount(b"x", target="/run/secrets/x"),
        SshMount(nobody, "/run/agents/0"),  # type: ignore[arg-type]
        TmpfsMount("/dev/extra"),
        TmpfsMount("/src/sub"),
        BindMount("relative", source),
    )


def stamps(root: Path) -> dict[str, tuple[int, ...]]:
    found = {}
    for path in (root, *root.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(root))] = (status.st_mode, status.st_mtime_ns, status.st_size)
    return found


@both
async def test_mounts_leave_no_entry_in_the_layer(lab: Lab, tmp_path: Path) -> None:
    source = layer(tmp_path / "source", file="x", sub__y="y")
    sources = stamps(source)
    with lab.tree() as tree:
        before = stamps(tree.root)
        end, _ = await lab.run(tree, "/bin/true", mounts=all_mounts(source), cwd="/home")
        assert stamps(tree.root) == before
    forget_untouched(tree.upper, end.untouched)
    assert tree.changes() == []
    assert stamps(source) == sources


async def test_a_bare_tree_stays_bare(lab: Lab, tmp_path: Path) -> None:
    """A root that has nothing but a program, and no overlay: not even /dev, /proc and /etc."""
    root = tmp_path / "bare"
    for name in ("bin", "lib", "lib64"):
        shutil.copytree(lab.lower / name, root / name, symlinks=True)
    before = stamps(root)
    source = layer(tmp_path / "source", file="x", sub__y="y")
    end, told = await lab.run(
        Tree(root, root),
        *("/bin/sh", "-c", "ls -A / /etc /proc/1"),
        mounts=all_mounts(source),
        cwd="/bin",
    )
    assert end.code == 0, told.text(STDERR)
    assert "resolv.conf" in told.text()
    assert stamps(root) == before


async def test_what_the_program_does_beside_the_stubs_stays(lab: Lab, tmp_path: Path) -> None:
    script = (
        "echo x > /root/.cache/mine; chmod 700 /var/run2; touch /etc/added; rm /etc/passwd; "
        "mkdir /moved; mv /top /moved/top"
    )
    mounts = (
        CacheMount("/root/.cache/pip", "pip"),
        TmpfsMount("/var/run2/x"),
        TmpfsMount("/top/in/it"),
        SecretMount(b"x", target="/run/secrets/x"),
    )
    with lab.tree() as tree:
        end, told = await lab.run(tree, "/bin/sh", "-ec", script, mounts=mounts)
        assert end.code == 0, told.text(2)
        assert not (tree.root / "root/.cache/pip").exists()
        assert not (tree.root / "moved/top/in/it").exists()
    forget_untouched(tree.upper, end.untouched)
    changes = tree.changes()
    assert {"root/.cache/mine", "etc/added", "etc/passwd", "var/run2"} <= set(changes)
    assert not {path for path in changes if path.startswith("run")}
    assert "etc/hosts" not in changes


async def test_what_the_working_directory_needs_is_no_stub(lab: Lab) -> None:
    with lab.tree() as tree:
        end, _ = await lab.run(
            tree, "/bin/true", cwd="/work/here", mounts=(TmpfsMount("/work/here/t"),)
        )
    forget_untouched(tree.upper, end.untouched)
    assert tree.changes() == ["work", "work/here"]


# -- hostile trees -----------------------------------------------------------------------------

OUT = "->../../../../../../../../../../"


@pytest.fixture
def bait(tmp_path: Path) -> Path:
    """A directory of the host that hostile trees point at."""
    made = tmp_path / "bait"
    for name in ("dir", "other"):
        (made / name).mkdir(parents=True)
    (made / "file").write_text("host\n")
    return made


@both
async def test_symlinks_at_every_target_stay_inside(lab: Lab, tmp_path: Path, bait: Path) -> None:
    host = str(bait)
    hostile = layer(
        tmp_path / "hostile",
        etc__resolv_conf="x",
        a=f"->{host}/other",
        b=f"{OUT}{host}/dir",
        c=f"->{host}/file",
        d="->/d2",
        d2="->/nowhere/at/all",
        run="->/b/deeper",
        proc=f"->{host}/dir",
        sys=f"{OUT}{host}",
        dev=f"->{host}",
        root=f"->{host}/dir",
    )
    for name in ("resolv.conf", "hosts", "hostname"):
        (hostile / "etc" / name).symlink_to(f"{host}/file-{name}")
    source = layer(tmp_path / "source", file="x")
    mounts = (
        BindMount("/a", source),
        CacheMount("/b/cache", "c"),
        BindMount("/c", source, "/file"),
        TmpfsMount("/d"),
        SecretMount(b"hush", target="/run/secrets/s"),
        TmpfsMount("/root/.cache"),
        BindMount("/b/rw", source, writable=True),
    )
    before = stamps(bait)
    with lab.tree(hostile) as tree:
        inside = stamps(tree.root)
        script = f"cat /run/secrets/s; ls /nowhere/at/all {host}/dir; cat /etc/hosts"
        end, told = await lab.run(tree, "/bin/sh", "-ec", script, mounts=mounts)
        assert end.code == 0, told.text() + told.text(2)
        assert stamps(tree.root) == inside
    assert stamps(bait) == before
    assert (bait / "file").read_text() == "host\n"
    assert told.text().startswith("hush")
    assert "localhost" in told.text()


async def test_targets_that_are_refused(lab: Lab, tmp_path: Path) -> None:
    hostile = layer(
        tmp_path / "hostile",
        p="->/proc/1/root",
        s="->/sys/x",
        loop="->loop",
        l1="->l2/x",
        l2="->l1/x",
        file="x",
        top="->/",
        bytes="->/\udcff",
    )
    source = layer(tmp_path / "source", file="x", link="->/etc")
    cases: list[tuple[str, RunMount]] = [
        ("kernel's own", TmpfsMount("/")),
        ("kernel's own", TmpfsMount("/top")),
        ("kernel's own", TmpfsMount("/proc/x")),
        ("kernel's own", TmpfsMount("/p/etc")),
        ("kernel's own", TmpfsMount("/s")),
        ("kernel's own", TmpfsMount("/../../proc")),
        ("symbolic links", TmpfsMount("/loop")),
        ("symbolic links", TmpfsMount("/l1")),
        ("is no directory", TmpfsMount("/file")),
        ("is no directory", TmpfsMount("/file/below")),
        ("is a directory", SecretMount(b"x", target="/etc")),
        ("too deep", TmpfsMount("/d" * 200)),
        ("File name too long", TmpfsMount("/" + "d" * 300)),
        ("invalid mount target", TmpfsMount("")),
        ("invalid mount target", TmpfsMount("/\udcff")),
        ("not UTF-8", TmpfsMount("/bytes")),
        ("invalid mount target", TmpfsMount("/a\0b")),
        ("invalid mount target", TmpfsMount("/x" * 3000)),
    ]
    with lab.tree(hostile) as tree:
        for because, mount in cases:
            with pytest.raises(InvalidArgument, match=because):
                await lab.run(tree, "/bin/true", mounts=(mount,))
        inner = (BindMount("/m", source), TmpfsMount("/m/missing"))
        with pytest.raises(InvalidArgument, match="does not exist in the read-only mount at /m"):
            await lab.run(tree, "/bin/true", mounts=inner)


async def test_mounts_in_mounts(lab: Lab, tmp_path: Path) -> None:
    source = layer(tmp_path / "source", link="->/inner", inner__x="x")
    mounts = (
        TmpfsMount("/rw/link/in/tmp"),
        BindMount("/rw", source, writable=True),
        CacheMount("/c", "c"),
        BindMount("/c/bind", source),
        TmpfsMount("/c/bind/inner"),
        TmpfsMount("/t"),
        SecretMount(b"s", target="/t/secret/s"),
    )
    with lab.tree() as tree:
        # `link` leads to the step's own /inner, as it does for the step.
        script = "grep -c ' /inner/in/tmp ' /proc/mounts; ls -A /c/bind/inner; cat /t/secret/s"
        end, told = await lab.run(tree, "/bin/sh", "-ec", script, mounts=mounts)
        assert (end.code, told.text()) == (0, "1\ns"), told.text(2)
    forget_untouched(tree.upper, end.untouched)
    assert tree.changes() == []
    caches = await lab.caches.list()
    assert os.listdir(caches[0].path / "0/_data") == []


async def test_a_mount_around_the_engines_files(lab: Lab, tmp_path: Path) -> None:
    """A step that brings its own /etc has no hosts file of the engine's in it."""
    source = layer(tmp_path / "source", own="x")
    assert await lab.sh("ls /etc", mounts=(BindMount("/etc", source),)) == "own\n"
    said = await lab.sh("cat /etc/hosts", mounts=(BindMount("/etc/hosts", source, "own"),))
    assert said == "x"
