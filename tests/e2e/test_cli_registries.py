"""Registries: `estiba` and `docker` side by side on a genuine Docker Engine.

Pulls, pushes, logins and searches, with a Debian docker-registry that anyone may use, and one that
wants a password.
"""

# ruff: noqa: E501 - a command line a line

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.support.daemon import needs_docker
from tests.support.dockerd import GenuineDockerd
from tests.support.parity import ESTIBA, Result, compare, neutral, run
from tests.support.registries import GenuineRegistry, genuine_registry
from tests.support.terminal import Terminal

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not GenuineDockerd.is_installed(), reason="dockerd is not installed"),
    pytest.mark.skipif(
        not GenuineRegistry.is_installed(), reason="docker-registry is not installed"
    ),
    needs_docker(28),
]
_HELPER = """\
#!/bin/sh
[ "$1" = store ] && exec cat >{kept}
cat >/dev/null
[ "$1" = erase ] && exec rm -f {kept}
[ -e {kept} ] && exec cat {kept}
echo "credentials not found in native keychain"
exit 1
"""


class Peers(NamedTuple):
    engine: GenuineDockerd
    plain: str
    auth: str
    index: str

    def line(self, text: str) -> str:
        return text.format(plain=self.plain, auth=self.auth, index=self.index)


class _Index(BaseHTTPRequestHandler):
    """The search of version 1, which docker-registry does not have."""

    def do_GET(self) -> None:
        body = {
            "num_results": 3,
            "results": [
                {"name": "a/b", "description": "few\nlines", "star_count": 3, "is_official": False},
                {"name": "top", "description": "x" * 60, "star_count": 90, "is_official": True},
                {"name": "c/d", "description": "", "star_count": 0, "is_automated": True},
            ],
        }
        data = json.dumps(body if "search" in self.path else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on the test's output."""


def _layer() -> bytes:
    """A tar with something that cannot be compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("data")
        info.size = 4 << 20
        tar.addfile(info, io.BytesIO(os.urandom(info.size)))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    root = tmp_path_factory.mktemp("peers")
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(genuine_registry(root / "plain"))
        auth = stack.enter_context(genuine_registry(root / "auth", users={"joe": "s3cret"}))
        index = ThreadingHTTPServer(("127.0.0.1", 0), _Index)
        stack.callback(index.server_close)
        stack.callback(index.shutdown)
        threading.Thread(target=index.serve_forever, daemon=True).start()
        engine = GenuineDockerd(root)
        stack.callback(engine.close)
        engine.start()
        made = Peers(engine, plain.host, auth.host, f"127.0.0.1:{index.server_port}")
        for name in ("{plain}/team/app:1", "{plain}/team/app:2", "{plain}/gone:1", "{auth}/app"):
            engine.docker("tag", "busybox", made.line(name))
        own = made.line("{plain}/own:1")
        engine.docker("import", "-", own, stdin=_layer())
        for name in ("{plain}/team/app:1", "{plain}/gone:1", "{plain}/own:1"):
            engine.docker("push", "-q", made.line(name))
        engine.docker("rmi", own)
        yield made


WITHOUT_LOGIN = """\
push {plain}/team/app:1
push -q {plain}/team/app:1
push -a {plain}/team/app
push -aq {plain}/team/app
push {plain}/team/nosuch
push -a {plain}/team/app:1
push {plain}/team/app
image push {plain}/team/app:2
push {auth}/app
push UPPER
push --platform linux/amd64 {plain}/team/app:1
push --platform a/b/c/d {plain}/team/app:1
push --disable-content-trust {plain}/team/app:1
push
push a b
pull {plain}/team/app:1
pull -q {plain}/team/app:1
pull {plain}/team/app
pull -a {plain}/team/app
pull -aq {plain}/team/app
pull -a {plain}/team/app:1
pull --platform linux/amd64 {plain}/team/app:1
pull --disable-content-trust {plain}/team/app:1
pull UPPER
pull {plain}/team/UPPER:1
pull ''
pull a//b
pull a:b:c
pull {plain}/team/app:
pull {plain}/nosuch
pull -q {plain}/nosuch
pull {auth}/app
pull {plain}/team/app@sha256:0000000000000000000000000000000000000000000000000000000000000000
pull {plain}/team/app:1@sha256:0000000000000000000000000000000000000000000000000000000000000000
pull {plain}/team/app@sha256:00
pull busybox
pull
image pull a b
run --rm --network none {plain}/nosuch true
run --pull always --rm --network none {plain}/nosuch true
run --pull always --rm --network none {plain}/team/app:1 echo hi
run --pull always -q --rm --network none {plain}/team/app:1 echo hi
run --pull never {plain}/nosuch
run UPPER
run 'a b'
create {plain}/nosuch
create -q {plain}/nosuch
create --pull always {plain}/nosuch
create a:b:c
search {index}/x
search --no-trunc {index}/x
search --limit 1 {index}/x
search --filter is-official=true {index}/x
search --filter stars=50 {index}/x
search --format json {index}/x
search --format '{{{{.Name}}}} {{{{.StarCount}}}} {{{{.IsOfficial}}}} {{{{.Description}}}}' {index}/x
search --format 'table {{{{.Name}}}}\\t{{{{.StarCount}}}}' {index}/x
search {plain}/x
search --limit x a
search --limit 1000 {index}/a
search --filter foo a
search --filter foo=bar {index}/a
search
search a b
save --platform linux/amd64 busybox
load --platform linux/amd64 -i /dev/null
history --platform linux/amd64 busybox
image inspect --platform linux/amd64 busybox
rmi --platform linux/amd64,linux/arm64 busybox
login {auth}
login -u joe {auth}
login -u joe -p wrong {auth}
login -p x {auth}
login --username= {auth}
login -u joe --password= {auth}
login --password-stdin {auth}
login -u joe --password-stdin {auth}
login -u joe -p x --password-stdin {auth}
login -u joe -p x localhost:1
login -u joe -p x
logout {auth}
logout nosuch
logout
"""


@pytest.mark.parametrize("line", WITHOUT_LOGIN.splitlines())
def test_answers(peers: Peers, line: str) -> None:
    compare(peers.engine, peers.line(line))


def test_a_missing_image_is_pulled(peers: Peers) -> None:
    """Its stream goes to STDERR, as docker's does; the engine may leave out a step."""
    name = f"{peers.plain}/gone:1"
    results = []
    for program in (["docker"], ESTIBA):
        run(peers.engine, ["docker"], f"rmi {name}")
        results.append(run(peers.engine, program, f"run --rm --network none {name} echo hi"))
    theirs, ours = (neutral(result) for result in results)
    assert (ours.code, ours.out) == (theirs.code, theirs.out) == (0, "hi\n")
    assert ours.err.splitlines()[0] == f"Unable to find image '{name}' locally"
    assert ours.err.splitlines()[-1] == theirs.err.splitlines()[-1]
    run(peers.engine, ["docker"], f"rmi {name}")
    quiet = run(peers.engine, ESTIBA, f"run -q --rm --network none {name} echo hi")
    assert quiet == (0, "hi\n", "")


_SESSIONS = {
    "nothing yet": {},
    "a helper for all": {"credsStore": "kept"},
    "a helper for one": {"credHelpers": {"{auth}": "kept"}, "credsStore": "missing"},
    "a helper that is missing": {"credsStore": "missing"},
    "an old client's entry": {"auths": {"http://{auth}/v1/": {"auth": "am9lOnMzY3JldA=="}}},
    "a token": {"auths": {"{auth}": {"auth": "am9lOg==", "identitytoken": "t"}}},
}
_SESSION = """\
pull {auth}/app
login -u joe --password-stdin {auth}
push {auth}/app
login {auth}
login https://{auth}/v2/
pull -q {auth}/app
logout https://{auth}/v2/
push {auth}/app
"""


@pytest.mark.parametrize("name", _SESSIONS)
def test_a_session(peers: Peers, name: str, tmp_path: Path) -> None:
    """Both clients leave the same file and the same key store behind."""
    kept = tmp_path / "kept"
    helper = tmp_path / "docker-credential-kept"
    helper.write_text(_HELPER.format(kept=kept))
    helper.chmod(0o755)
    shown = []
    for program in (["docker"], ESTIBA):
        folder = tmp_path / "config"
        shutil.rmtree(folder, ignore_errors=True)
        kept.unlink(missing_ok=True)
        folder.mkdir()
        text = json.dumps(_SESSIONS[name]).replace("{auth}", peers.auth)
        (folder / "config.json").write_text(text)
        env = {"DOCKER_CONFIG": str(folder), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        results = []
        for line in _SESSION.splitlines():
            result = neutral(run(peers.engine, program, peers.line(line), b"s3cret\n", env))
            # The second push finds what the first one left.
            settled = result.out.replace("Pushed", "Layer already exists")
            # Docker names the servers that it could not forget in any order.
            errors = "\n".join(sorted(result.err.splitlines()))
            results.append(result._replace(out=settled, err=errors))
            secret = kept.read_text().strip() if kept.exists() else ""
            results.append((json.loads((folder / "config.json").read_text()), secret))
        shown.append(results)
    for theirs, ours in zip(*shown, strict=True):
        assert ours == theirs


def test_login_on_a_terminal(peers: Peers, tmp_path: Path) -> None:
    """The password is not echoed, and a wrong one leaves nothing behind."""
    environment = {**peers.engine.environment(), "DOCKER_CONFIG": str(tmp_path)}
    for password, code, words in (("wrong", 1, b"401"), ("s3cret", 0, b"Login Succeeded")):
        with Terminal([*ESTIBA, "login", peers.auth], environment) as terminal:
            terminal.wait_for(b"Username: ")
            terminal.type("joe\n")
            terminal.wait_for(b"Password: ")
            terminal.type(f"{password}\n")
            terminal.wait_for(words)
            assert terminal.wait() == code
            assert password.encode() not in terminal.seen
        assert (tmp_path / "config.json").exists() == (code == 0)
    with Terminal([*ESTIBA, "login", peers.auth], environment) as terminal:
        terminal.wait_for(b"existing credentials... [Username: joe]")
        assert terminal.wait() == 0


def test_pulling_on_a_terminal(peers: Peers) -> None:
    name = f"{peers.plain}/own:1"
    for no_color in ("", "1"):
        environment = {**peers.engine.environment(), "NO_COLOR": no_color, "TERM": "xterm"}
        with Terminal([*ESTIBA, "pull", name], environment) as terminal:
            terminal.wait_for(b"Downloaded newer image")
            assert terminal.wait() == 0
            assert b"Pull complete" in terminal.seen and b"\x1b[K" in terminal.seen
            assert not no_color or b"\x1b[36m" not in terminal.seen
        run(peers.engine, ["docker"], f"rmi {name}")


def test_outdated(peers: Peers) -> None:
    engine = peers.engine
    old, new, foreign = (f"{peers.plain}/{name}" for name in ("old:1", "new:1", "gone:9"))
    for name in (old, new):
        run(engine, ["docker"], f"tag {peers.plain}/team/app:1 {name}")
        run(engine, ["docker"], f"push -q {name}")
    assert run(engine, ESTIBA, f"image outdated {peers.plain}/old {peers.plain}/new") == (0, "", "")
    # Somebody else moves the tag: here is still what it stood for before.
    engine.docker("run", "--name", "changed", "--network", "none", old, "touch", "/x")
    engine.docker("commit", "changed", foreign)
    engine.docker("rm", "changed")
    _move(engine, foreign, old)
    words = f"image outdated {peers.plain}/old {peers.plain}/new"
    code, out, err = run(engine, ESTIBA, words)
    assert (code, err) == (1, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:3] == ["REPOSITORY", "TAG", "STATUS"]
    assert [line[:3] for line in lines[1:]] == [[f"{peers.plain}/old", "1", "outdated"]]
    assert lines[1][3] != lines[1][4]
    found = [json.loads(line) for line in
             run(engine, ESTIBA, f"{words} -a --format json").out.splitlines()]  # fmt: skip
    assert {row["Repository"].rpartition("/")[2]: row["Status"] for row in found} == {
        "old": "outdated", "new": "up to date",
    }  # fmt: skip
    run(engine, ["docker"], f"tag {old} localhost:1/none:1")
    code, _, err = run(engine, ESTIBA, f"image outdated {peers.plain}/new localhost:1/none")
    assert (code, err) == (0, "")  # never pulled nor pushed: nothing stands behind it


def _move(engine: GenuineDockerd, source: str, target: str) -> None:
    """Makes the registry's `target` what `source` is, and keeps the engine's own as it was."""
    before = engine.docker("inspect", "-f", "{{.Id}}", target).decode().strip()
    engine.docker("tag", source, target)
    engine.docker("push", "-q", target)
    engine.docker("rmi", target)
    engine.docker("tag", before, target)


MANIFESTS = """\
manifest create --insecure {plain}/multi/x:all {plain}/team/app:1 {plain}/multi/x:amd64
manifest create --insecure {plain}/multi/x:all {plain}/multi/x:amd64
manifest create --insecure --amend {plain}/multi/x:all {plain}/multi/x:other
manifest inspect {plain}/multi/x:all
manifest inspect -v {plain}/multi/x:all
manifest inspect {plain}/multi/x:all {plain}/multi/x:amd64
manifest inspect -v {plain}/multi/x:all {plain}/multi/x:amd64
manifest inspect {plain}/multi/x:all {plain}/multi/x:nosuch
manifest inspect --insecure {plain}/multi/x:amd64
manifest inspect --insecure -v {plain}/multi/x:amd64
manifest annotate --arch arm64 --variant v8 --os-version 10 --os-features a --os-features b,c {plain}/multi/x:all {plain}/multi/x:other
manifest annotate --arch bogus {plain}/multi/x:all {plain}/multi/x:other
manifest annotate --arch arm64 {plain}/multi/x:all {plain}/multi/x:nosuch
manifest annotate --arch arm64 {plain}/multi/x:nosuch {plain}/multi/x:other
manifest annotate --os linux UPPER {plain}/multi/x:other
manifest inspect {plain}/multi/x:all
manifest push --insecure {plain}/multi/x:all
manifest push --insecure --purge {plain}/multi/x:all
manifest inspect --insecure {plain}/multi/x:all
manifest inspect -v --insecure {plain}/multi/x:all
manifest push --insecure {plain}/multi/x:all
manifest create --insecure {plain}/multi/z:1 {plain}/nosuch:1
manifest create --insecure {plain}/multi/z:2 {plain}/team/app:1
manifest push --insecure {plain}/multi/z:2
manifest create --insecure other.example/z:1 {plain}/team/app:1
manifest push other.example/z:1
manifest inspect other.example/z:1
manifest create --insecure {plain}/multi/z:3 {plain}/multi/x:all
manifest rm {plain}/multi/z:2 nosuch other.example/z:1
manifest create --insecure {plain}/oci/z:1 {plain}/oci/x:1
manifest inspect {plain}/oci/z:1
manifest push --insecure {plain}/oci/z:1
manifest inspect --insecure {plain}/oci/z:1
manifest inspect --insecure -v {plain}/oci/index:1
manifest inspect --insecure {plain}/oci/index:1
manifest create UPPER a
manifest create x:1 UPPER
manifest create x:1
manifest rm
manifest inspect UPPER
manifest create --insecure {plain}/multi/left:1 {plain}/multi/x:amd64 {plain}/oci/x:1
"""


def test_manifest_lists(peers: Peers, tmp_path: Path) -> None:
    """The same answers, the same files left behind, and in the registry the same digests."""
    for name, text in (("amd64", "1"), ("other", "2")):
        image = f"{peers.plain}/multi/x:{name}"
        peers.engine.docker("import", "-c", f"LABEL n={text}", "-", image, stdin=_layer())
        peers.engine.docker("push", "-q", image)
    _put_oci(peers.plain)
    shown: list[list[Result]] = []
    left = []
    for program in (["docker"], ESTIBA):
        folder = tmp_path / program[-1]
        folder.mkdir()
        env = {"DOCKER_CONFIG": str(folder)}
        shown.append([
            neutral(run(peers.engine, program, peers.line(line), env=env))
            for line in MANIFESTS.splitlines()
        ])  # fmt: skip
        left.append({
            str(path.relative_to(folder)): json.loads(path.read_text())
            for path in folder.glob("manifests/*/*")
        })  # fmt: skip
    for line, theirs, ours in zip(MANIFESTS.splitlines(), *shown, strict=True):
        assert ours == theirs, line
    assert left[0] == left[1] and len(left[0]) == 3


def test_a_manifest_list_with_a_password(peers: Peers, tmp_path: Path) -> None:
    env = {"DOCKER_CONFIG": str(tmp_path)}
    line = f"manifest inspect --insecure {peers.auth}/app"
    refused = run(peers.engine, ESTIBA, line, env=env)
    assert refused.code == 1 and "unauthorized" in refused.err
    login = f"login -u joe --password-stdin {peers.auth}"
    assert run(peers.engine, ESTIBA, login, b"s3cret", env=env).code == 0
    assert run(peers.engine, ESTIBA, f"push -q {peers.auth}/app", env=env).code == 0
    assert json.loads(run(peers.engine, ESTIBA, line, env=env).out)["schemaVersion"] == 2
    # No daemon is needed, neither for this nor for logging in.
    away = {**env, "DOCKER_HOST": f"unix://{tmp_path}/nosuch"}
    assert run(peers.engine, ESTIBA, line, env=away).code == 0
    shutil.rmtree(tmp_path)
    wrong = run(peers.engine, ESTIBA, login, b"wrong", env=away)
    assert (wrong.code, wrong.out) == (1, "") and "unauthorized" in wrong.err
    assert run(peers.engine, ESTIBA, login, b"s3cret", env=away).out == "Login Succeeded\n"
    assert run(peers.engine, ESTIBA, line, env=away).code == 0


def _put_oci(host: str) -> None:
    """An OCI image for arm64 without layers, and an index that names it."""
    config = json.dumps({"architecture": "arm64", "os": "linux", "variant": "v8"}).encode()
    described = _descriptor("application/vnd.oci.image.config.v1+json", config)
    _send(host, "oci/x", "blob", config)
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": kind, "config": described, "layers": [],
        "annotations": {"a": "<b>&\u00e9"},
    }, ensure_ascii=False).encode()  # fmt: skip
    _send(host, "oci/x", "1", manifest, kind)
    _send(host, "oci/index", "blob", config)
    _send(host, "oci/index", _descriptor(kind, manifest)["digest"], manifest, kind)
    index = "application/vnd.oci.image.index.v1+json"
    platform = {"architecture": "arm", "os": "linux", "variant": "v7"}
    content = {
        "schemaVersion": 2, "mediaType": index, "annotations": {"x": "y"},
        "manifests": [_descriptor(kind, manifest) | {"platform": platform}],
    }  # fmt: skip
    _send(host, "oci/index", "1", json.dumps(content).encode(), index)


def _descriptor(kind: str, data: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def _send(host: str, repository: str, target: str, data: bytes, kind: str = "") -> None:
    """A blob, or a manifest under a tag or its digest."""
    connection = http.client.HTTPConnection(host, timeout=30)
    base = f"/v2/{repository}"
    if target == "blob":
        connection.request("POST", f"{base}/blobs/uploads/")
        response = connection.getresponse()
        response.read()
        place = response.headers["Location"]
        join = "&" if "?" in place else "?"
        path = f"{place}{join}digest={_descriptor('', data)['digest']}"
    else:
        path = f"{base}/manifests/{target}"
    connection.request("PUT", path, data, {"Content-Type": kind or "application/octet-stream"})
    response = connection.getresponse()
    assert response.status == 201, response.read()
    connection.close()


def test_headers_of_the_user_are_sent(tmp_path: Path) -> None:
    """`HttpHeaders` go with every request to the daemon; one that would break it is refused."""
    seen: list[dict[str, str]] = []

    class Daemon(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing on the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Daemon)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for value, code in (("v w", 0), ("v\r\nX-Injected: 1", 1)):
            (tmp_path / "config.json").write_text(json.dumps({"HttpHeaders": {"X-Meta": value}}))
            done = subprocess.run(
                [*ESTIBA, "-H", f"tcp://127.0.0.1:{server.server_port}", "ps"],
                env={**os.environ, "DOCKER_CONFIG": str(tmp_path)}, capture_output=True, check=False,
            )  # fmt: skip
            assert done.returncode == code, done.stderr
    finally:
        server.shutdown()
        server.server_close()
    assert seen and all(headers["X-Meta"] == "v w" for headers in seen)
    assert not any("X-Injected" in headers for headers in seen)
