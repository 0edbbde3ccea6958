"""Who asks for builds: the docker client, docker-py; and where contexts and bases come from."""

from __future__ import annotations

import base64
import gzip
import io
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from tests.support.buildremains import wait_nothing_remains
from tests.support.classicbuild import build, context_tar, failed
from tests.support.daemon import PATIENCE, PrivateDaemon
from tests.support.fileserver import serving
from tests.support.registries import GenuineRegistry, genuine_registry

pytestmark = pytest.mark.e2e


# -- clients -------------------------------------------------------------------------------


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "ctx"
    folder.mkdir()
    (folder / "Dockerfile").write_text('FROM busybox\nARG A\nCOPY f /f\nRUN echo "$A" > /a\n')
    (folder / "f").write_text("file\n")
    return folder


def docker_build(daemon: PrivateDaemon, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        ["docker", "build", *words], capture_output=True, check=False, timeout=60 * PATIENCE,
        env={**daemon.client_environment(), "DOCKER_BUILDKIT": "0"},
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).decode()


def test_the_docker_client(daemon: PrivateDaemon, context: Path, tmp_path: Path) -> None:
    words = ["-t", "cli:1", "-t", "cli:2", "--build-arg", "A=x", "--label", "l=v"]
    code, text = docker_build(daemon, *words, "--iidfile", str(tmp_path / "iid"), str(context))
    assert code == 0, text
    assert "Step 4/4 : RUN" in text and "Successfully tagged cli:2" in text
    assert (tmp_path / "iid").read_text() == daemon.request("GET", "/images/cli:1/json")[1]["Id"]
    assert daemon.run("cli:2", "cat", "/f", "/a") == "file\nx\n"
    code, text = docker_build(daemon, *words, str(context))
    assert text.count("Using cache") == 3
    code, text = docker_build(daemon, "-q", str(context))
    assert code == 0 and text.startswith("sha256:") and "Step" not in text


def test_the_docker_client_squashes(
    make_daemon: Callable[..., PrivateDaemon], context: Path
) -> None:
    """It asks only daemons that call themselves experimental."""
    daemon = make_daemon("--experimental")
    daemon.start()
    daemon.import_busybox()
    code, text = docker_build(daemon, "--squash", "-t", "squashed:1", str(context))
    assert code == 0, text
    layers = daemon.request("GET", "/images/squashed:1/json")[1]["RootFS"]["Layers"]
    assert len(layers) == 2
    assert daemon.request("GET", "/info")[1]["ExperimentalBuild"] is True


def test_the_docker_client_and_a_failure(daemon: PrivateDaemon, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN exit 7\n")
    code, text = docker_build(daemon, str(context))
    assert code == 7, text
    assert "returned a non-zero code: 7" in text


def test_the_docker_client_with_a_dockerfile_from_stdin(daemon: PrivateDaemon) -> None:
    done = subprocess.run(
        ["docker", "build", "-t", "stdin:1", "-"], input=b"FROM busybox\nRUN echo x > /x\n",
        capture_output=True, check=False, timeout=60 * PATIENCE,
        env={**daemon.client_environment(), "DOCKER_BUILDKIT": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert daemon.run("stdin:1", "cat", "/x") == "x\n"


def test_the_docker_client_with_a_folder_and_a_dockerfile_from_stdin(
    daemon: PrivateDaemon, context: Path
) -> None:
    """The client's archive then ends right after its last file, without padding."""
    done = subprocess.run(
        ["docker", "build", "-q", "-t", "cli:f", "-f", "-", str(context)], check=False,
        input=b"FROM busybox\nCOPY f /other\n", capture_output=True, timeout=60 * PATIENCE,
        env={**daemon.client_environment(), "DOCKER_BUILDKIT": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert daemon.run("cli:f", "cat", "/other") == "file\n"


@pytest.fixture
def client(daemon: PrivateDaemon) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=f"unix://{daemon.socket}", timeout=int(60 * PATIENCE))
    yield made
    made.close()


def test_docker_py(client: docker.DockerClient, context: Path) -> None:
    image, lines = client.images.build(
        path=str(context), tag="py:1", buildargs={"A": "py"}, labels={"l": "v"}, rm=True,
        extra_hosts={"h": "192.0.2.1"}, network_mode="none",
        container_limits={"memory": 64 << 20},
    )  # fmt: skip
    texts = "".join(line.get("stream", "") for line in lines)
    assert "Successfully built" in texts
    assert image.tags == ["py:1"] and image.labels == {"l": "v"}
    output = client.containers.run("py:1", ["cat", "/a"], remove=True, network_mode="none")
    assert output == b"py\n"


def test_docker_py_and_a_failure(client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.BuildError, match="non-zero code: 5") as caught:
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN echo why; exit 5\n"))
    assert any("why" in line.get("stream", "") for line in caught.value.build_log)


# -- remote contexts -----------------------------------------------------------------------


def test_a_context_by_http(daemon: PrivateDaemon, tmp_path: Path) -> None:
    (tmp_path / "context.tar").write_bytes(
        context_tar({"Dockerfile": "FROM busybox\nCOPY f /f\n", "f": "by http"})
    )
    (tmp_path / "context.tgz").write_bytes(gzip.compress((tmp_path / "context.tar").read_bytes()))
    (tmp_path / "Other").write_text("FROM busybox\nRUN echo alone > /f\n")
    (tmp_path / "Copies").write_text("FROM busybox\nCOPY f /f\n")
    with serving(tmp_path) as address:
        for name in ("context.tar", "context.tgz"):
            build(daemon, b"", remote=f"http://{address}/{name}", t="remote:1")
            assert daemon.run("remote:1", "cat", "/f") == "by http"
        build(daemon, b"", remote=f"http://{address}/Other", t="remote:2")
        assert daemon.run("remote:2", "cat", "/f") == "alone\n"
        assert failed(daemon, b"", remote=f"http://{address}/Copies").error
        answer = failed(daemon, b"", remote=f"http://{address}/nowhere")
        assert "404" in answer.error
    assert failed(daemon, b"", remote="http://127.0.0.1:1/x").error
    wait_nothing_remains(daemon)


def test_a_context_by_git(daemon: PrivateDaemon, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "Dockerfile").write_text("FROM busybox\nCOPY f /f\n")
    (work / "f").write_text("top")
    (work / "sub" / "Dockerfile").write_text("FROM busybox\nCOPY f /f\n")
    (work / "sub" / "f").write_text("sub")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], cwd=work, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", work, tmp_path / "repo.git"], check=True)
    with serving(tmp_path) as address:
        url = f"http://{address}/repo.git"
        for fragment, content in (("", "top"), ("#main", "top"), ("#main:sub", "sub")):
            build(daemon, b"", remote=f"{url}{fragment}", t="git:1")
            assert daemon.run("git:1", "cat", "/f") == content
        assert "nothere" in failed(daemon, b"", remote=f"{url}#nothere").error
    wait_nothing_remains(daemon)


# -- private registries --------------------------------------------------------------------


@pytest.fixture
def private(tmp_path: Path) -> Iterator[GenuineRegistry]:
    if not GenuineRegistry.is_installed():
        pytest.skip("needs Debian's docker-registry")
    with genuine_registry(tmp_path, users={"me": "secret"}) as registry:
        yield registry


def registry_config(host: str, password: str) -> dict[str, str]:
    value = {host: {"username": "me", "password": password}}
    return {"X-Registry-Config": base64.urlsafe_b64encode(json.dumps(value).encode()).decode()}


def test_a_base_image_of_a_private_registry(
    daemon: PrivateDaemon, private: GenuineRegistry
) -> None:
    name = f"{private.host}/me/base:1"
    built = build(daemon, {"Dockerfile": "FROM busybox\nRUN echo private > /p\n"}, t=name).image
    auth = {"username": "me", "password": "secret", "serveraddress": private.host}
    header = {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(auth).encode()).decode()}
    status, answer = daemon.request(
        "POST", f"/images/{private.host}/me/base/push?tag=1", b"", header
    )
    assert status == 200 and b"error" not in bytes(answer), answer
    assert daemon.request("DELETE", f"/images/{name}?force=1")[0] == 200
    files = {"Dockerfile": f"FROM {name}\nRUN cat /p\n"}
    for headers in (
        {},
        registry_config(private.host, "wrong"),
        registry_config("x.test", "secret"),
    ):
        answer = failed(daemon, files, headers)
        assert private.host in answer.error and "secret" not in answer.error
    answer = build(daemon, files, registry_config(private.host, "secret"))
    assert "private\n" in answer.text
    assert daemon.request("GET", f"/images/{name}/json")[1]["Id"] == built
    answer = build(daemon, files, registry_config(private.host, "secret"), pull="1")
    assert not answer.error
