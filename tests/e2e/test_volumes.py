"""All operations on volumes, through the API and the real docker client."""

from __future__ import annotations

import json
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, UnixConnection
from tests.support.dockerd import GenuineDockerd

pytestmark = pytest.mark.e2e


def create(daemon: PrivateDaemon, name: str, **more: Any) -> tuple[int, Any]:
    return daemon.request("POST", "/volumes/create", {"Name": name, **more})


def with_filters(path: str, **filters: list[str]) -> str:
    return f"{path}?filters={urllib.parse.quote(json.dumps(filters))}"


def listed(daemon: PrivateDaemon, **filters: list[str]) -> list[str]:
    status, answer = daemon.request("GET", with_filters("/volumes", **filters))
    assert status == 200, answer
    return sorted(view["Name"] for view in answer["Volumes"])


def events(daemon: PrivateDaemon, since: float) -> list[dict[str, Any]]:
    filters = urllib.parse.quote('{"type":["volume"]}')
    connection = UnixConnection(daemon.socket)
    query = f"since={since:.6f}&until={time.time():.6f}&filters={filters}"
    connection.request("GET", f"/events?{query}")
    content = connection.getresponse().read().decode()
    connection.close()
    return [json.loads(line) for line in content.splitlines()]


@pytest.fixture
def empty(daemon: PrivateDaemon) -> Iterator[PrivateDaemon]:
    yield daemon
    for view in daemon.request("GET", "/containers/json?all=1")[1]:
        daemon.request("DELETE", f"/containers/{view['Id']}?force=1&v=1")
    for view in daemon.request("GET", "/volumes")[1]["Volumes"]:
        assert daemon.request("DELETE", f"/volumes/{view['Name']}")[0] == 204


# -- create and inspect --------------------------------------------------------------------


def test_creating_twice_is_one_volume(empty: PrivateDaemon) -> None:
    status, first = create(empty, "data", Labels={"a": "b"})
    assert status == 201
    assert first == {
        "Name": "data",
        "Driver": "local",
        "Mountpoint": str(empty.data_root / "volumes/data/_data"),
        "CreatedAt": first["CreatedAt"],
        "Labels": {"a": "b"},
        "Scope": "local",
        "Options": None,
    }
    assert create(empty, "data", Labels={"other": "x"}) == (201, first)
    assert create(empty, "data", Driver="local") == (201, first)
    assert empty.request("GET", "/volumes/data") == (200, first)
    options = {"type": "tmpfs", "device": "tmpfs"}
    status, answer = create(empty, "data", DriverOpts=options)
    assert (status, "has other options" in answer["message"]) == (409, True)
    status, ram = create(empty, "ram", DriverOpts=options)
    assert (status, ram["Options"]) == (201, options)
    assert create(empty, "ram", DriverOpts=options) == (201, ram)


def test_a_nameless_one_goes_with_the_last_that_has_it(empty: PrivateDaemon) -> None:
    def volumes() -> int:
        return len(empty.request("GET", "/volumes")[1]["Volumes"] or [])

    empty.docker("create", "--name", "first", "-v", "/data", "busybox")
    for name in "second", "third":
        empty.docker("create", "--name", name, "--volumes-from", "first", "busybox")
    empty.docker("rm", "-v", "second")
    assert volumes() == 1
    empty.docker("rm", "first")
    assert volumes() == 1
    empty.docker("rm", "-v", "third")
    assert volumes() == 0


def test_a_nameless_one_is_anonymous(empty: PrivateDaemon) -> None:
    status, answer = create(empty, "")
    assert status == 201
    assert len(answer["Name"]) == 64
    assert answer["Labels"] == {"com.docker.volume.anonymous": ""}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"Name": "x"}, 400, "create x: volume name is too short"),
        ({"Name": "a/b"}, 400, 'create a/b: "a/b" includes invalid characters'),
        ({"Name": ".."}, 400, 'create ..: ".." includes invalid characters'),
        ({"Name": "../x"}, 400, "includes invalid characters"),
        ({"Name": "a\n"}, 400, "includes invalid characters"),
        ({"Name": "n" * 201}, 400, "volume name is too long, 200 characters at most"),
        ({"Name": "vol", "Driver": "no"}, 404, "create vol: error looking up volume plugin no: "),
        ({"Name": "vol", "DriverOpts": {"x": "1"}}, 400, 'create vol: invalid option: "x"'),
        ({"Name": "vol", "DriverOpts": {"o": "ro"}}, 400, "missing required option"),
        ({"Name": "vol", "DriverOpts": {"o": 1}}, 400, "invalid JSON"),
        ({"Name": "vol", "Labels": ["a"]}, 400, "invalid JSON"),
        ({"Name": "vol", "ClusterVolumeSpec": {}}, 503, "This node is not a swarm manager."),
    ],
)
def test_requests_that_make_no_sense(
    daemon: PrivateDaemon, body: dict[str, Any], status: int, message: str
) -> None:
    answered, answer = daemon.request("POST", "/volumes/create", body)
    assert answered == status, answer
    assert message in answer["message"]
    assert listed(daemon) == []


def test_an_update_needs_a_cluster(empty: PrivateDaemon) -> None:
    create(empty, "data")
    status, answer = empty.request("PUT", "/volumes/data?version=1", {})
    assert status == 503
    assert answer["message"] == (
        "volume update only valid for cluster volumes, but swarm is unavailable"
    )
    assert empty.request("PUT", "/volumes/none?version=1", {})[0] == 404
    done = empty.docker("volume", "update", "data", check=False)
    assert b"can only update cluster volumes" in done.stderr


# -- lists ---------------------------------------------------------------------------------


def test_filters_of_the_list(empty: PrivateDaemon) -> None:
    create(empty, "first", Labels={"tier": "db", "x": ""})
    create(empty, "second", Labels={"tier": "web"})
    create(empty, "third")
    empty.docker("create", "-v", "second:/v", "busybox")
    assert listed(empty) == ["first", "second", "third"]
    assert listed(empty, name=["ir"]) == ["first", "third"]
    assert listed(empty, name=["^(first|second)$"]) == ["first", "second"]
    assert listed(empty, name=["("]) == []
    assert listed(empty, name=["first", "third"]) == ["first", "third"]
    assert listed(empty, driver=["local"]) == ["first", "second", "third"]
    assert listed(empty, driver=["other"]) == []
    assert listed(empty, label=["tier"]) == ["first", "second"]
    assert listed(empty, label=["tier=db", "x"]) == ["first"]
    assert listed(empty, dangling=["true"]) == ["first", "third"]
    assert listed(empty, dangling=["0"]) == ["second"]
    assert listed(empty, dangling=["true"], label=["tier"]) == ["first"]
    for wrong in ({"dangling": ["maybe"]}, {"nonsense": ["1"]}):
        status, answer = empty.request("GET", with_filters("/volumes", **wrong))
        assert (status, "invalid filter" in answer["message"]) == (400, True)
    ls = empty.docker("volume", "ls", "--filter", "label=tier", "--format", "{{.Name}} {{.Labels}}")
    # The client prints labels in an order that changes with each run.
    first, second = sorted(ls.stdout.decode().splitlines())
    assert first in ("first tier=db,x=", "first x=,tier=db") and second == "second tier=web"


# -- removal -------------------------------------------------------------------------------


def test_a_volume_in_use_stays(empty: PrivateDaemon) -> None:
    create(empty, "used")
    container = empty.docker("create", "-v", "used:/v", "busybox").stdout.decode().strip()
    for query in ("", "?force=1"):
        status, answer = empty.request("DELETE", f"/volumes/used{query}")
        assert status == 409
        assert f"remove used: volume is in use - [{container}]" in answer["message"]
    empty.docker("rm", container)
    assert empty.request("DELETE", "/volumes/used")[0] == 204
    status, answer = empty.request("DELETE", "/volumes/used")
    assert (status, answer["message"]) == (404, "get used: no such volume")
    assert empty.request("DELETE", "/volumes/used?force=1")[0] == 204
    assert empty.docker("volume", "rm", "-f", "used").stdout == b"used\n"


def test_prune(empty: PrivateDaemon) -> None:
    """Anonymous ones by default; all on request and before API 1.42."""
    for name, labels in (("keep", {"keep": "1"}), ("named", {}), ("ram", {})):
        options = {"type": "tmpfs", "device": "tmpfs"} if name == "ram" else {}
        create(empty, name, Labels=labels, DriverOpts=options)
    _, nameless = create(empty, "")
    (Path(nameless["Mountpoint"]) / "file").write_bytes(bytes(5000))
    empty.docker("create", "-v", "/anon", "busybox")
    since = time.time()
    status, answer = empty.request("POST", "/volumes/prune")
    assert (status, answer) == (
        200, {"VolumesDeleted": [nameless["Name"]], "SpaceReclaimed": 5000},
    )  # fmt: skip
    happened = [(event["Action"], event["Actor"]) for event in events(empty, since)]
    assert happened == [
        ("destroy", {"ID": nameless["Name"], "Attributes": {"driver": "local"}}),
        ("prune", {"ID": "", "Attributes": {"reclaimed": "5000"}}),
    ]
    path = with_filters("/volumes/prune", **{"all": ["true"], "label!": ["keep"]})
    assert empty.request("POST", path)[1]["VolumesDeleted"] == ["named"]
    create(empty, "named")
    filters = with_filters("/v1.41/volumes/prune", label=["keep=1"])
    assert empty.request("POST", filters)[1]["VolumesDeleted"] == ["keep"]
    assert sorted(name for name in listed(empty) if len(name) < 64) == ["named", "ram"]
    for wrong in ({"until": ["1h"]}, {"dangling": ["1"]}, {"all": ["x"]}):
        assert empty.request("POST", with_filters("/volumes/prune", **wrong))[0] == 400
    done = empty.docker("volume", "prune", "-af")
    assert b"Deleted Volumes:\nnamed\n\nTotal reclaimed space: 0B\n" in done.stdout


# -- sizes, events, secrets ----------------------------------------------------------------


def test_sizes_and_links(empty: PrivateDaemon) -> None:
    create(empty, "data")
    create(empty, "ram", DriverOpts={"type": "tmpfs", "device": "tmpfs"})
    for command in ("dd if=/dev/zero of=/v/file bs=1000 count=7", "true"):
        empty.docker("run", "-v", "data:/v", "-v", "data:/w", "busybox", "sh", "-c", command)
    (view,) = empty.request("GET", "/system/df?type=volume")[1]["Volumes"]
    assert view["Name"] == "data"
    assert view["UsageData"] == {"Size": 7000, "RefCount": 2}
    assert b"data" in empty.docker("system", "df", "-v").stdout


def test_events(empty: PrivateDaemon) -> None:
    since = time.time()
    create(empty, "data", Labels={"a": "b"})
    arguments = ("--name", "user", "-v", "data:/v:ro", "busybox", "true")
    container = empty.docker("create", *arguments).stdout.decode().strip()
    empty.docker("start", "-a", "user")
    empty.docker("rm", "user")
    empty.docker("volume", "rm", "data")
    found = [(event["Action"], event["Actor"]["Attributes"]) for event in events(empty, since)]
    assert found == [
        ("create", {"driver": "local"}),
        (
            "mount",
            {
                "container": container,
                "destination": "/v",
                "driver": "local",
                "propagation": "",
                "read/write": "false",
            },
        ),
        ("unmount", {"container": container, "driver": "local"}),
        ("destroy", {"driver": "local"}),
    ]


def test_passwords_are_in_no_log_and_no_event(empty: PrivateDaemon) -> None:
    since = time.time()
    options = {"type": "cifs", "device": "//127.0.0.1/s", "o": "username=u,password=hunter2"}
    create(empty, "secret", DriverOpts=options)
    done = empty.docker("run", "--name", "user", "-v", "secret:/v", "busybox", "true", check=False)
    assert b"password=********" in done.stderr
    assert b"hunter2" not in done.stderr
    assert "hunter2" not in empty.log.read_text()
    assert "hunter2" not in json.dumps(events(empty, since))
    assert "hunter2" not in empty.inspect("user")["State"]["Error"]


def test_a_container_can_be_made_while_the_server_is_away(empty: PrivateDaemon) -> None:
    create(empty, "away", DriverOpts={"type": "nfs", "device": ":/x", "o": "addr=127.0.0.1"})
    empty.docker("create", "--name", "waits", "-v", "away:/v", "busybox", "true")
    done = empty.docker("start", "waits", check=False)
    assert b"this kernel has no file system 'nfs'" in done.stderr
    assert empty.inspect("waits")["State"]["Status"] == "created"


def test_a_volume_deleted_by_hand_is_made_anew(empty: PrivateDaemon) -> None:
    create(empty, "gone")
    data = empty.data_root / "volumes/gone/_data"
    empty.docker("create", "--name", "user", "-v", "gone:/v:nocopy", "busybox", "touch", "/v/new")
    data.rmdir()
    data.parent.rmdir()
    empty.docker("start", "-a", "user")
    assert (data / "new").exists()


# -- the genuine engine --------------------------------------------------------------------


def container(**host: Any) -> dict[str, Any]:
    return {"Image": "busybox", "HostConfig": host}


TMPFS = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
SAME: list[tuple[str, str, Any]] = [
    ("POST", "/volumes/create", {"Name": "data", "Labels": {"a": "b"}}),
    ("POST", "/volumes/create", {"Name": "data"}),
    ("POST", "/volumes/create", {"Name": "data", "Driver": "nope"}),
    ("POST", "/volumes/create", {"Name": "../data"}),
    ("POST", "/volumes/create", {"Name": "a/b"}),
    ("POST", "/volumes/create", {"Name": "x"}),
    ("POST", "/volumes/create", {"Name": "opt2", "DriverOpts": {"type": "tmpfs"}}),
    ("POST", "/volumes/create", {"Name": "opt3", "DriverOpts": {"device": "x"}}),
    ("POST", "/volumes/create", {"Name": "ram", "DriverOpts": TMPFS}),
    ("GET", "/volumes/data", None),
    ("GET", "/volumes/nope", None),
    ("GET", "/volumes/ram", None),
    ("GET", with_filters("/volumes", name=["^d.t"]), None),
    ("GET", with_filters("/volumes", driver=["x"]), None),
    ("GET", with_filters("/volumes", label=["a"]), None),
    ("GET", with_filters("/volumes", label=["a=c"]), None),
    ("GET", with_filters("/volumes", dangling=["false"]), None),
    ("POST", "/containers/create?name=c1", container(Binds=["data:/d"])),
    ("POST", "/containers/create?name=c2", container(VolumesFrom=["no"])),
    ("POST", "/containers/create?name=c3", container(VolumesFrom=[""])),
    ("POST", "/containers/create?name=c4", container(Mounts=[{"Type": "tmpfs", "Target": "t"}])),
    ("GET", with_filters("/volumes", dangling=["1"]), None),
    ("DELETE", "/volumes/nope", None),
    ("DELETE", "/volumes/nope?force=1", None),
    ("POST", with_filters("/volumes/prune", label=["zz"]), None),
    ("DELETE", "/containers/c1?force=1&v=1", None),
    ("GET", "/system/df", None),
    ("POST", "/volumes/prune", None),
    ("GET", "/volumes", None),
]  # fmt: skip


@pytest.mark.skipif(not GenuineDockerd.is_installed(), reason="needs Debian's docker.io")
def test_docker_answers_the_same(make_daemon: Callable[..., PrivateDaemon], tmp_path: Path) -> None:
    ours = make_daemon()
    ours.start()
    ours.import_busybox()
    (tmp_path / "genuine").mkdir()
    genuine = GenuineDockerd(tmp_path / "genuine")
    try:
        genuine.start()
        for method, path, body in SAME:
            expected = neutral(genuine.socket, method, path, body, tmp_path / "genuine/data")
            found = neutral(ours.socket, method, path, body, ours.data_root)
            assert found == expected, f"{method} {path} {body}"
    finally:
        genuine.close()


def neutral(at: Path, method: str, path: str, body: Any, root: Path) -> Any:
    connection = UnixConnection(at)
    content = None if body is None else json.dumps(body)
    connection.request(method, f"/v1.41{path}", content, {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read().decode().replace(os.fspath(root), "ROOT")
    connection.close()
    answer = json.loads(text) if text else None
    if path == "/system/df":
        answer = {"Volumes": answer["Volumes"]}
    if isinstance(answer, dict):
        answer.pop("Id", None)
        views = answer.get("Volumes") or [answer]
        for view in views:
            view.pop("CreatedAt", None)
        if answer.get("Volumes"):
            answer["Volumes"].sort(key=lambda view: view["Name"])
    return response.status, answer
