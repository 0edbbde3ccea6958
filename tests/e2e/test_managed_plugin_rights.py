"""What managed plugins may do, and archives that mean harm."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon
from tests.support.leaks import HostState, assert_clean
from tests.support.plugins.managed import inspect, pids_of
from tests.support.plugins.tree import plugin_tree

pytestmark = pytest.mark.e2e


def test_mounts_that_it_makes_are_seen_by_host_and_containers(
    daemon: PrivateDaemon, tmp_path: Path
) -> None:
    """A volume driver that mounts, as most do, with the capability that it asks for."""
    tree = plugin_tree(
        tmp_path,
        propagatedMount="/data/volumes",
        linux={"capabilities": ["CAP_SYS_ADMIN"]},
    )
    program = tree / "rootfs/volumes.py"
    program.write_text(
        program.read_text().replace(
            '    os.makedirs(place(arguments["Name"]), exist_ok=True)\n',
            '    os.makedirs(place(arguments["Name"]), exist_ok=True)\n'
            "    import ctypes\n"
            "    libc = ctypes.CDLL(None, use_errno=True)\n"
            "    target = place(arguments['Name']).encode()\n"
            "    if libc.mount(b'ram', target, b'tmpfs', 0, b'size=1m'):\n"
            "        return {'Err': os.strerror(ctypes.get_errno())}\n",
        )
    )
    library = next((tree / "rootfs").glob("**/json")).parent
    shutil.copytree(Path(sys.modules["ctypes"].__file__ or "").parent if "ctypes" in sys.modules
                    else Path(os.__file__).parent / "ctypes", library / "ctypes")  # fmt: skip
    daemon.docker("plugin", "create", "test/mounting", str(tree))
    daemon.docker("plugin", "enable", "test/mounting")
    try:
        daemon.docker("volume", "create", "-d", "test/mounting", "ram")
        place = next((daemon.data_root / "plugins/mounts").iterdir()) / "ram"
        assert os.path.ismount(place)
        shown = daemon.run("-v", "ram:/a", "busybox", "sh", "-c", "touch /a/x; df /a")
        assert "ram" in shown
        assert (place / "x").exists()
        daemon.docker("volume", "rm", "ram")
    finally:
        daemon.docker("plugin", "rm", "-f", "test/mounting")
    assert list((daemon.data_root / "plugins/mounts").iterdir()) == []


def test_what_it_says_of_paths_stays_in_its_own_root(daemon: PrivateDaemon, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_text("of the host")
    tree = plugin_tree(tmp_path / "tree")
    (tree / "rootfs/out").symlink_to(tmp_path / "secret")
    program = tree / "rootfs/volumes.py"
    text = program.read_text()
    program.write_text(
        text.replace(
            'return {"Mountpoint": place(arguments["Name"])}',
            'return {"Mountpoint": os.environ["COLOUR"]}',
        )
    )
    daemon.docker("plugin", "create", "test/liar", str(tree))
    try:
        for told in ("/out", f"/../../../../../../../..{tmp_path}/secret", "/none", "relative"):
            daemon.docker("plugin", "set", "test/liar", f"COLOUR={told}")
            daemon.docker("plugin", "enable", "test/liar")
            daemon.docker("volume", "create", "-d", "test/liar", "lie")
            done = daemon.docker(
                "run", "--rm", "-v", "lie:/a", "busybox", "cat", "/a/file", check=False
            )
            assert b"of the host" not in done.stdout, told
            assert done.returncode != 0
            daemon.docker("volume", "rm", "-f", "lie")
            daemon.docker("plugin", "disable", "-f", "test/liar")
    finally:
        daemon.docker("plugin", "rm", "-f", "test/liar")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit('no luck')", b"ended at once: no luck"),
        (
            "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]);"
            "os.symlink('/run/docker.sock', os.environ['PLUGIN_SOCKET']);"
            "signal.sigwait([signal.SIGTERM])",
            b"made no socket",
        ),
    ],
)
def test_one_that_does_not_come_up(
    daemon: PrivateDaemon, tree: Path, tmp_path: Path, program: str, words: bytes
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(tree, bad, symlinks=True)
    (bad / "rootfs/volumes.py").write_text(program)
    before = HostState.read(only=daemon.tag)
    daemon.docker("plugin", "create", "test/bad", str(bad))
    try:
        done = daemon.docker("plugin", "enable", "test/bad", check=False)
        assert words in done.stderr
        assert inspect(daemon, "test/bad")["Enabled"] is False
        assert pids_of(daemon) == []
    finally:
        daemon.docker("plugin", "rm", "-f", "test/bad")
    assert_clean(before, only=daemon.tag)


# -- hostile archives --------------------------------------------------------------------------


def archive(config: bytes | None, *members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        if config is not None:
            info = tarfile.TarInfo("config.json")
            info.size = len(config)
            tar.addfile(info, io.BytesIO(config))
        for info, data in members:
            info.size = len(data) if info.isfile() else 0
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[Any, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b"data" if kind == tarfile.REGTYPE else b""


GOOD = {"entrypoint": ["/x"], "interface": {"socket": "x.sock", "types": []}}
ROOT = entry("rootfs", tarfile.DIRTYPE)


def changed(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"no tar at all" * 100, "tar"),
        (archive(None, ROOT), "config not found"),
        (archive(changed()), "no rootfs found"),
        (archive(b"[" * 100_000, ROOT), "config.json"),
        (archive(b"{}", ROOT), "no entrypoint"),
        (archive(b" " * (2 << 20), ROOT), "larger than"),
        (archive(changed(interface={"socket": "../../x", "types": []}), ROOT), "no file name"),
        (archive(changed(interface={"socket": 7}), ROOT), "failed to parse"),
        (archive(changed(network={"type": "container:x"}), ROOT), "network type"),
        (archive(changed(propagatedMount="/"), ROOT), "propagatedMount"),
        (archive(changed(propagatedMount="/a/../.."), ROOT), "propagatedMount"),
        (
            archive(changed(mounts=[{"type": "overlay", "destination": "/x"}]), ROOT),
            "mount type",
        ),
        (
            archive(changed(mounts=[{"type": "bind", "destination": "/", "source": "/"}]), ROOT),
            "destination",
        ),
        (archive(changed(linux={"capabilities": ["ALL; rm"]}), ROOT), "capability"),
        (archive(changed(env=[{"name": "A=B", "value": "x"}]), ROOT), "usable name"),
        (archive(changed(entrypoint=["/x"] * 1000), ROOT), "more than 128"),
    ],
)
def test_archives_that_are_no_plugins(daemon: PrivateDaemon, body: bytes, words: str) -> None:
    headers = {"Content-Type": "application/x-tar"}
    status, answer = daemon.request("POST", "/plugins/create?name=bad/one", body, headers)
    assert status in (400, 413), answer
    assert words in answer["message"]
    assert daemon.request("GET", "/plugins")[1] == []
    assert list((daemon.data_root / "plugins/content").iterdir()) == []


def test_an_archive_cannot_reach_out_of_its_root(daemon: PrivateDaemon, tmp_path: Path) -> None:
    body = archive(
        changed(),
        ROOT,
        entry("rootfs/../../../escaped"),
        entry("/rootfs/absolute"),
        entry("rootfs/link", tarfile.SYMTYPE, str(tmp_path)),
        entry("rootfs/link/through"),
        entry("rootfs/hard", tarfile.LNKTYPE, "rootfs/../../../etc/passwd"),
    )
    headers = {"Content-Type": "application/x-tar"}
    status, answer = daemon.request("POST", "/plugins/create?name=bad/one", body, headers)
    assert status in (204, 400), answer
    assert list(tmp_path.iterdir()) == []
    if status == 204:
        assert not (daemon.data_root / "escaped").exists()
        daemon.docker("plugin", "rm", "bad/one")
    assert list((daemon.data_root / "plugins/content").iterdir()) == []
