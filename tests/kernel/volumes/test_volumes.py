from __future__ import annotations

import os
import random
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from estiba.kernel.mounts import mount, unmount
from estiba.model.errors import Conflict, InvalidArgument, NotFound
from estiba.store import Store
from estiba.store.events import EventBus
from estiba.volumes.volumes import Volumes

pytestmark = pytest.mark.kernel


@pytest.fixture
def volumes(tmp_path: Path, store: Store) -> Volumes:
    volumes = Volumes(tmp_path / "volumes", store)
    volumes.start()
    return volumes


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_bytes(b"hello" * 1000)
    os.chown(root / "file", 1234, 4321)
    (root / "file").chmod(0o4755)
    os.setxattr(root / "file", "user.note", b"kept")
    os.link(root / "file", root / "sub" / "same")
    (root / "link").symlink_to("/etc/passwd")
    (root / "up").symlink_to("../../../..")
    os.mkfifo(root / "pipe", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(root / "socket"))
    (root / "sub").chmod(0o1777)
    os.utime(root / "sub", ns=(10**18, 10**18))
    root.chmod(0o750)
    os.chown(root, 99, 98)
    return root


def fill(volumes: Volumes, name: str, source: Path) -> bool:
    return volumes.fill(name, source.parent, f"/{source.name}")


def test_the_directories_are_closed_to_others(volumes: Volumes) -> None:
    volumes.create("data")
    data = volumes.path("data")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (data, data.parent, data.parents[1])]
    assert modes == [0o755, 0o701, 0o701]


def test_creating_twice_is_one_volume(volumes: Volumes) -> None:
    first = volumes.create("data", labels={"a": "b"})
    assert volumes.create("data", labels={"c": "d"}) == first
    assert volumes.get("data").labels == {"a": "b"}
    assert [one.name for one in volumes.volumes()] == ["data"]
    assert not first.is_anonymous


def test_anonymous_volumes(volumes: Volumes) -> None:
    record = volumes.create()
    assert len(record.name) == 64
    assert record.is_anonymous
    assert volumes.create("f" * 64, anonymous=True).is_anonymous


def test_volumes_outlive_the_engine(volumes: Volumes, store: Store, tmp_path: Path) -> None:
    record = volumes.create("data", labels={"a": "b"})
    (volumes.path("data") / "file").write_text("x")
    (tmp_path / "volumes" / "found" / "_data").mkdir(parents=True)
    again = Volumes(tmp_path / "volumes", store)
    again.start()
    assert again.get("data") == record
    assert (again.path("data") / "file").read_text() == "x"
    assert again.get("found").name == "found"


def test_wrong_requests(volumes: Volumes) -> None:
    volumes.create("data")
    with pytest.raises(InvalidArgument, match="includes invalid characters"):
        volumes.create("../data")
    with pytest.raises(NotFound, match="volume plugin nfs"):
        volumes.create("x1", driver="nfs")
    with pytest.raises(InvalidArgument, match='invalid option: "nonsense"'):
        volumes.create("x1", options={"nonsense": "1"})
    with pytest.raises(Conflict, match="has other options"):
        volumes.create("data", options={"type": "tmpfs", "device": "tmpfs"})
    with pytest.raises(NotFound, match="get x1: no such volume"):
        volumes.path("x1")


def test_removing(volumes: Volumes, tmp_path: Path) -> None:
    volumes.create("data")
    (volumes.path("data") / "file").write_text("x")
    with pytest.raises(Conflict, match=r"remove data: volume is in use - \[c1, c2\]"):
        volumes.remove("data", users=["c1", "c2"])
    volumes.remove("data")
    with pytest.raises(NotFound):
        volumes.remove("data")
    volumes.remove("data", force=True)
    assert list((tmp_path / "volumes").iterdir()) == []


def test_the_longest_name_can_be_removed_too(volumes: Volumes, tmp_path: Path) -> None:
    """Its directory has a longer one meanwhile."""
    volumes.create("v" * 200)
    volumes.remove("v" * 200)
    assert list((tmp_path / "volumes").iterdir()) == []
    with pytest.raises(InvalidArgument, match="too long, 200 characters at most"):
        volumes.create("v" * 201)


def test_pruning(volumes: Volumes) -> None:
    for name in ("named", "used"):
        volumes.create(name)
    nameless = [volumes.create().name for _ in range(2)]
    (volumes.path(nameless[0]) / "file").write_bytes(b"x" * 1000)
    freed = volumes.prune(is_used=lambda name: name == nameless[1])
    assert freed == {nameless[0]: 1000}
    freed = volumes.prune(is_used=lambda name: name == "used", is_wanted=lambda record: True)
    assert sorted(freed) == sorted(["named", nameless[1]])
    assert [one.name for one in volumes.volumes()] == ["used"]


def test_pruning_goes_on_past_what_cannot_go_and_what_went_meanwhile(
    volumes: Volumes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("disk", "gone", "other"):
        volumes.create(name)
    place = volumes.path("disk").parent

    def is_used(name: str) -> bool:
        if name == "gone":
            volumes.remove(name)
        return False

    mount("tmpfs", place, "tmpfs")  # somebody gave the volume a disk of its own
    try:
        freed = volumes.prune(is_used=is_used, is_wanted=lambda record: True)
    finally:
        unmount(place)
    assert freed == {"other": 0}
    assert [one.name for one in volumes.volumes()] == ["disk"]
    assert "volume disk is not pruned: remove disk: " in caplog.text
    assert f"{place} is a mount point of the host: unmount it first" in caplog.text


def test_an_empty_volume_is_filled_with_all_that_a_file_is(volumes: Volumes, image: Path) -> None:
    volumes.create("data")
    assert fill(volumes, "data", image)
    data = volumes.path("data")
    status = (data / "file").stat()
    assert (data / "file").read_bytes() == b"hello" * 1000
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o4755, 1234, 4321)
    assert os.getxattr(data / "file", "user.note") == b"kept"
    assert (data / "sub" / "same").stat().st_ino == status.st_ino
    assert os.readlink(data / "link") == "/etc/passwd"
    assert os.readlink(data / "up") == "../../../.."
    assert stat.S_ISFIFO((data / "pipe").stat().st_mode)
    assert (data / "null").stat().st_rdev == os.makedev(1, 3)
    assert not (data / "socket").exists()
    assert stat.S_IMODE((data / "sub").stat().st_mode) == 0o1777
    assert (data / "sub").stat().st_mtime_ns == 10**18
    root = data.stat()
    assert (stat.S_IMODE(root.st_mode), root.st_uid, root.st_gid) == (0o750, 99, 98)
    assert sorted(path.name for path in data.parent.iterdir()) == ["_data"]
    assert volumes.usage("data") >= 5000


def test_a_volume_with_anything_in_it_stays(volumes: Volumes, image: Path) -> None:
    volumes.create("data")
    (volumes.path("data") / "mine").touch()
    assert not fill(volumes, "data", image)
    assert [path.name for path in volumes.path("data").iterdir()] == ["mine"]


def test_an_empty_directory_gives_its_owner(volumes: Volumes, tmp_path: Path) -> None:
    source = tmp_path / "empty"
    source.mkdir(mode=0o700)
    os.chown(source, 7, 8)
    volumes.create("data")
    assert fill(volumes, "data", source)
    status = volumes.path("data").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (7, 8, 0o700)


def test_two_containers_fill_one_volume_once(volumes: Volumes, image: Path) -> None:
    volumes.create("data")
    outcomes: list[bool] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(fill(volumes, "data", image)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False, False, False, True]


def test_a_directory_swapped_for_a_symlink_leads_nowhere(volumes: Volumes, tmp_path: Path) -> None:
    """The walk never follows a symlink, not even one that was a directory a moment ago."""
    source, secret = tmp_path / "source", tmp_path / "secret"
    source.mkdir()
    secret.mkdir()
    (secret / "canary").write_text("secret")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (source / "d").mkdir()
            (source / "d").rmdir()
            (source / "d").symlink_to(secret)
            (source / "d").unlink()

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(100):
            name = f"data{number}"
            volumes.create(name)
            try:
                fill(volumes, name, source)
            except OSError:
                pass
            assert not (volumes.path(name).parent / "_staging" / "d" / "canary").exists()
            copied = volumes.path(name) / "d"
            assert copied.is_symlink() or not (copied / "canary").exists()
    finally:
        stop.set()
        thread.join()


def test_a_path_in_the_image_is_resolved_within_it(volumes: Volumes, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "mine").touch()
    (root / "absolute").symlink_to("/etc")
    (root / "relative").symlink_to("../../../../etc")
    (root / "file").touch()
    for name in ("absolute", "relative"):
        volumes.create(name)
        assert volumes.fill(name, root, f"/{name}")
        assert [path.name for path in volumes.path(name).iterdir()] == ["mine"]
    for name in ("file", "missing"):
        volumes.create(name)
        assert not volumes.fill(name, root, f"/{name}")


def test_options_are_mounted_while_in_use(volumes: Volumes, tmp_path: Path) -> None:
    volumes.create("ram", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,nosuid"})
    with pytest.raises(InvalidArgument, match="missing required option"):
        volumes.create("x1", options={"type": "tmpfs"})
    for _ in range(2):
        path = volumes.mount("ram", user="one")
    mounted = Path("/proc/self/mounts").read_text().splitlines()
    (line,) = [line for line in mounted if f" {path} " in line]
    assert line.startswith("tmpfs ")
    assert "nosuid" in line
    assert "size=1024k" in line
    volumes.release("ram", user="one")
    assert not os.path.ismount(path)
    volumes.mount("ram", user="one")
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept").touch()
    volumes.create("bound", options={"type": "none", "device": str(other), "o": "bind"})
    assert (volumes.mount("bound", user="one") / "kept").exists()
    for name in ("bound", "ram"):
        with pytest.raises(Conflict, match=r"volume is in use - \[one\]"):
            volumes.remove(name)
        volumes.release(name, user="one")
        volumes.remove(name)
    assert (other / "kept").exists()


SCRIPT = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from estiba.store import Store
    from estiba.store.events import EventBus
    from estiba.volumes.volumes import Volumes
    root = Path(sys.argv[1])
    volumes = Volumes(root / "volumes", Store.open(root / "estiba.db", EventBus()))
    volumes.start()
    volumes.create("data")
    volumes.fill("data", root, "/image")
    volumes.remove("data")
    """
)


@pytest.mark.parametrize(
    ("point", "exists"),
    [
        ("volumes.directory-made", True),
        ("volumes.copied", True),
        ("volumes.moved-one", True),
        ("volumes.moved-one#3", True),
        ("volumes.set-aside", False),
    ],
)
def test_killed_at_any_step(tmp_path: Path, image: Path, point: str, exists: bool) -> None:
    child = subprocess.run(
        [sys.executable, "-c", SCRIPT, os.fspath(tmp_path)],
        env={**os.environ, "ESTIBA_FAILPOINTS": f"{point}=kill"},
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    store = Store.open(tmp_path / "estiba.db", EventBus())
    volumes = Volumes(tmp_path / "volumes", store)
    volumes.start()
    assert [one.name for one in volumes.volumes()] == (["data"] if exists else [])
    volumes.create("data")
    fill(volumes, "data", image)
    names = sorted(path.name for path in volumes.path("data").iterdir())
    assert names == ["file", "link", "null", "pipe", "sub", "up"]
    assert sorted(path.name for path in (tmp_path / "volumes").iterdir()) == ["data"]
    assert sorted(path.name for path in (tmp_path / "volumes/data").iterdir()) == ["_data"]
    store.close()


def test_what_is_gone_takes_no_room(volumes: Volumes) -> None:
    for _ in range(50):
        name = volumes.create().name
        volumes.mount(name, user="one")
        volumes.release(name, user="one")
        volumes.remove(name)
    assert len(volumes._locks) == 0
    assert not volumes._users


def test_many_at_once_on_few_names(volumes: Volumes, tmp_path: Path) -> None:
    """Records and directories agree, whoever makes, uses and removes what at the same time."""
    failures: list[BaseException] = []

    def release(name: str, user: str) -> None:
        try:
            volumes.release(name, user=user)
        except BaseException as error:
            failures.append(error)

    def work(number: int) -> None:
        choices = random.Random(number)
        user = f"user{number}"
        for _ in range(60):
            name = f"vol{choices.randrange(3)}"
            try:
                volumes.create(name)
                (volumes.mount(name, user=user) / user).touch()
                volumes.release(name, user=user)
                volumes.remove(name)
            except (Conflict, NotFound):
                release(name, user)
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    known = sorted(record.name for record in volumes.volumes())
    assert sorted(path.name for path in (tmp_path / "volumes").iterdir()) == known
    for name in known:
        volumes.remove(name)
    assert len(volumes._locks) == 0
