"""COPY and ADD into real trees: what comes out, and hostile trees on either side."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.daemon import DEADLINE_S
from tests.support.hostile import archive, attacks, link, make_canary, member, snapshot

from estiba.build.files.copying import put
from estiba.build.files.model import CopyOptions, CopySource
from estiba.build.files.selection import take
from estiba.distribution.cancel import CancelToken
from estiba.kernel.confined import opened_root
from estiba.model.errors import Cancelled, EstibaError, InvalidArgument, LimitExceeded
from estiba.storage.unpack import Limits

pytestmark = pytest.mark.kernel
YEAR_2001_NS = 1_000_000_000 * 10**9


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "file").write_text("file")
    (root / "other").write_text("other")
    (root / "dir" / "one").write_text("one")
    (root / "dir" / "sub" / "two").write_text("two")
    (root / "dir" / "link").symlink_to("sub/two")
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\nalice:x:1000:1001::/:/bin/sh\n")
    (root / "etc" / "group").write_text("staff:x:50:\n")
    (root / "there").mkdir(mode=0o700)
    return root


def copy(
    source: Path,
    tree: Path,
    *patterns: str,
    to: str,
    keeps_owner: bool = False,
    cancel: CancelToken | None = None,
    limits: Limits = Limits(),  # noqa: B008
    **fields: object,
) -> None:
    options = CopyOptions(destination=to, **fields)  # type: ignore[arg-type]
    copied = CopySource(root=source, patterns=patterns, shown="it", keeps_owner=keeps_owner)
    put(take([copied], options), options, tree, cancel, limits)


def listing(tree: Path, top: str) -> list[str]:
    """Mode, owner and name of everything below `top`."""
    found = []
    for path in sorted((tree / top).rglob("*")):
        status = path.lstat()
        kind = stat.filemode(status.st_mode)
        found.append(f"{kind} {status.st_uid}:{status.st_gid} {path.relative_to(tree / top)}")
    return found


def test_a_file_to_a_name_into_a_directory_and_below_new_ones(source: Path, tree: Path) -> None:
    copy(source, tree, "file", to="/name")
    copy(source, tree, "file", to="/there")
    copy(source, tree, "file", to="/new/")
    copy(source, tree, "file", to="deep/name", working_dir="/work")
    copy(source, tree, "file", to=".", working_dir="/there/too")
    for path in ("name", "there/file", "new/file", "work/deep/name", "there/too/file"):
        assert (tree / path).read_text() == "file"
    assert stat.S_IMODE((tree / "new").stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / "there").stat().st_mode) == 0o700


def test_a_directory_gives_its_content(source: Path, tree: Path) -> None:
    (source / "dir").chmod(0o711)
    (source / "dir" / "sub").chmod(0o750)
    copy(source, tree, "dir", to="/new")
    assert listing(tree, "new") == [
        "lrwxrwxrwx 0:0 link",
        "-rw-r--r-- 0:0 one",
        "drwxr-x--- 0:0 sub",
        "-rw-r--r-- 0:0 sub/two",
    ]
    assert stat.S_IMODE((tree / "new").stat().st_mode) == 0o755
    assert os.readlink(tree / "new" / "link") == "sub/two"


def test_directories_merge_and_files_are_replaced(source: Path, tree: Path) -> None:
    (tree / "new" / "sub").mkdir(parents=True)
    (tree / "new" / "sub" / "kept").write_text("kept")
    (tree / "new" / "one").symlink_to("/etc/passwd")
    (tree / "new" / "link").write_text("was a file")
    copy(source, tree, "dir", to="/new/")
    assert (tree / "new/sub/kept").read_text() == "kept"
    assert (tree / "new/one").read_text() == "one"
    assert not (tree / "new/one").is_symlink()
    assert "alice" in (tree / "etc/passwd").read_text()


def test_a_directory_and_a_file_never_replace_one_another(source: Path, tree: Path) -> None:
    (tree / "new" / "one").mkdir(parents=True)
    with pytest.raises(InvalidArgument, match="cannot replace the directory /new/one with a file"):
        copy(source, tree, "dir", to="/new/")
    (tree / "flat").mkdir()
    (tree / "flat" / "sub").write_text("file")
    with pytest.raises(InvalidArgument, match="cannot copy to non-directory: /flat/sub"):
        copy(source, tree, "dir", to="/flat")
    with pytest.raises(InvalidArgument, match="cannot copy to non-directory: /etc/passwd"):
        copy(source, tree, "dir", to="/etc/passwd")
    with pytest.raises(InvalidArgument, match="cannot copy to non-directory: /etc/passwd/x"):
        copy(source, tree, "file", to="/etc/passwd/x/")
    with pytest.raises(InvalidArgument, match="2 files cannot be copied to one name"):
        copy(source, tree, "[fo]*", to="/one-name")
    copy(source, tree, "[fo]*", to="/there")
    assert sorted(os.listdir(tree / "there")) == ["file", "other"]


def test_links_in_the_destination_are_followed_inside_the_tree(source: Path, tree: Path) -> None:
    (tree / "to-dir").symlink_to("/there")
    (tree / "to-file").symlink_to("there/real")
    (tree / "to-none").symlink_to("/run/none")
    (tree / "there" / "file").symlink_to("/etc/passwd")
    copy(source, tree, "file", to="/to-dir")
    copy(source, tree, "file", to="/to-file")
    copy(source, tree, "file", to="/to-none/")
    copy(source, tree, "dir", to="/to-dir/x")
    assert (tree / "there/file").read_text() == "file"
    assert not (tree / "there/file").is_symlink()
    assert (tree / "there/real").read_text() == "file"
    assert (tree / "run/none/file").read_text() == "file"
    assert (tree / "there/x/one").read_text() == "one"
    assert (tree / "to-file").is_symlink()


def test_links_are_replaced_when_they_are_not_followed(source: Path, tree: Path) -> None:
    (tree / "to-dir").symlink_to("/there")
    (tree / "to-file").symlink_to("etc/passwd")
    (tree / "one").mkdir()
    copy(source, tree, "file", to="/to-dir/", follows_destination_links=False)
    copy(source, tree, "file", to="/to-file", follows_destination_links=False)
    copy(source, tree, "dir", to="/", follows_destination_links=False)
    assert not (tree / "to-dir").is_symlink()
    assert (tree / "to-dir/file").read_text() == "file"
    assert (tree / "to-file").read_text() == "file"
    assert (tree / "one").read_text() == "one"
    assert "alice" in (tree / "etc/passwd").read_text()


@pytest.mark.parametrize(
    ("owner", "ids"),
    [
        ("alice", "1000:1001"),
        ("1234", "1234:1234"),
        ("alice:staff", "1000:50"),
        ("7:8", "7:8"),
        (":staff", "0:50"),
        ("alice:", "1000:0"),
        ("7:", "7:0"),
    ],
)
def test_owners_are_looked_up_in_the_tree(source: Path, tree: Path, owner: str, ids: str) -> None:
    copy(source, tree, "dir", to="/new", owner=owner)
    assert {line.split()[1] for line in listing(tree, "new")} == {ids}
    made = (tree / "new").stat()
    assert f"{made.st_uid}:{made.st_gid}" == ids


@pytest.mark.parametrize("owner", ["bob", "alice:nobody", ":", "a:b:c", ":nobody"])
def test_unknown_owners_are_told(source: Path, tree: Path, owner: str) -> None:
    with pytest.raises(InvalidArgument, match="chown string"):
        copy(source, tree, "dir", to="/new", owner=owner)


def test_owners_of_stages_are_kept(source: Path, tree: Path) -> None:
    os.chown(source / "dir" / "one", 5, 6)
    os.chown(source / "dir" / "link", 5, 6, follow_symlinks=False)
    os.chown(source / "dir" / "sub", 7, 8)
    copy(source, tree, "dir", to="/kept", keeps_owner=True)
    assert listing(tree, "kept") == [
        "lrwxrwxrwx 5:6 link",
        "-rw-r--r-- 5:6 one",
        "drwxr-xr-x 7:8 sub",
        "-rw-r--r-- 0:0 sub/two",
    ]


def test_modes_times_attributes_and_hard_links(source: Path, tree: Path) -> None:
    one = source / "dir" / "one"
    os.link(one, source / "dir" / "sub" / "same")
    one.chmod(0o4750)
    os.setxattr(one, "user.note", b"hello")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(one, "security.capability", capability)
    for path in (one, source / "dir" / "sub"):
        os.utime(path, ns=(YEAR_2001_NS, YEAR_2001_NS))
    copy(source, tree, "dir", to="/new", newest_ns=YEAR_2001_NS + 1)
    made = tree / "new" / "one"
    assert stat.S_IMODE(made.stat().st_mode) == 0o4750
    assert made.samefile(tree / "new" / "sub" / "same")
    assert not made.samefile(one)
    assert os.getxattr(made, "user.note") == b"hello"
    assert os.getxattr(made, "security.capability") == capability
    assert made.stat().st_mtime_ns == (tree / "new/sub").stat().st_mtime_ns == YEAR_2001_NS
    assert (tree / "new/sub/two").stat().st_mtime_ns == YEAR_2001_NS + 1
    copy(source, tree, "dir", to="/plain", mode="u=rwX,go=rX")
    assert [line for line in listing(tree, "plain") if not line.startswith("l")] == [
        "-rwxr-xr-x 0:0 one",
        "drwxr-xr-x 0:0 sub",
        "-rwxr-xr-x 0:0 sub/same",
        "-rw-r--r-- 0:0 sub/two",
    ]


def test_devices_fifos_and_sockets(source: Path, tree: Path) -> None:
    os.mkfifo(source / "dir" / "fifo")
    os.mknod(source / "dir" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(source / "dir" / "socket", stat.S_IFSOCK | 0o666)
    copy(source, tree, "dir", to="/new", mode="600")
    made = listing(tree, "new")
    assert "prw------- 0:0 fifo" in made and "crw------- 0:0 null" in made
    assert not any("socket" in line for line in made)


def test_holes_stay_holes(source: Path, tree: Path) -> None:
    with (source / "sparse").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
        file.truncate(80 << 20)
    copy(source, tree, "sparse", to="/sparse")
    status = (tree / "sparse").stat()
    assert status.st_size == 80 << 20
    assert status.st_blocks * 512 < 1 << 20
    with (tree / "sparse").open("rb") as file:
        file.seek(64 << 20)
        assert file.read(4) == b"end\0"


# -- archives ------------------------------------------------------------------------------


def test_archives_are_unpacked_with_their_owners(source: Path, tree: Path) -> None:
    (source / "a.tar").write_bytes(
        archive(
            member("d", tarfile.DIRTYPE, mode=0o750, uid=3, gid=4),
            member("d/f", data=b"x", uid=3, gid=4),
            link("l", "d/f"),
        )
    )
    copy(source, tree, "a.tar", to="/new", unpacks=True)
    assert listing(tree, "new") == ["drwxr-x--- 3:4 d", "-rw-r--r-- 3:4 d/f", "lrwxrwxrwx 0:0 l"]
    copy(source, tree, "a.tar", to="/own", unpacks=True, owner="alice")
    assert {line.split()[1] for line in listing(tree, "own")} == {"1000:1001"}
    copy(source, tree, "a.tar", to="/whole/")
    assert os.listdir(tree / "whole") == ["a.tar"]


def test_links_of_an_archive_lead_nowhere_above_its_destination(source: Path, tree: Path) -> None:
    members = [link("up", ".."), member("up/a", data=b"x"), link("top", "/"), member("top/b")]
    (source / "a.tar").write_bytes(archive(*members))
    copy(source, tree, "a.tar", to="/new/deep", unpacks=True)
    assert sorted(os.listdir(tree / "new/deep")) == ["a", "b", "top", "up"]
    assert os.listdir(tree / "new") == ["deep"]


def test_limits_of_archives(source: Path, tree: Path) -> None:
    (source / "a.tar").write_bytes(archive(member("f", data=bytes(100_000))))
    with pytest.raises(LimitExceeded):
        copy(source, tree, "a.tar", to="/", unpacks=True, limits=Limits(total_bytes=1000))


def test_damaged_archives_are_told(source: Path, tree: Path) -> None:
    whole = archive(member("f", data=bytes(100_000)))
    (source / "a.tar").write_bytes(whole[:5000])
    with pytest.raises(InvalidArgument, match=r'cannot unpack "/a\.tar": tar: the archive is cut'):
        copy(source, tree, "a.tar", to="/", unpacks=True)


# -- hostile trees -------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return make_canary(tmp_path / "outside")


def test_no_archive_gets_out(tmp_path: Path, source: Path, tree: Path, outside: Path) -> None:
    before = snapshot(outside)
    for name, data in attacks(str(outside)).items():
        (source / "a.tar").write_bytes(data)
        try:
            copy(source, tree, "a.tar", to="/there", unpacks=True)
        except EstibaError as error:
            assert str(error), name
        assert snapshot(outside) == before, name


@pytest.mark.parametrize("follows", [True, False])
def test_no_destination_leads_out(source: Path, tree: Path, outside: Path, follows: bool) -> None:
    before = snapshot(outside)
    (tree / "abs").symlink_to(outside)
    (tree / "rel").symlink_to("../outside")
    (tree / "up").symlink_to("../" * 20 + str(outside).lstrip("/"))
    (tree / "canary").symlink_to(outside / "canary")
    (tree / "loop").symlink_to("loop")
    for to in ("/abs", "/abs/", "/rel/x", "/up/", "/canary", "/../../../x", "/loop", "/loop/"):
        for pattern in ("file", "dir"):
            try:
                copy(source, tree, pattern, to=to, follows_destination_links=follows)
            except InvalidArgument as error:
                assert "cannot copy" in str(error) or "cannot replace" in str(error)
            assert snapshot(outside) == before, to


def test_no_source_leads_out(source: Path, tree: Path, outside: Path) -> None:
    (source / "abs").symlink_to(outside)
    (source / "rel").symlink_to("../outside/canary")
    (source / "dir" / "below").symlink_to(outside / "canary")
    for pattern in ("abs", "rel", "../outside/canary", str(outside / "canary"), "abs/canary"):
        with pytest.raises(EstibaError, match="not found"):
            copy(source, tree, pattern, to="/new/")
    copy(source, tree, "*", to="/all/")
    copy(source, tree, "dir", to="/new")
    assert os.readlink(tree / "new" / "below") == str(outside / "canary")
    found = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not any("canary" in path.read_text() for path in found)


@pytest.fixture
def swapping(outside: Path) -> Iterator[Callable[[Path], None]]:
    """Makes a directory and a link to outside change places until the test ends."""
    is_over = threading.Event()
    threads: list[threading.Thread] = []

    def swap(directory: Path) -> None:
        link_path, aside = directory.with_name("swap-link"), directory.with_name("swap-aside")
        link_path.symlink_to(outside)
        while not is_over.is_set():
            try:
                directory.rename(aside)
                link_path.rename(directory)
                directory.rename(link_path)
                aside.rename(directory)
            except OSError:
                continue

    def start(directory: Path) -> None:
        threads.append(threading.Thread(target=swap, args=(directory,)))
        threads[-1].start()

    yield start
    is_over.set()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("side", ["source", "tree"])
def test_what_is_swapped_meanwhile_leads_nowhere(
    side: str, source: Path, tree: Path, outside: Path, swapping: Callable[[Path], None]
) -> None:
    before = snapshot(outside)
    for number in range(50):
        (source / "dir" / "sub" / f"{number}").write_text("x")
    (tree / "new").mkdir()
    copy(source, tree, "dir", to="/new")
    (source / "dir" / "sub" / "canary").write_text("x")
    swapping(source / "dir" / "sub" if side == "source" else tree / "new" / "sub")
    until = time.monotonic() + 1.5
    done = 0
    while time.monotonic() < until or not done:
        assert time.monotonic() < until + DEADLINE_S, "no copy succeeds"
        try:
            copy(source, tree, "dir", to="/new")
            copy(source, tree, "dir/sub/canary", to="/new/sub/canary")
        except (EstibaError, OSError):
            continue
        done += 1
        assert snapshot(outside) == before
    assert snapshot(outside) == before
    found = [path for path in tree.rglob("canary") if path.is_file() and not path.is_symlink()]
    assert all(path.read_text() == "x" for path in found if outside not in path.resolve().parents)


def test_a_cancelled_copy_ends(source: Path, tree: Path) -> None:
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        copy(source, tree, "dir", to="/new", cancel=cancel)


# -- speed ---------------------------------------------------------------------------------


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    merged = tmp_path / "merged"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, merged], check=True)
    yield merged
    subprocess.run(["umount", merged], check=True)


def test_five_thousand_files_take_little_time(tmp_path: Path, overlay: Path) -> None:
    for number in range(5000):
        path = tmp_path / "many" / f"{number % 50}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number.to_bytes(4, "big") * 300)
    options = CopyOptions(destination="/app/")
    source = CopySource(root=tmp_path / "many", patterns=(".",), shown="it")
    before = time.process_time()
    taken = take([source], options)
    between = time.process_time()
    put(taken, options, overlay)
    after = time.process_time()
    assert len(list((overlay / "app").rglob("*"))) == 5050
    assert between - before < 0.8, "measured alone: 0.1 s"
    assert after - between < 1.5, "measured alone: 0.15 s"


def test_nothing_stays_open(source: Path, tree: Path) -> None:
    with opened_root(source):
        before = len(os.listdir("/proc/self/fd"))
        copy(source, tree, "dir", to="/new")
        copy(source, tree, "file", to="/name")
        with pytest.raises(EstibaError):
            copy(source, tree, "none", to="/name")
        with pytest.raises(EstibaError):
            copy(source, tree, "dir", to="/etc/passwd")
        (source / "a.tar").write_bytes(archive(member("f", data=bytes(999)))[:700])
        with pytest.raises(EstibaError):
            copy(source, tree, "a.tar", to="/x", unpacks=True)
        assert len(os.listdir("/proc/self/fd")) <= before


def test_streams_of_tar_are_whole(source: Path, tree: Path) -> None:
    """A compressed archive beyond one piece of its reader."""
    data = os.urandom(3 << 20)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        info = tarfile.TarInfo("big")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    (source / "a.txz").write_bytes(buffer.getvalue())
    copy(source, tree, "a.txz", to="/x", unpacks=True)
    assert (tree / "x" / "big").read_bytes() == data


def test_names_of_one_file_are_not_two_files(source: Path) -> None:
    def digest() -> str:
        sources = [CopySource(root=source, patterns=(".",), shown="the context")]
        return take(sources, CopyOptions(destination="/")).digest

    for name in ("a", "b", "c"):
        (source / name).write_text("same")
    found = {digest()}
    for name, other in (("b", "a"), ("c", "a"), ("c", "b")):
        (source / name).unlink()
        (source / name).hardlink_to(source / other)
        found.add(digest())
    # In the end it does not matter which name was there first.
    assert len(found) == 3
