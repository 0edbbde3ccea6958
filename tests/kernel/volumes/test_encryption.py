"""`--opt encrypted`: unreadable without the key, on the disk and in the kernel."""

from __future__ import annotations

import os
import secrets
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import wait_until
from tests.support.disks import ext4
from tests.support.leaks import HostState
from tests.support.stored import killed, opened

from estiba.kernel import fscrypt
from estiba.kernel.mounts import mount, unmount
from estiba.model.errors import DataLoss, FailedPrecondition, InvalidArgument
from estiba.volumes.volumes import Volumes

pytestmark = pytest.mark.kernel

PLAIN = b"the plain text of a secret file"
NAME = "a-name-that-tells"
SIZED = {"encrypted": "", "size": "16m"}
KINDS = {
    "fscrypt": SIZED,
    "gocryptfs": {"encrypted": "gocryptfs"},
    "gocryptfs in a disk": {"encrypted": "gocryptfs", "size": "32m"},
}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(secrets.token_bytes(64))
    path.chmod(0o600)
    return path


def with_key(options: dict[str, str], key: Path) -> dict[str, str]:
    return {**options, "key-file": str(key)}


def on_disk(root: Path, words: bytes) -> bool:
    """Whether any file below, or any name, holds the words."""
    for folder, names, files in os.walk(root):
        if any(words in os.fsencode(name) for name in names + files):
            return True
        for name in files:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and words in path.read_bytes():
                return True
    return False


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_nothing_is_readable_on_the_disk(
    volumes: Volumes, tmp_path: Path, key: Path, options: dict[str, str]
) -> None:
    volumes.create("vault", options=with_key(options, key))
    data = volumes.mount("vault", user="one")
    (data / NAME).write_bytes(PLAIN * 1000)
    (data / NAME).chmod(0o640)
    os.chown(data / NAME, 7, 8)
    os.setxattr(data / NAME, "user.note", b"kept")
    (data / "link").symlink_to(NAME)
    os.link(data / NAME, data / "same")
    volumes.release("vault", user="one")
    for words in (PLAIN, NAME.encode(), key.read_bytes()):
        assert not on_disk(tmp_path / "volumes", words)
    assert list(data.iterdir()) == []
    data = volumes.mount("vault", user="two")
    assert (data / "link").read_bytes() == PLAIN * 1000
    status = (data / "same").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 7, 8)
    assert os.getxattr(data / NAME, "user.note") == b"kept"
    assert status.st_ino == (data / NAME).stat().st_ino
    volumes.release("vault", user="two")
    volumes.remove("vault")
    assert key.exists(), "an administrator's key is his own"


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_wrong_key_changes_nothing(volumes: Volumes, key: Path, options: dict[str, str]) -> None:
    volumes.create("vault", options=with_key(options, key))
    (volumes.mount("vault", user="one") / "file").write_bytes(PLAIN)
    volumes.release("vault", user="one")
    right = key.read_bytes()
    key.write_bytes(secrets.token_bytes(64))
    with pytest.raises(FailedPrecondition, match="not the one that the volume was made with"):
        volumes.mount("vault", user="one")
    assert not os.path.ismount(volumes.path("vault"))
    key.unlink()
    with pytest.raises(FailedPrecondition, match=f"cannot read the key file {key}: No such file"):
        volumes.mount("vault", user="one")
    key.write_bytes(right)
    key.chmod(0o640)
    with pytest.raises(FailedPrecondition, match="others than root may read"):
        volumes.mount("vault", user="one")
    key.chmod(0o400)
    assert (volumes.mount("vault", user="one") / "file").read_bytes() == PLAIN
    volumes.release("vault", user="one")


def test_a_config_that_is_lost_loses_no_more(volumes: Volumes, tmp_path: Path) -> None:
    volumes.create("vault", options={"encrypted": "gocryptfs"})
    (volumes.mount("vault", user="one") / "file").write_bytes(PLAIN)
    volumes.release("vault", user="one")
    cipher = tmp_path / "volumes/vault/_cipher"
    before = sorted(cipher.iterdir())
    aside = (cipher / "gocryptfs.conf").rename(tmp_path / "aside")
    with pytest.raises(DataLoss, match=r"gocryptfs\.conf is gone.*bring it back"):
        volumes.mount("vault", user="one")
    aside.rename(cipher / "gocryptfs.conf")
    assert sorted(cipher.iterdir()) == before
    assert (volumes.mount("vault", user="one") / "file").read_bytes() == PLAIN
    volumes.release("vault", user="one")


def test_keys_that_are_no_keys(volumes: Volumes, tmp_path: Path, key: Path) -> None:
    key.write_bytes(b"password")
    with pytest.raises(FailedPrecondition, match="holds 8 bytes, fewer than 32"):
        volumes.create("vault", options=with_key(SIZED, key))
    os.chown(key, 1, 0)
    with pytest.raises(FailedPrecondition, match="others than root"):
        volumes.create("vault", options=with_key(SIZED, key))
    link = tmp_path / "link"
    link.symlink_to(key)
    with pytest.raises(FailedPrecondition, match="cannot read the key file"):
        volumes.create("vault", options=with_key(SIZED, link))
    for options, words in (
        ({"encrypted": "rot13"}, "use one of fscrypt, gocryptfs"),
        ({"size": "16m", "key-file": "/key"}, "a key is for an encrypted volume"),
        ({"encrypted": "", "key": "hunter2"}, "expected keyring:NAME"),
        ({"encrypted": "", "key-file": "key"}, "absolute path"),
        ({"encrypted": "", "key-file": "/k", "key": "keyring:k"}, "not both"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            volumes.create("vault", options=options)
    assert volumes.volumes() == []
    assert list((tmp_path / "volumes").iterdir()) == [], "nothing half made stays"


def test_a_generated_key_is_told_and_goes_with_the_volume(volumes: Volumes, tmp_path: Path) -> None:
    volumes.create("vault", options=SIZED)
    (path,) = (tmp_path / "keys").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert volumes.local.get("vault").status["Key"] == f"file {path}"
    (volumes.mount("vault", user="one") / "file").write_bytes(PLAIN)
    assert volumes.local.get("vault").status["Encryption"] == "fscrypt"
    volumes.release("vault", user="one")
    aside = path.rename(tmp_path / "aside")
    with pytest.raises(FailedPrecondition, match="cannot read the key file"):
        volumes.mount("vault", user="one")
    aside.rename(path)
    volumes.remove("vault")
    assert not path.exists()


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_one_deleted_by_hand_is_made_anew(
    volumes: Volumes, options: dict[str, str], held: bool
) -> None:
    """With a new key; what is mounted while `rm -rf` goes over it stays as empty directories."""
    volumes.create("vault", options=options)
    data = volumes.mount("vault", user="one")
    (data / "file").write_text("lost")
    if not held:
        volumes.release("vault", user="one")
    subprocess.run(["rm", "-rf", volumes.local.directory("vault")], check=False)
    if held:
        volumes.release("vault", user="one")
    assert volumes.mount("vault", user="two") == data
    assert list(data.iterdir()) == []
    (data / "file").write_text("new")
    volumes.release("vault", user="two")
    assert volumes.local.noted_options("vault") == options
    assert (volumes.mount("vault", user="three") / "file").read_text() == "new"
    volumes.release("vault", user="three")
    volumes.remove("vault")


def test_the_key_is_nowhere_but_in_its_place(volumes: Volumes, tmp_path: Path, key: Path) -> None:
    volumes.create("vault", options=with_key({"encrypted": "gocryptfs"}, key))
    volumes.mount("vault", user="one")
    for pid in (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        try:
            told = (pid / "cmdline").read_bytes() + (pid / "environ").read_bytes()
        except OSError:
            continue
        assert key.read_bytes() not in told
        assert key.read_bytes().hex().encode() not in told
    assert key.read_bytes() not in (tmp_path / "estiba.db").read_bytes()
    assert key.read_bytes() not in (tmp_path / "estiba.db-wal").read_bytes()
    volumes.release("vault", user="one")


def test_a_key_of_the_keyring(volumes: Volumes) -> None:
    name = f"estiba-test-{secrets.token_hex(4)}"
    options = {**SIZED, "key": f"keyring:{name}"}
    with pytest.raises(FailedPrecondition, match=f"key '{name}' is not in the kernel's keyring"):
        volumes.create("vault", options=options)
    number = subprocess.run(
        ["keyctl", "padd", "user", name, "@u"], input=bytes(range(64)), capture_output=True,
        check=True,
    ).stdout.strip()  # fmt: skip
    try:
        volumes.create("vault", options=options)
        (volumes.mount("vault", user="one") / "file").write_bytes(PLAIN)
        volumes.release("vault", user="one")
    finally:
        subprocess.run(["keyctl", "unlink", number, "@u"], check=True)
    with pytest.raises(FailedPrecondition, match="Required key not available"):
        volumes.mount("vault", user="one")
    volumes.remove("vault")


@pytest.fixture
def encrypting(tmp_path: Path) -> Iterator[Path]:
    """A root on a file system that offers fscrypt."""
    with ext4(tmp_path, 64 << 20, "-O", "encrypt") as root:
        yield root


def test_the_kernel_forgets_the_key_with_the_last_user(encrypting: Path) -> None:
    with opened(encrypting) as volumes:
        volumes.create("vault", options={"encrypted": ""})
        volumes.create("other", options={"encrypted": "fscrypt"})
        for name in ("vault", "other"):
            (volumes.mount(name, user="one") / NAME).write_bytes(PLAIN)
        data = volumes.mount("vault", user="two")
        tree = encrypting / "volumes/vault/_tree"
        place, fd = fscrypt.open_place(encrypting), fscrypt.open_place(tree)
        identifier = fscrypt.policy_of(fd)
        os.close(fd)
        assert identifier
        volumes.release("vault", user="one")
        assert fscrypt.has_key(place, identifier)
        assert (data / NAME).read_bytes() == PLAIN
        volumes.release("vault", user="two")
        assert not fscrypt.has_key(place, identifier)
        assert not any(NAME in str(path) for path in tree.rglob("*"))
        assert (volumes.path("other") / NAME).read_bytes() == PLAIN, "each has a key of its own"
        volumes.release("other", user="one")
        os.close(place)
        for name in ("vault", "other"):
            volumes.remove(name)


def test_gocryptfs_ends_with_the_last_user_and_not_before(
    volumes: Volumes, tmp_path: Path, key: Path
) -> None:
    def servers() -> list[str]:
        found = HostState.read(only=str(tmp_path)).processes
        return [line for line in found if "gocryptfs" in line]

    volumes.create("vault", options=with_key({"encrypted": "gocryptfs"}, key))
    (volumes.mount("vault", user="one") / "file").write_bytes(PLAIN)
    (server,) = servers()
    pid = int(server.split()[0])
    assert Path(f"/proc/{pid}/stat").read_text().split(") ")[1].split()[1] == "1"
    volumes.mount("vault", user="two")
    assert len(servers()) == 1
    volumes.release("vault", user="one")
    assert servers() == [server]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not servers(), what="the server to die")
    assert (volumes.mount("vault", user="two") / "file").read_bytes() == PLAIN, "served again"
    volumes.release("vault", user="two")
    wait_until(lambda: not servers(), what="the server to end")


BODY = """
volumes.create("vault", options={options})
volumes.mount("vault", user="one").joinpath("file").write_text("kept")
volumes.release("vault", user="one")
"""


@pytest.mark.parametrize(
    ("point", "options"),
    [
        ("volumes.key-made", SIZED),
        ("volumes.disk-mounted", SIZED),
        ("volumes.salted", SIZED),
        ("volumes.disk-mounted#2", SIZED),
        ("volumes.key-added", SIZED),
        ("volumes.data-mounted", SIZED),
        ("volumes.key-made", KINDS["gocryptfs"]),
        ("volumes.data-mounted", KINDS["gocryptfs"]),
    ],
)
def test_killed_at_any_step(tmp_path: Path, point: str, options: dict[str, str]) -> None:
    assert killed(tmp_path, BODY.replace("{options}", repr(options)), point) == -signal.SIGKILL
    with opened(tmp_path) as volumes:
        assert not HostState.read(only=str(tmp_path)).mounts
        (record,) = volumes.volumes()
        assert record.options == options
        (volumes.mount("vault", user="two") / NAME).write_bytes(PLAIN)
        volumes.release("vault", user="two")
        assert not on_disk(tmp_path / "volumes", PLAIN)
        assert len(list((tmp_path / "keys").iterdir())) == 1
        volumes.remove("vault")
        assert list((tmp_path / "keys").iterdir()) == []
        assert list((tmp_path / "volumes").iterdir()) == []


def test_a_key_that_finds_no_room_is_left_nowhere(tmp_path: Path, volumes: Volumes) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    mount("tmpfs", keys, "tmpfs", data="size=8k")
    try:
        (keys / "others").write_bytes(bytes(8192))
        with pytest.raises(OSError, match="No space left"):
            volumes.create("vol", options=SIZED)
        assert [entry.name for entry in keys.iterdir()] == ["others"]
    finally:
        unmount(keys)
    assert volumes.volumes() == []
