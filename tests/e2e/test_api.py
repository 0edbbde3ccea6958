"""The API itself: docker-py, versions, TLS, refusals, odd and hostile requests."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import socket
import ssl
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("clean")]


@pytest.fixture
def client(daemon: PrivateDaemon):
    made = docker.DockerClient(base_url=daemon.url, version="auto", timeout=60)
    yield made
    made.close()


# -- docker-py -----------------------------------------------------------------------------


def test_docker_py_runs_and_inspects(client: docker.DockerClient) -> None:
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.51"
    assert client.info()["Driver"] == "overlay2"
    assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"
    with pytest.raises(docker.errors.ContainerError) as failure:
        client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert failure.value.exit_status == 3
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("nosuch")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("nosuch")


def test_docker_py_lifecycle(client: docker.DockerClient) -> None:
    box = client.containers.run(
        "busybox", "sh -c 'echo started; sleep 1000'", detach=True, name="box",
        labels={"a": "b"}, mem_limit="64m", ports={"80/tcp": ("127.0.0.1", None)},
        environment={"X": "y"}, tmpfs={"/t": "size=1m"}, auto_remove=False,
    )  # fmt: skip
    wait_until(lambda: box.logs() == b"started\n", what="the log")
    box.reload()
    assert box.status == "running" and box.labels == {"a": "b"}
    assert box.ports["80/tcp"][0]["HostIp"] == "127.0.0.1"
    assert box.exec_run("echo $X", environment={"Z": "1"}).exit_code == 0
    code, (out, err) = box.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
    assert (code, out, err) == (4, b"out\n", b"err\n")
    assert box.stats(stream=False)["memory_stats"]["limit"] == 64 << 20
    assert box.top()["Processes"]
    box.pause()
    box.unpause()
    box.update(mem_limit="32m", memswap_limit="32m")
    box.rename("other")
    assert [c.name for c in client.containers.list(filters={"label": "a=b"})] == ["other"]
    box.stop(timeout=0)
    assert box.wait()["StatusCode"] == 137
    image = box.commit("made", "1")
    assert image.tags == ["made:1"]
    box.remove()
    client.images.remove("made:1")


def test_docker_py_archives_and_streams(client: docker.DockerClient) -> None:
    box = client.containers.create("busybox", ["cat"], stdin_open=True, name="box")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
    assert box.put_archive("/tmp", buffer.getvalue())
    pieces, stat = box.get_archive("/tmp/file")
    assert stat["name"] == "file" and stat["size"] == 4
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        assert tar.extractfile("file").read() == b"data"
    stream = box.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    box.start()
    stream._sock.sendall(b"hello\n")
    assert stream._sock.recv(100)[-6:] == b"hello\n"
    stream.close()
    box.kill()


def test_docker_py_events_networks_and_volumes(client: docker.DockerClient) -> None:
    since = time.time()
    client.containers.run("busybox", "true", remove=True, name="eve")
    found = client.events(since=since, until=time.time() + 0.01, decode=True,
                          filters={"container": "eve"})  # fmt: skip
    assert [event["Action"] for event in found if event["Action"] != "attach"] == [
        "create", "start", "die", "destroy",
    ]  # fmt: skip
    net = client.networks.create("own", driver="bridge", labels={"k": "v"})
    assert client.containers.run("busybox", "true", network="own", remove=True) == b""
    net.remove()
    volume = client.volumes.create("vol", labels={"k": "v"})
    assert [v.name for v in client.volumes.list(filters={"label": "k=v"})] == ["vol"]
    volume.remove()
    assert client.df()["Images"]


# -- versions and refusals -----------------------------------------------------------------


def test_versions(daemon: PrivateDaemon) -> None:
    assert daemon.request("GET", "/_ping") == (200, b"OK")
    assert daemon.request("HEAD", "/v1.24/_ping")[0] == 200
    assert daemon.request("GET", "/v1.51/version")[0] == 200
    status, answer = daemon.request("GET", "/v1.52/version")
    assert status == 400 and "too new" in answer["message"]
    status, answer = daemon.request("GET", "/v1.23/version")
    assert status == 400 and "too old" in answer["message"]


def test_what_is_not_built_names_itself(daemon: PrivateDaemon) -> None:
    status, answer = daemon.request("POST", "/swarm/init")
    assert status == 501 and "SwarmInit" in answer["message"]
    assert daemon.request("GET", "/nosuch")[0] == 404
    assert daemon.request("GET", "/swarm")[0] == 501


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{not json", 400, "invalid JSON"),
        (b"[1]", 400, "object"),
        ({"Image": 5}, 400, "Image"),
        ({"Image": "busybox", "HostConfig": {"Memory": "lots"}}, 400, "Memory"),
        ({"Image": "nosuch"}, 404, "No such image"),
        ({"Image": "busybox", "Env": ["=x"]}, 400, "environment"),
        ({"Image": "busybox", "HostConfig": {"NetworkMode": "container:none"}}, 400, "container"),
        ({"Image": "busybox", "HostConfig": {"CapAdd": ["NO_SUCH"]}}, 400, "NO_SUCH"),
        ({"Image": "busybox", "HostConfig": {"SecurityOpt": ["seccomp={"]}}, 400, "seccomp"),
        ({"Image": "busybox", "HostConfig": {"Binds": ["/a:b"]}}, 400, "absolute"),
        ({"Image": "busybox", "HostConfig": {"Runtime": "none"}}, 400, "runtime"),
        ({"Image": "busybox", "StopSignal": "SIGNOPE"}, 400, "signal"),
        ({"Image": "busybox", "HostConfig": {"LogConfig": {"Type": "x"}}}, 400, "log"),
    ],
    ids=str,
)
def test_bad_create_requests(daemon: PrivateDaemon, body, status: int, words: str) -> None:
    headers = {"Content-Type": "application/json"}
    found, answer = daemon.request("POST", "/containers/create", body, headers)
    assert found == status, answer
    assert words.lower() in answer["message"].lower()
    assert daemon.request("GET", "/containers/json?all=1")[1] == []


def test_unknown_and_unhonoured_fields_give_warnings(daemon: PrivateDaemon) -> None:
    body = {
        "Image": "busybox",
        "NoSuchField": 1,
        "HostConfig": {"AlsoUnknown": 2, "KernelMemory": 9},
    }
    status, answer = daemon.request("POST", "/containers/create", body)
    assert status == 201
    text = " ".join(answer["Warnings"])
    for word in ("NoSuchField", "HostConfig.AlsoUnknown", "Kernel memory"):
        assert word in text


def test_an_origin_is_refused(daemon: PrivateDaemon) -> None:
    assert daemon.request("GET", "/info", headers={"Origin": "http://evil.test"})[0] == 403


def test_pipelined_and_broken_requests(daemon: PrivateDaemon) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(str(daemon.socket))
        raw.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        seen = b""
        while seen.count(b"HTTP/1.1 200") < 3:
            seen += raw.recv(65536)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(str(daemon.socket))
        raw.sendall(b"NONSENSE\r\n\r\n")
        assert b"400" in raw.recv(65536)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(str(daemon.socket))
        raw.sendall(b"GET /" + b"x" * 100_000)
        raw.sendall(b"x HTTP/1.1\r\n\r\n")
        assert raw.recv(65536).startswith(b"HTTP/1.1 400") or raw.recv(1) == b""
    assert daemon.request("GET", "/_ping")[0] == 200


# -- TCP and TLS ---------------------------------------------------------------------------


def test_tcp_without_tls_is_refused(make_daemon: Callable[..., PrivateDaemon]) -> None:
    made = make_daemon("-H", f"tcp://127.0.0.1:{free_port()}")
    made.start(wait=False)
    assert made.wait_death() == 1
    assert "--allow-insecure-tcp" in made.log.read_text()
    made.flags = ()


def make_certificates(folder: Path) -> None:
    """A CA, and certificates for server and client, by Debian's own openssl."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=True)

    days = str(datetime.timedelta(days=2).days)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca-key.pem", "-out",
            "ca.pem", "-days", days, "-subj", "/CN=test ca")  # fmt: skip
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}-key.pem", "-out",
                f"{name}.csr", "-subj", f"/CN={name}")  # fmt: skip
        usage = "serverAuth" if name == "server" else "clientAuth"
        (folder / "ext").write_text(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem",
                "-CAcreateserial", "-days", days, "-extfile", "ext",
                "-out", f"{name}.pem")  # fmt: skip


def test_mutual_tls(make_daemon: Callable[..., PrivateDaemon], tmp_path: Path) -> None:
    make_certificates(tmp_path)
    port = free_port()
    made = make_daemon(
        "-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", str(tmp_path / "ca.pem"),
        "--tlscert", str(tmp_path / "server.pem"), "--tlskey", str(tmp_path / "server-key.pem"),
    )  # fmt: skip
    made.start()
    made.import_busybox()
    flags = ["--tlsverify", "--tlscacert", str(tmp_path / "ca.pem")]
    own = ["--tlscert", str(tmp_path / "client.pem"), "--tlskey", str(tmp_path / "client-key.pem")]
    address = ["-H", f"tcp://127.0.0.1:{port}"]
    done = made.docker(*address, *flags, *own, "run", "--rm", "-i", "busybox", "cat", stdin=b"hi\n")
    assert done.stdout == b"hi\n"
    assert made.docker(*address, *flags, "version", check=False).returncode != 0
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    context.load_cert_chain(tmp_path / "client.pem", tmp_path / "client-key.pem")
    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1"
    ) as raw:
        raw.sendall(b"GET /info HTTP/1.1\r\nHost: evil.test\r\n\r\n")
        assert b"403" in raw.recv(65536)
    _half_close_over_tls(made, context, port)
    _contexts_travel(made, tmp_path, port)


def _half_close_over_tls(made: PrivateDaemon, context: ssl.SSLContext, port: int) -> None:
    """The end of input is TLS's own notice; output goes on after it (RFC 8446, section 6.1)."""
    script = "wc -c; sleep 0.2; echo still here"
    sent = os.urandom(3 << 20)
    made.docker("create", "-i", "--name", "box", "busybox", "sh", "-c", script)
    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1"
    ) as raw:
        raw.settimeout(20)
        raw.sendall(
            b"POST /containers/box/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        assert raw.recv(65536).startswith(b"HTTP/1.1 101 ")
        made.docker("start", "box")
        raw.sendall(sent)
        with contextlib.suppress(ssl.SSLError, TimeoutError):
            raw.settimeout(0)
            raw.unwrap()
        raw.settimeout(20)
        output = b""
        while b"still here" not in output:
            output += raw.recv(65536)
    assert f"{len(sent)}\n".encode() in output
    assert made.docker("-H", f"tcp://127.0.0.1:{port}", "version", check=False).returncode != 0


def _contexts_travel(made: PrivateDaemon, folder: Path, port: int) -> None:
    """Between the two clients, with their certificates; input ends by a half-close inside TLS."""
    environment = {key: value for key, value in made.client_environment().items()
                   if key not in ("DOCKER_HOST", "ESTIBA_HOST")}  # fmt: skip

    def client(*words: str, stdin: bytes = b"") -> bytes:
        done = subprocess.run(words, input=stdin, capture_output=True, timeout=60, check=False,
                              env=environment)  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    estiba = [sys.executable, "-m", "estiba.cli.main"]
    keys = f"ca={folder}/ca.pem,cert={folder}/client.pem,key={folder}/client-key.pem"
    client(*estiba, "context", "create", "one", "--docker", f"host=tcp://127.0.0.1:{port},{keys}")
    client(*estiba, "context", "export", "one", str(folder / "one.tar"))
    client("docker", "context", "import", "two", str(folder / "one.tar"))
    assert client("docker", "-c", "two", "run", "--rm", "busybox", "echo", "hi") == b"hi\n"
    client("docker", "context", "export", "two", str(folder / "two.tar"))
    client(*estiba, "context", "import", "three", str(folder / "two.tar"))
    run = [*estiba, "-c", "three", "run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo after"]
    assert client(*run, stdin=b"in ") == b"in after\n"
    (folder / "ca.pem").unlink()
    words = [*estiba, "-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "ps"]
    done = subprocess.run(words, capture_output=True, env=environment, timeout=60, check=False)
    assert done.returncode == 1 and b"ca.pem: no such file or directory" in done.stderr


def test_settings_from_a_file(make_daemon: Callable[..., PrivateDaemon], tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text(
        json.dumps({"default-runtime": "runc", "log-opts": {"max-size": "1m"}, "labels": ["a=b"]})
    )
    made = make_daemon("--config-file", str(tmp_path / "daemon.json"))
    made.start()
    assert made.request("GET", "/info")[1]["DefaultRuntime"] == "runc"
    made.stop()
    (tmp_path / "daemon.json").write_text('{"no-such-setting": 1}')
    made.start(wait=False)
    assert made.wait_death() == 1
    assert "no-such-setting" in made.log.read_text()
    (tmp_path / "daemon.json").write_text("{}")
