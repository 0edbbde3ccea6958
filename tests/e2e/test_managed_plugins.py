"""Plugins that the engine runs itself, through the stock docker client."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.leaks import HostState, assert_clean
from tests.support.plugins.tree import add_program, plugin_tree
from tests.support.registries import GenuineRegistry, genuine_registry
from tests.support.registry import OwnRegistry

from estiba.kernel.pidfd import identify, is_alive

pytestmark = pytest.mark.e2e

NAME = "test/vol:latest"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plugin_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture
def plugged(daemon: PrivateDaemon, tree: Path) -> Iterator[PrivateDaemon]:
    """The module's daemon with the plugin made, and nothing of it afterwards."""
    before = HostState.read(only=daemon.tag)
    daemon.docker("plugin", "create", "test/vol", str(tree))
    yield daemon
    for volume in daemon.request("GET", "/volumes")[1]["Volumes"]:
        daemon.docker("volume", "rm", "-f", volume["Name"])
    for plugin in daemon.request("GET", "/plugins")[1]:
        daemon.docker("plugin", "rm", "-f", plugin["Id"])
    assert list((daemon.data_root / "plugins/content").iterdir()) == []
    assert list((daemon.data_root / "plugins/mounts").iterdir()) == []
    assert pids_of(daemon) == []
    assert_clean(before, only=daemon.tag)


def inspect(daemon: PrivateDaemon, name: str = NAME) -> dict[str, Any]:
    return dict(json.loads(daemon.docker("plugin", "inspect", name).stdout)[0])


def pids_of(daemon: PrivateDaemon) -> list[int]:
    """Processes of plugins of that daemon: those in their groups."""
    found = set()
    group = f"estiba-test-{daemon.bridge}/plugin-*/cgroup.procs"
    root = Path("/sys/fs/cgroup")
    for path in (*root.glob(group), *root.glob(f"*/{group}")):
        with contextlib.suppress(FileNotFoundError):
            found |= {int(line) for line in path.read_text().split()}
    return sorted(found)


def root_of(daemon: PrivateDaemon) -> Path:
    """The root file system of the only plugin."""
    (place,) = (daemon.data_root / "plugins/content").iterdir()
    return place / "rootfs"


def calls(daemon: PrivateDaemon) -> list[str]:
    path = root_of(daemon) / "data/calls"
    return [json.loads(line)["method"] for line in path.read_text().splitlines()]


def test_a_plugin_is_made_switched_on_used_and_removed(plugged: PrivateDaemon) -> None:
    daemon = plugged
    listed = daemon.docker("plugin", "ls", "--format", "{{.Name}} {{.Description}} {{.Enabled}}")
    assert listed.stdout == b"test/vol:latest Volumes of the test false\n"
    done = daemon.docker("volume", "create", "-d", "test/vol", "early", check=False)
    assert b"not found" in done.stderr
    assert daemon.docker("plugin", "enable", "test/vol").stdout == b"test/vol\n"
    assert inspect(daemon)["Enabled"] is True
    again = daemon.docker("plugin", "enable", "test/vol", check=False)
    assert b"already enabled" in again.stderr
    daemon.docker("volume", "create", "-d", "test/vol", "kept")
    daemon.run("-v", "kept:/a", "busybox", "sh", "-c", "echo inside > /a/file")
    assert (root_of(daemon) / "data/volumes/kept/file").read_text() == "inside\n"
    assert daemon.run("-v", "kept:/a", "busybox", "cat", "/a/file") == "inside\n"
    assert "VolumeDriver.Unmount" in calls(daemon)
    for words in (("disable",), ("rm",)):
        done = daemon.docker("plugin", *words, "test/vol", check=False)
        assert b"plugin test/vol:latest is in use: volume kept" in done.stderr
    daemon.docker("volume", "rm", "kept")
    done = daemon.docker("plugin", "rm", "test/vol", check=False)
    assert b"plugin test/vol:latest is enabled" in done.stderr
    daemon.docker("plugin", "disable", "test/vol")
    assert pids_of(daemon) == []
    assert b"already disabled" in daemon.docker("plugin", "disable", NAME, check=False).stderr
    path = f"/events?since=1&until={time.time():.6f}&filters=%7B%22type%22%3A%5B%22plugin%22%5D%7D"
    events = daemon.request("GET", path, headers={"Accept": "text/plain"})[1]
    lines = events if isinstance(events, bytes) else json.dumps(events).encode()
    actions = [json.loads(line)["Action"] for line in lines.splitlines()]
    assert actions[-3:] == ["create", "enable", "disable"]
    daemon.docker("plugin", "rm", "test/vol")
    assert daemon.docker("plugin", "ls", "-q").stdout == b""


def test_filters(plugged: PrivateDaemon) -> None:
    def names(*filters: str) -> bytes:
        words = [word for one in filters for word in ("-f", one)]
        return plugged.docker("plugin", "ls", "--format", "{{.Name}}", *words).stdout

    assert names("enabled=false", "capability=volumedriver") == b"test/vol:latest\n"
    assert names("enabled=true") == names("capability=networkdriver") == b""
    done = plugged.docker("plugin", "ls", "-f", "colour=red", check=False)
    assert b"invalid filter 'colour'" in done.stderr


def test_settings_are_changed_while_it_is_off(plugged: PrivateDaemon) -> None:
    daemon = plugged
    daemon.docker("plugin", "set", "test/vol", "COLOUR=red", "args=two three")
    settings = inspect(daemon)["Settings"]
    assert "COLOUR=red" in settings["Env"]
    assert settings["Args"] == ["two", "three"]
    for words, answer in (
        ("FIXED=2", b'"FIXED" is not settable'),
        ("NOTHING=2", b"not found in the plugin configuration"),
        ("COLOUR.path=2", b'"COLOUR.path" is not settable'),
        ("=2", b"invalid format"),
    ):
        assert answer in daemon.docker("plugin", "set", NAME, words, check=False).stderr
    daemon.docker("plugin", "enable", NAME)
    (pid,) = pids_of(daemon)
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert b"COLOUR=red" in environment
    assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-3:-1] == [b"two", b"three"]
    done = daemon.docker("plugin", "set", NAME, "COLOUR=green", check=False)
    assert b"cannot set on an active plugin" in done.stderr


def test_it_runs_in_the_sandbox_of_containers(plugged: PrivateDaemon) -> None:
    plugged.docker("plugin", "enable", NAME)
    (pid,) = pids_of(plugged)
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "CapEff:\t00000000a80425fb" in status
    for kind in ("mnt", "pid", "net", "ipc", "uts"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    plugged.docker("plugin", "disable", "-f", NAME)


# -- the engine's life -------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_next_engine_takes_it_over(plugged: PrivateDaemon, number: int) -> None:
    daemon = plugged
    daemon.docker("plugin", "enable", NAME)
    daemon.docker("volume", "create", "-d", NAME, "kept")
    daemon.docker("run", "-d", "--name", "box", "-v", "kept:/a", "busybox", "sleep", "1000")
    (pid,) = pids_of(daemon)
    daemon.stop(number)
    assert is_alive(identify(pid))
    daemon.start()
    assert pids_of(daemon) == [pid]
    assert inspect(daemon)["Enabled"] is True
    daemon.docker("exec", "box", "touch", "/a/file")
    daemon.run("-v", "kept:/a", "busybox", "ls", "/a/file")
    daemon.docker("rm", "-f", "box")
    assert calls(daemon).count("VolumeDriver.Unmount") == calls(daemon).count("VolumeDriver.Mount")


def test_one_that_ends_is_started_again(plugged: PrivateDaemon) -> None:
    daemon = plugged
    daemon.docker("plugin", "enable", NAME)
    daemon.docker("volume", "create", "-d", NAME, "kept")
    for engine_runs in (True, False):
        (pid,) = pids_of(daemon)
        if not engine_runs:
            daemon.kill9()
        os.kill(pid, signal.SIGKILL)
        if not engine_runs:
            wait_until(lambda: not pids_of(daemon), what="the plugin to end")
            daemon.start()
        wait_until(lambda old=pid: pids_of(daemon) not in ([old], []), what="another process")
        wait_until(lambda: is_serving(daemon), what="the plugin to serve")


def is_serving(daemon: PrivateDaemon) -> bool:
    words = ("run", "--rm", "-v", "kept:/a", "busybox", "true")
    return daemon.docker(*words, check=False).returncode == 0


def test_one_that_the_engine_switched_off_while_dying_does_not_run(plugged: PrivateDaemon) -> None:
    plugged.docker("plugin", "enable", NAME)
    plugged.restart({"ESTIBA_FAILPOINTS": "managed.switched-off=kill"})
    plugged.docker("plugin", "disable", NAME, check=False)
    plugged.wait_death()
    assert len(pids_of(plugged)) == 1
    plugged.start()
    assert pids_of(plugged) == []
    assert inspect(plugged)["Enabled"] is False


@pytest.mark.parametrize("point", ["launched", "started"])
def test_an_engine_killed_while_it_switches_on(plugged: PrivateDaemon, point: str) -> None:
    plugged.restart({"ESTIBA_FAILPOINTS": f"managed.{point}=kill"})
    plugged.docker("plugin", "enable", NAME, check=False)
    plugged.wait_death()
    plugged.start()
    assert pids_of(plugged) == []
    assert inspect(plugged)["Enabled"] is False
    plugged.docker("plugin", "enable", NAME)
    plugged.docker("plugin", "disable", NAME)


def test_an_engine_killed_while_it_removes(plugged: PrivateDaemon) -> None:
    plugged.restart({"ESTIBA_FAILPOINTS": "managed.forgotten=kill"})
    plugged.docker("plugin", "rm", NAME, check=False)
    plugged.wait_death()
    plugged.start()
    assert plugged.docker("plugin", "ls", "-q").stdout == b""
    assert list((plugged.data_root / "plugins/content").iterdir()) == []


# -- rights ------------------------------------------------------------------------------------


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
            "import os; os.symlink('/run/docker.sock', os.environ['PLUGIN_SOCKET']);"
            "import time; time.sleep(1000)",
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


# -- registries --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["own", "genuine"])
def registry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    root = tmp_path_factory.mktemp("registry")
    if request.param == "own":
        with OwnRegistry(root / "store") as own:
            yield own.host
        return
    if not GenuineRegistry.is_installed():
        pytest.skip("needs docker-registry")
    with genuine_registry(root / "store") as genuine:
        yield genuine.host


def test_a_plugin_travels_through_a_registry(
    daemon: PrivateDaemon, registry: str, tmp_path: Path
) -> None:
    tree = plugin_tree(tmp_path, network={"type": "host"}, linux={"capabilities": ["CAP_SYSLOG"]})
    name = f"{registry}/team/vol:1"
    daemon.docker("plugin", "create", name, str(tree))
    assert b"digest: sha256:" in daemon.docker("plugin", "push", name).stdout
    again = daemon.docker("plugin", "push", name).stdout
    assert b"Layer already exists" in again
    daemon.docker("plugin", "rm", name)
    refused = daemon.docker("plugin", "install", name, stdin=b"n\n", check=False)
    assert refused.returncode == 1
    assert b" - network: [host]" in refused.stdout
    assert b" - capabilities: [CAP_SYSLOG]" in refused.stdout
    assert daemon.docker("plugin", "ls", "-q").stdout == b""
    installed = daemon.docker(
        "plugin", "install", "--alias", "mine", "--grant-all-permissions", name, "COLOUR=red"
    )
    assert f"Installed plugin {name}".encode() in installed.stdout
    view = inspect(daemon, "mine")
    assert (view["Name"], view["PluginReference"], view["Enabled"]) == ("mine:latest", name, True)
    assert "COLOUR=red" in view["Settings"]["Env"]
    (pid,) = pids_of(daemon)
    assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    daemon.docker("volume", "create", "-d", "mine", "vol")
    daemon.run("-v", "vol:/a", "busybox", "touch", "/a/x")
    daemon.docker("volume", "rm", "vol")
    done = daemon.docker("plugin", "upgrade", "mine", check=False)
    assert b"must be disabled" in done.stderr
    daemon.docker("plugin", "disable", "mine")
    daemon.docker("plugin", "upgrade", "--grant-all-permissions", "mine")
    assert "COLOUR=red" in inspect(daemon, "mine")["Settings"]["Env"]
    daemon.docker("plugin", "enable", "mine")
    daemon.docker("plugin", "rm", "-f", "mine")
    assert pids_of(daemon) == []


def test_privileges_are_granted_exactly(
    daemon: PrivateDaemon, registry: str, tmp_path: Path
) -> None:
    tree = plugin_tree(tmp_path, linux={"capabilities": ["CAP_SYSLOG"]})
    name = f"{registry}/team/wants:1"
    daemon.docker("plugin", "create", name, str(tree))
    daemon.docker("plugin", "push", name)
    daemon.docker("plugin", "rm", name)
    status, needed = daemon.request("GET", f"/plugins/privileges?remote={name}")
    assert status == 200
    assert [one["Name"] for one in needed] == ["capabilities"]
    more = [*needed, {"Name": "network", "Description": "x", "Value": ["host"]}]
    for granted in ([], more, [{**needed[0], "Value": ["CAP_SYS_ADMIN"]}]):
        status, answer = daemon.request("POST", f"/plugins/pull?remote={name}", granted)
        assert status == 400, answer
        assert "incorrect privileges" in answer["message"]
    assert daemon.request("GET", "/plugins")[1] == []


def test_what_a_registry_has_not(daemon: PrivateDaemon, registry: str) -> None:
    done = daemon.docker(
        "plugin", "install", "--grant-all-permissions", f"{registry}/team/none", check=False
    )
    assert done.returncode == 1
    daemon.docker("tag", "busybox", f"{registry}/team/image:1")
    daemon.docker("push", f"{registry}/team/image:1")
    done = daemon.docker(
        "plugin", "install", "--grant-all-permissions", f"{registry}/team/image:1", check=False
    )
    assert b"did not find plugin config" in done.stderr
    daemon.docker("rmi", f"{registry}/team/image:1")
    assert list((daemon.data_root / "plugins/content").iterdir()) == []


def test_an_engine_killed_in_a_pull_leaves_nothing(
    make_daemon: Callable[..., PrivateDaemon], tmp_path: Path, tree: Path
) -> None:
    daemon = make_daemon()
    daemon.start({"ESTIBA_FAILPOINTS": "managed.fetched=kill"})
    with OwnRegistry(tmp_path / "registry") as own:
        name = f"{own.host}/team/vol:1"
        daemon.docker("plugin", "create", name, str(tree))
        daemon.docker("plugin", "push", name)
        daemon.docker("plugin", "rm", name)
        daemon.docker("plugin", "install", "--grant-all-permissions", name, check=False)
        daemon.wait_death()
        assert len(list((daemon.data_root / "plugins/content").iterdir())) == 1
        daemon.start()
        assert list((daemon.data_root / "plugins/content").iterdir()) == []
        daemon.docker("plugin", "install", "--disable", "--grant-all-permissions", name)
        assert inspect(daemon, name)["Enabled"] is False


# -- the client of ours ------------------------------------------------------------------------


def test_estiba_has_dockers_words(plugged: PrivateDaemon, tmp_path: Path) -> None:
    daemon = plugged

    def estiba(*words: str, stdin: bytes = b"", code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "estiba.cli.main", *words],
            input=stdin, capture_output=True, env=daemon.client_environment(), check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr.decode()
        return done.stdout.decode() + done.stderr.decode()

    assert estiba("plugin", "ls") == daemon.docker("plugin", "ls").stdout.decode()
    form = "{{json .}}"
    assert (
        estiba("plugin", "ls", "--no-trunc", "--format", form)
        == daemon.docker("plugin", "ls", "--no-trunc", "--format", form).stdout.decode()
    )
    assert (
        estiba("plugin", "inspect", NAME)
        == daemon.docker("plugin", "inspect", NAME).stdout.decode()
    )
    assert estiba("plugin", "set", NAME, "COLOUR=red") == ""
    assert estiba("plugin", "enable", NAME) == f"{NAME}\n"
    assert "already enabled" in estiba("plugin", "enable", NAME, code=1)
    assert estiba("plugin", "disable", NAME) == f"{NAME}\n"
    tree = plugin_tree(tmp_path / "tree", linux={"capabilities": ["CAP_SYSLOG"]})
    with OwnRegistry(tmp_path / "registry") as own:
        name = f"{own.host}/team/vol:1"
        assert estiba("plugin", "create", "--compress", name, str(tree)) == f"{name}\n"
        assert "digest: sha256:" in estiba("plugin", "push", name)
        assert estiba("plugin", "rm", name) == f"{name}\n"
        told = estiba("plugin", "install", name, stdin=b"\n", code=1)
        assert " - capabilities: [CAP_SYSLOG]" in told
        assert "permission denied while installing plugin" in told
        told = estiba("plugin", "install", "--disable", name, stdin=b"y\n")
        assert told.endswith(f"Installed plugin {name}\n")
        told = estiba("plugin", "upgrade", "--grant-all-permissions", name)
        assert told.endswith(f"Upgraded plugin {name} to {name}\n")
    assert estiba("plugin", "rm", "-f", name) == f"{name}\n"


def test_a_managed_plugin_makes_networks(daemon: PrivateDaemon, tmp_path: Path) -> None:
    """In the host's network namespace and with the right to change it, as it asked for."""
    tag, subnet = f"m{secrets.token_hex(2)}", f"10.{190 + secrets.randbelow(9)}"
    tree = plugin_tree(
        tmp_path,
        "network",
        interface={
            "socket": "net.sock",
            "types": ["docker.networkdriver/1.0", "docker.ipamdriver/1.0"],
        },
        network={"type": "host"},
        linux={"capabilities": ["CAP_NET_ADMIN"]},
        env=[
            {"name": "PLUGIN_SOCKET", "value": "/run/docker/plugins/net.sock"},
            {"name": "PLUGIN_ROOT", "value": "/data"},
            {"name": "PLUGIN_TAG", "value": tag},
            {"name": "PLUGIN_SUBNET", "value": subnet},
        ],
    )
    add_program(tree / "rootfs", Path(shutil.which("ip") or "/sbin/ip"))
    daemon.docker("plugin", "create", "test/net", str(tree))
    daemon.docker("plugin", "enable", "test/net")
    try:
        daemon.docker("network", "create", "-d", "test/net", "--ipam-driver", "test/net", "blue")
        view = json.loads(daemon.docker("network", "inspect", "blue").stdout)[0]
        assert (view["Driver"], view["IPAM"]["Driver"]) == ("test/net:latest",) * 2
        daemon.docker("run", "-d", "--name", "one", "--network", "blue", "busybox", "sleep", "99")
        answer = daemon.run("--network", "blue", "busybox", "ping", "-c", "1", f"{subnet}.1.50")
        assert "1 packets received" in answer
        done = daemon.docker("plugin", "disable", "test/net", check=False)
        assert b"is in use: network blue" in done.stderr
        daemon.docker("rm", "-f", "one")
        daemon.docker("network", "rm", "blue")
        state = json.loads((root_of(daemon) / "data/state").read_text())
        assert not any(state.values())
    finally:
        daemon.docker("rm", "-f", "one", check=False)
        daemon.docker("network", "rm", "blue", check=False)
        daemon.docker("plugin", "rm", "-f", "test/net")
    assert not [name for _, name in socket.if_nameindex() if name.startswith(tag)]


def test_after_a_reboot_containers_find_their_volumes(plugged: PrivateDaemon) -> None:
    """All processes are gone at once; the plugin is there before the containers start again."""
    daemon = plugged
    daemon.docker("plugin", "enable", NAME)
    daemon.docker("volume", "create", "-d", NAME, "kept")
    daemon.docker("run", "-d", "--name", "box", "--restart", "always", "-v", "kept:/a",
                  "busybox", "sh", "-c", "echo again >> /a/log; sleep 1000")  # fmt: skip
    log = root_of(daemon) / "data/volumes/kept/log"
    wait_until(lambda: log.exists(), what="the first run")
    (pid,) = pids_of(daemon)
    daemon.kill9()
    for victim in (pid, container_pid(daemon)):
        os.kill(victim, signal.SIGKILL)
    daemon.start()
    wait_until(lambda: log.read_text() == "again\nagain\n", what="the second run")
    daemon.docker("rm", "-f", "box")


def container_pid(daemon: PrivateDaemon) -> int:
    """Of the only container, which no engine watches now."""
    group = f"estiba-test-{daemon.bridge}/*/cgroup.procs"
    root = Path("/sys/fs/cgroup")
    for path in (*root.glob(group), *root.glob(f"*/{group}")):
        if not path.parent.name.startswith("plugin-") and path.read_text():
            return int(path.read_text().split()[0])
    raise AssertionError("the container does not run")
