"""What programs written for Docker rely on, found by running their own test suites."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container
from tests.support.daemon import PrivateDaemon, needs_docker, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def client(daemon: PrivateDaemon) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=daemon.url, version="auto", timeout=60)
    yield made
    for container in made.containers.list(all=True):
        container.remove(force=True, v=True)
    made.close()


@pytest.fixture
def box(client: docker.DockerClient) -> Container:
    """A container that runs until it is removed."""
    return client.containers.run("busybox", ["sleep", "1000"], detach=True, name="box")


def test_the_start_of_an_exec_says_what_its_stream_is(
    client: docker.DockerClient, box: Container
) -> None:
    words = ["sh", "-c", "echo out; echo err >&2"]
    made = client.api.exec_create(box.id, words, tty=True)
    assert client.api.exec_start(made["Id"], demux=True) == (b"out\r\nerr\r\n", None)
    made = client.api.exec_create(box.id, words, tty=True)
    assert client.api.exec_start(made["Id"], tty=True) == b"out\r\nerr\r\n"


def test_a_log_comes_line_by_line(client: docker.DockerClient) -> None:
    words = ["sh", "-c", "echo one; echo two; echo err >&2; printf rest"]
    box = client.containers.run("busybox", words, detach=True)
    box.wait()
    assert sorted(box.logs(stream=True)) == [b"err\n", b"one\n", b"rest", b"two\n"]
    assert len(list(box.logs(stream=True, stderr=False, timestamps=True))) == 3
    assert len(list(box.logs(stream=True, follow=False))) == 4


def test_a_variable_without_a_value(client: docker.DockerClient) -> None:
    """Inspect shows it, the program gets none of that name, and neither does an image."""
    box = client.containers.create("busybox", ["env"], environment=["HOSTNAME", "A=1"])
    assert box.attrs["Config"]["Env"] == ["HOSTNAME", "A=1"]
    box.start()
    box.wait()
    shown = box.logs().decode().split("\n")
    assert "A=1" in shown and not any(line.startswith("HOSTNAME") for line in shown)
    image = box.commit("made", "1")
    try:
        assert image.attrs["Config"]["Env"] == ["A=1"]
        assert image.attrs["Parent"] == client.images.get("busybox").id
    finally:
        client.images.remove("made:1")


def test_a_commit_changes_only_what_it_names(
    daemon: PrivateDaemon, client: docker.DockerClient
) -> None:
    box = client.containers.run("busybox", ["true"], detach=True, environment=["A=1"])
    path = f"/commit?container={box.id}&repo=made&tag=1"
    for body in (b"null", {"Labels": {"a": "b"}, "Env": ["B=2"]}):
        kind = {"Content-Type": "application/json"}
        status, answer = daemon.request("POST", path, body, kind)
        assert status == 201, answer
    config = client.images.get("made:1").attrs["Config"]
    client.images.remove("made:1")
    assert (config["Cmd"], config["Labels"]) == (["true"], {"a": "b"})
    assert config["Env"] == ["B=2", "A=1"]


def test_what_a_request_names_besides_the_image(client: docker.DockerClient) -> None:
    """A 404 would have the client look for the image, which is here."""
    for options in ({"volumes_from": ["nosuch"]}, {"network_mode": "container:nosuch"}):
        with pytest.raises(docker.errors.APIError, match="No such container: nosuch") as failure:
            client.containers.create("busybox", "true", **options)
        assert failure.value.status_code == 400
    with pytest.raises(docker.errors.ImageNotFound, match="wanted linux/s390x"):
        client.api.create_container("busybox", "true", platform="linux/s390x")
    arch = client.version()["Arch"]
    for platform in ("linux", arch, f"linux/{arch}"):
        client.api.create_container("busybox", "true", platform=platform)


def test_a_link_is_no_container(daemon: PrivateDaemon, box: Container) -> None:
    status, answer = daemon.request("DELETE", f"/containers/{box.id}?link=1&force=1")
    assert (status, answer["message"]) == (
        409, "Conflict, cannot remove the default link name of the container",
    )  # fmt: skip
    box.reload()


def test_networks_may_have_odd_names(client: docker.DockerClient) -> None:
    for name in ("a b", "x", "straße"):
        made = client.networks.create(name)
        box = client.containers.run("busybox", "true", detach=True, network=name)
        assert list(box.attrs["NetworkSettings"]["Networks"]) == [name]
        box.remove(force=True)
        client.networks.get(name).remove()
        assert made.name == name
    for name in (" ", "a/b", "a\nb"):
        with pytest.raises(docker.errors.APIError, match="invalid network name"):
            client.networks.create(name)


def test_small_print(daemon: PrivateDaemon, client: docker.DockerClient) -> None:
    assert daemon.request("GET", "/networks/") == daemon.request("GET", "/networks")
    with pytest.raises(docker.errors.APIError, match="refusing to create an ambiguous tag"):
        client.images.get("busybox").tag("sha256", "1")
    with pytest.raises(docker.errors.APIError, match="Interval in Healthcheck cannot be"):
        client.containers.create("busybox", "true", healthcheck={"interval": 1000})
    gone = client.containers.run("busybox", "sleep 1000", detach=True, auto_remove=True)
    assert gone.attrs["NetworkSettings"]["Networks"]["bridge"]["Aliases"] is None
    with pytest.raises(docker.errors.APIError, match="AutoRemove is enabled for the container"):
        gone.update(restart_policy={"Name": "always"})


@needs_docker(25)
def test_a_bind_may_leave_out_what_is_mounted_below(daemon: PrivateDaemon, tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.mkdir()
    (inner / "file").touch()
    (outer / "mnt").mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(inner), str(outer / "mnt")], check=True)
    try:
        bind = f"type=bind,source={outer},target=/foo"
        assert daemon.run("--mount", bind, "busybox", "ls", "/foo/mnt") == "file\n"
        bind += ",bind-recursive=disabled"
        assert daemon.run("--mount", bind, "busybox", "ls", "/foo/mnt") == ""
    finally:
        subprocess.run(["umount", str(outer / "mnt")], check=True)


def test_a_container_that_removes_itself_can_be_restarted(
    daemon: PrivateDaemon, client: docker.DockerClient
) -> None:
    box = client.containers.run("busybox", "sleep 1000", detach=True, auto_remove=True)
    box.restart(timeout=0)
    assert daemon.inspect(box.id)["State"]["Running"]
    box.stop(timeout=0)
    wait_until(lambda: daemon.request("GET", f"/containers/{box.id}/json")[0] == 404, what="it")


def test_stats_end_with_the_container(client: docker.DockerClient, box: Container) -> None:
    samples = box.stats(decode=True)
    assert next(samples)["id"] == box.id
    box.remove(force=True)
    assert len(list(samples)) < 5


def test_a_health_check_that_takes_too_long_shows_what_it_said(
    daemon: PrivateDaemon, client: docker.DockerClient
) -> None:
    check = {
        "test": ["CMD", "sh", "-c", "echo one; sleep 60"],
        "interval": 100 * 10**6,
        "timeout": 2 * 10**9,
        "retries": 1,
    }
    box = client.containers.run("busybox", "sleep 1000", detach=True, healthcheck=check)

    def log() -> list[dict[str, str]]:
        return list(daemon.inspect(box.id)["State"]["Health"]["Log"])

    results = wait_until(log, what="a result")
    assert results[0]["Output"] == "Health check exceeded timeout (2s): one\n"


def test_an_image_shows_what_compose_keeps_volumes_by(
    daemon: PrivateDaemon, client: docker.DockerClient
) -> None:
    """docker-compose 1.29 recreates a container with the anonymous volumes it finds there."""
    box = client.containers.create("busybox")
    box.commit("declared", changes='VOLUME /data\nENV A=1\nCMD ["top"]')
    image = daemon.request("GET", "/images/declared/json")[1]
    shown = image["ContainerConfig"]
    assert shown["Volumes"] == {"/data": {}}
    assert shown | image["Config"] == shown
    client.images.remove("declared")


def test_a_health_check_of_no_known_form_is_never_run(client: docker.DockerClient) -> None:
    made = client.api.create_container("busybox", "top", healthcheck={"test": ["true"]})
    assert "is never run" in made["Warnings"][0]
    client.api.start(made)
    shown = client.api.inspect_container(made)
    assert shown["Config"]["Healthcheck"]["Test"] == ["true"]
    assert "Health" not in shown["State"]


def test_options_of_addresses_are_null_unless_given(
    daemon: PrivateDaemon, client: docker.DockerClient
) -> None:
    for asked, shown in (({}, None), ({"Options": {}}, {}), ({"Options": {"a": "b"}}, {"a": "b"})):
        status, made = daemon.request("POST", "/networks/create", {"Name": "n", "IPAM": asked})
        assert status == 201, made
        assert client.networks.get(made["Id"]).attrs["IPAM"]["Options"] == shown
        client.networks.get(made["Id"]).remove()


def test_a_restarted_container_tells_when_it_ended_before(
    daemon: PrivateDaemon, box: Container
) -> None:
    assert daemon.inspect(box.id)["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    box.restart(timeout=0)
    state = daemon.inspect(box.id)["State"]
    assert state["Status"] == "running"
    assert state["FinishedAt"] > "0002-"


def test_a_profile_holds_in_a_privileged_container_too(
    daemon: PrivateDaemon, tmp_path: Path
) -> None:
    rule = {"names": ["chown", "fchownat", "lchown"], "action": "SCMP_ACT_ERRNO"}
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    words = ("run", "--rm", "--privileged", "--security-opt", f"seccomp={profile}", "busybox")
    assert b"not permitted" in daemon.docker(*words, "chown", "1", "/tmp", check=False).stderr


def test_paths_and_files_are_named_as_asked_for(client: docker.DockerClient) -> None:
    box = client.containers.create("busybox", "pwd", working_dir="/tmp/")
    assert box.attrs["Config"]["WorkingDir"] == "/tmp"
    box = client.containers.create("busybox", "pwd", working_dir="/some/where")
    assert box.get_archive("/some/where/")[1]["name"] == "where"
    with pytest.raises(docker.errors.APIError, match="/bin/busybox is not a directory"):
        client.containers.create("busybox", "pwd", working_dir="/bin/busybox")
    with pytest.raises(docker.errors.APIError, match="not a directory"):
        box.get_archive("/bin/busybox/")
    with pytest.raises(docker.errors.NotFound, match=f"the file /dne in container {box.id}"):
        box.get_archive("/dne")
    low = client.api
    with pytest.raises(docker.errors.APIError, match='invalid resize height "": invalid syntax'):
        low._result(low._post(low._url("/containers/{0}/resize", box.id), params={"w": 3}), True)


def test_an_exec_has_the_limits_of_its_container(client: docker.DockerClient) -> None:
    limit = docker.types.Ulimit(name="nofile", soft=511, hard=512)
    box = client.containers.run("busybox", "sleep 1000", detach=True, ulimits=[limit])
    assert box.exec_run(["sh", "-c", "ulimit -n"]).output == b"511\n"


def test_events_up_to_a_moment_are_those_of_the_past(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "--rm", "--name", "past", "busybox", "true")
    seen = daemon.docker(
        "events", "--until", f"{time.time():.6f}", "--filter", "container=past"
    ).stdout
    assert [line.split()[2] for line in seen.decode().splitlines()] == [
        "create", "attach", "start", "die", "destroy",
    ]  # fmt: skip


def test_names_of_images_are_patterns_and_repositories(
    daemon: PrivateDaemon, client: docker.DockerClient
) -> None:
    box = client.containers.create("busybox", "true")
    for name, tag in (("some", "one"), ("some", "two"), ("some/other", "one")):
        box.commit(name, tag)
    for pattern, count in (("some*", 2), ("some/*", 1), ("*/*:one", 1), ("*", 3)):
        assert len(client.images.list(filters={"reference": pattern})) == count, pattern
    saved = daemon.docker("save", "some").stdout
    assert b"some:one" in saved and b"some:two" in saved and b"some/other" not in saved
    for tag in ("some:one", "some:two", "some/other:one"):
        client.images.remove(tag)


def test_a_volume_takes_the_files_of_the_image(daemon: PrivateDaemon) -> None:
    assert "root:x:0:0" in daemon.run("-v", "/etc", "busybox", "cat", "/etc/passwd")


def test_what_a_read_only_root_and_a_shared_network_mean_for_etc(daemon: PrivateDaemon) -> None:
    done = daemon.docker(
        "run", "--rm", "--read-only", "busybox", "touch", "/etc/hosts", check=False
    )
    assert b"Read-only file system" in done.stderr
    daemon.docker("run", "-d", "--name", "one", "-h", "first", "busybox", "sleep", "1000")
    daemon.docker(
        "run", "-d", "--name", "two", "--net", "container:one", "busybox", "sleep", "1000"
    )
    assert "first" in daemon.run("--net", "container:two", "busybox", "cat", "/etc/hosts")
    daemon.docker("rm", "-f", "one", "two")


def test_mounts_and_variables_that_docker_does_not_take(daemon: PrivateDaemon) -> None:
    done = daemon.docker("run", "--rm", "-v", "/proc/sys", "busybox", "true", check=False)
    assert done.returncode == 125
    assert b"inside /proc" in done.stderr
    assert daemon.run("-e", "HOME=", "busybox", "sh", "-c", "echo $HOME") == "/root\n"
    assert daemon.docker("volume", "ls", "-f", "dangling=no", check=False).returncode == 1


def test_dangling_networks_are_those_of_nobody(daemon: PrivateDaemon) -> None:
    def listed(value: str) -> set[str]:
        done = daemon.docker("network", "ls", "-f", f"dangling={value}", "--format", "{{.Name}}")
        return set(done.stdout.decode().split())

    for name in ("busy", "idle", "over"):
        daemon.docker("network", "create", name)
    daemon.docker("run", "-d", "--name", "one", "--net", "busy", "busybox", "sleep", "1000")
    daemon.docker("run", "--name", "two", "--net", "over", "busybox", "true")
    assert listed("true") == listed("1") == {"idle", "over"}
    assert listed("false") == {"busy", "bridge", "host", "none"}
    assert daemon.docker("network", "ls", "-f", "dangling=no", check=False).returncode == 1
    both = ["-f", "dangling=true", "-f", "dangling=false"]
    done = daemon.docker("network", "ls", *both, check=False)
    assert b'got more than one value for filter key "dangling"' in done.stderr
    daemon.docker("rm", "-f", "one", "two")
    daemon.docker("network", "rm", "busy", "idle", "over")


def test_one_that_starts_again_and_again_is_removed_by_force(daemon: PrivateDaemon) -> None:
    for number in range(5):
        name = f"again{number}"
        daemon.docker("run", "-d", "--restart", "always", "--name", name, "busybox", "true")
        daemon.docker("rm", "-f", name)


def test_links_to_nobody_are_refused(daemon: PrivateDaemon, box: Container) -> None:
    for link, words in (
        ("nobody:db", "could not get container for nobody: No such container: nobody"),
        ("a:b:c", "bad format for links"),
    ):
        body = {"Image": "busybox", "HostConfig": {"Links": [link]}}
        status, answer = daemon.request("POST", "/containers/create", body)
        assert status == 400 and words in answer["message"]
    body = {"Image": "busybox", "HostConfig": {"Links": ["box:db"], "NetworkMode": "host"}}
    status, answer = daemon.request("POST", "/containers/create", body)
    assert status == 400 and "host type networking can't be used with links" in answer["message"]


def test_ps_names_an_image_only_while_the_name_means_it(
    daemon: PrivateDaemon, client: docker.DockerClient
) -> None:
    base = client.containers.create("busybox", "true")
    base.commit("moving")
    box = client.containers.run("moving", ["sleep", "1000"], detach=True, name="box")
    shown = {"filters": {"name": "box"}}
    assert client.api.containers(**shown)[0]["Image"] == "moving"
    base.commit("moving", message="another")
    assert client.api.containers(**shown)[0]["Image"] == box.attrs["Image"]
    box.remove(force=True)
    client.images.remove("moving")
    client.images.remove(box.attrs["Image"])


def test_what_does_not_exist_is_no_object(daemon: PrivateDaemon) -> None:
    """Docker's client asks for plugins of that name too."""
    done = daemon.docker("inspect", "nothing", check=False)
    assert done.returncode == 1 and b"o such object: nothing" in done.stderr


def test_filters_of_containers_take_what_docker_takes(
    daemon: PrivateDaemon, client: docker.DockerClient, box: Container
) -> None:
    network = client.networks.get("bridge").id
    assert client.containers.list(filters={"network": network[:4]}) == [box]
    assert client.containers.list(filters={"network": network[1:]}) == []
    open_box = client.containers.run("busybox", "sleep 1000", detach=True, ports={"80/tcp": None})
    open_box.reload()
    host_port = open_box.ports["80/tcp"][0]["HostPort"]
    for name, value, found in (
        ("publish", host_port, [open_box]), ("publish", "80", []), ("expose", "80", [open_box]),
    ):  # fmt: skip
        assert client.containers.list(filters={name: value}) == found, name
    seen = daemon.docker("events", "--until", f"{time.time():.6f}", "-f", "image=busybox").stdout
    assert box.id in seen.decode()
    assert daemon.docker("events", "--until", "1", "-f", "image=busy").stdout == b""


def test_addresses_that_overlap_are_forbidden(daemon: PrivateDaemon) -> None:
    body = {"Name": "twice", "IPAM": {"Config": [{"Subnet": "10.197.9.0/24"}]}}
    assert daemon.request("POST", "/networks/create", body)[0] == 201
    status, answer = daemon.request("POST", "/networks/create", {**body, "Name": "thrice"})
    assert status == 403 and "Pool overlaps" in answer["message"]
    daemon.docker("network", "rm", "twice")


def test_an_attach_with_the_log_repeats_and_misses_nothing(client: docker.DockerClient) -> None:
    count = "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; read last; echo $last"
    box = client.containers.run("busybox", ["sh", "-c", count], detach=True, stdin_open=True)
    socket = client.api.attach_socket(box.id, {"stdin": 1, "stream": 1})
    output = client.api.attach(box.id, stdout=True, stream=True, logs=True)
    socket._sock.sendall(b"over\n")
    lines = b"".join(output).decode().split()
    assert lines == [*map(str, range(20000)), "over"]
    socket.close()
