"""`estiba build` as a whole, against a daemon of which only the wire format is real."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.buildserver import (
    DEADLINE_S,
    IMAGE,
    BuildServer,
    Play,
    Sent,
    build_server,
    finished,
    log,
    result,
    started,
)

from estiba.cli import main
from estiba.cli.completion import complete
from estiba.client.host import forget_config

ESTIBA = [sys.executable, "-m", "estiba.cli.main"]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a context `ctx`, and no configuration."""
    monkeypatch.setenv("ESTIBA_CONFIG", str(tmp_path / "config"))
    for name in ("SOURCE_DATE_EPOCH", "BUILDKIT_PROGRESS", "ESTIBA_DEBUG", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    context = tmp_path / "ctx"
    (context / "sub").mkdir(parents=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (context / "sub" / "file").write_text("content")
    forget_config()
    yield context
    forget_config()


def succeed(_sent: Sent) -> Iterator[dict]:
    yield started(1, "[1/1] FROM scratch")
    yield finished(1)
    yield result()


@dataclass
class Done:
    code: int
    out: str
    err: str
    server: BuildServer

    @property
    def sent(self) -> Sent:
        return self.server.builds[0]


Run = Callable[..., Done]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Run]:
    """Runs `estiba build WORDS` in this process, against a server that plays `play`."""

    def run_one(
        *words: str, play: Play = succeed, set_up: Callable[[BuildServer], None] | None = None
    ) -> Done:
        with build_server(play) as server:
            if set_up is not None:
                set_up(server)
            code = main._guarded(["-H", server.url, "build", *words])
            sys.stdout.flush()
            out, err = capfdbinary.readouterr()
            return Done(code, out.decode(errors="replace"), err.decode(), server)

    return run_one


# -- contexts ------------------------------------------------------------------------------


def test_a_directory(run: Run) -> None:
    done = run("ctx")
    assert (done.code, done.out) == (0, "")
    assert done.sent.order == [
        "request.json", "dockerignore", "contexts/context", "contexts/context/Dockerfile",
        "contexts/context/sub", "contexts/context/sub/file",
    ]  # fmt: skip
    assert done.sent.request == {"dockerfile": "Dockerfile"}
    assert done.sent.data["contexts/context/sub/file"] == b"content"


def test_the_ignore_file(run: Run, surroundings: Path) -> None:
    (surroundings / ".dockerignore").write_text("sub\n")
    (surroundings / "other.Dockerfile").write_text("FROM scratch\n")
    done = run("ctx")
    assert "contexts/context/sub" not in done.sent.members
    assert done.sent.data["dockerignore"] == b"sub\n"
    (surroundings / "other.Dockerfile.dockerignore").write_text("# mine\nDockerfile\n")
    done = run("-f", "ctx/other.Dockerfile", "ctx")
    assert "contexts/context/sub" in done.sent.members
    assert "contexts/context/Dockerfile" not in done.sent.members
    assert done.sent.data["dockerignore"] == b"# mine\nDockerfile\n"
    assert done.sent.request["dockerfile"] == "other.Dockerfile"


def test_a_dockerfile_that_is_ignored_is_built_and_not_copied(run: Run, surroundings: Path) -> None:
    (surroundings / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
    done = run("ctx")
    assert done.sent.data["dockerfile"] == b"FROM scratch\nCOPY . /\n"
    assert done.sent.request["dockerfile"] == "Dockerfile"
    assert "contexts/context/Dockerfile" not in done.sent.members


def test_a_dockerfile_from_elsewhere(
    run: Run, tmp_path: Path, surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Elsewhere").write_text("FROM a\n")
    (surroundings / "linked").symlink_to("../Elsewhere")
    for path in ("Elsewhere", str(tmp_path / "Elsewhere"), "ctx/linked", "ctx/../Elsewhere"):
        done = run("--file", path, "ctx")
        assert done.sent.data["dockerfile"] == b"FROM a\n", path
        assert done.sent.request["dockerfile"] == Path(path).name
    monkeypatch.chdir(surroundings / "sub")
    assert run("-f", "../Dockerfile", "..").sent.request["dockerfile"] == "Dockerfile"
    (surroundings / "sub" / "Dockerfile").write_text("FROM b\n")
    assert run("-f", "Dockerfile", "..").sent.request["dockerfile"] == "sub/Dockerfile"


def test_the_other_spelling(run: Run, surroundings: Path) -> None:
    (surroundings / "Dockerfile").rename(surroundings / "dockerfile")
    assert run("ctx").sent.request["dockerfile"] == "dockerfile"


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_dockerfile_on_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, b"FROM busybox\n")
    done = run("-")
    assert done.sent.order == ["request.json", "dockerfile", "contexts/context"]
    assert done.sent.data["dockerfile"] == b"FROM busybox\n"
    feed(monkeypatch, b"FROM busybox\n")
    done = run("-f", "-", "ctx")
    assert done.sent.data["dockerfile"] == b"FROM busybox\n"
    assert "contexts/context/sub/file" in done.sent.members


def test_a_tar_on_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add("ctx", "./")
    feed(monkeypatch, buffer.getvalue())
    done = run("-f", "sub/Other", "-")
    assert done.sent.data["contexts/context/sub/file"] == b"content"
    assert done.sent.request == {"dockerfile": "sub/Other"}


@pytest.mark.parametrize(
    "url",
    ["https://example.com/a.tar.gz", "git@example.com:a/b.git", "github.com/a/b#main:dir",
     "https://example.com/a/b.git#v1", "ssh://git@h/a", "user@host:a.git"],
)  # fmt: skip
def test_a_remote_context(run: Run, url: str) -> None:
    done = run("-f", "docker/File", url)
    assert done.sent.order == ["request.json"]
    assert done.sent.request == {"remote": url, "dockerfile": "docker/File"}


def test_named_contexts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lib" / "skipped").mkdir(parents=True)
    (tmp_path / "lib" / "part.c").write_text("int x;")
    (tmp_path / "lib" / ".dockerignore").write_text("skipped")
    done = run(
        "--build-context", "lib=lib", "--build-context", "base=docker-image://busybox",
        "--build-context", "src=https://example.com/x.git", "ctx",
    )  # fmt: skip
    assert done.sent.request["contexts"] == {
        "lib": "local", "base": "docker-image://busybox", "src": "https://example.com/x.git",
    }  # fmt: skip
    assert done.sent.data["contexts/lib/part.c"] == b"int x;"
    assert "contexts/lib/skipped" not in done.sent.members


def test_a_local_cache_is_sent(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cache" / "blobs").mkdir(parents=True)
    (tmp_path / "cache" / "index.json").write_text("{}")
    done = run("--cache-from", "r/c", "--cache-from", "type=local,src=cache", "ctx")
    assert done.sent.data["caches/1/index.json"] == b"{}"
    assert "caches/1/blobs" in done.sent.members


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nowhere"], 'unable to prepare context: path "nowhere" not found'),
        (["ctx/Dockerfile"], "unable to prepare context: ctx/Dockerfile is no directory"),
        (["ctx/sub"], "open ctx/sub/Dockerfile: no such file or directory: name another one with"),
        (["-f", "none", "ctx"], "failed to read dockerfile: open none: no such file"),
        (["-f", "-", "-"], "can't use stdin for both build context and dockerfile"),
        (["--build-context", "x", "ctx"], "NAME=DIRECTORY"),
        (["--build-context", "x=nowhere", "ctx"], "build context x: nowhere is no directory"),
        (["--build-context", "a/b=ctx", "ctx"], "a directory cannot be called so"),
        (["--build-context", "x=oci-layout://y", "ctx"], "is no directory, no URL"),
        (["--progress", "loud", "ctx"], "one of auto, plain, tty"),
        (["--progress", "tty", "ctx"], "--progress=tty needs a terminal"),
        (["-o", "type=tar,dest=ctx", "ctx"], "ctx is a directory: type tar makes a file"),
        (["-o", "ctx/Dockerfile", "ctx"], "ctx/Dockerfile is no directory"),
        (["--ssh", "default", "ctx"], "SSH_AUTH_SOCK is not set; start one"),
        (["--ssh", "default=nowhere", "ctx"], "nowhere: no such file or directory"),
    ],
)
def test_refused_before_the_daemon_is_asked(run: Run, words: list[str], reason: str) -> None:
    done = run(*words)
    assert done.code in (1, 125)
    assert reason in done.err
    assert not done.server.builds


def test_an_ignore_file_that_makes_no_sense(run: Run, surroundings: Path) -> None:
    (surroundings / ".dockerignore").write_text("ok\n[a\n")
    assert "ctx/.dockerignore:2" in run("ctx").err


def test_a_file_that_cannot_be_sent_ends_the_build(run: Run, surroundings: Path) -> None:
    """The daemon sees a request that breaks off, and no build is left waiting for more."""
    deep = surroundings / "deep"
    for _ in range(410):
        deep.mkdir()
        os.chdir(deep)
        deep = Path("d")
    os.chdir(surroundings.parent)
    done = run("ctx")
    assert done.code == 1
    assert "directories in one another" in done.err
    assert done.server.gone.wait(DEADLINE_S)
    assert not done.server.builds


# -- what goes with it ---------------------------------------------------------------------


def test_proxies_and_credentials(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").mkdir()
    auth = base64.b64encode(b"joe:s3cret").decode()
    (tmp_path / "config" / "config.json").write_text(
        json.dumps(
            {
                "proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "x"}},
                "auths": {"r.example:5000": {"auth": auth}},
            }
        )
    )
    forget_config()
    done = run("--build-arg", "http_proxy=", "--build-arg", "A=b", "ctx")
    assert done.sent.request["build_args"] == {
        "HTTP_PROXY": "http://p:1", "http_proxy": "", "NO_PROXY": "x", "no_proxy": "x", "A": "b",
    }  # fmt: skip
    sent = json.loads(base64.urlsafe_b64decode(done.sent.headers["x-registry-config"]))
    assert sent == {
        "r.example:5000": {
            "username": "joe", "password": "s3cret", "serveraddress": "r.example:5000",
        }
    }  # fmt: skip
    assert "s3cret" not in done.err


def test_a_secret_goes_in_the_body_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    done = run("--secret", "id=t,env=TOKEN", "ctx")
    assert base64.b64decode(done.sent.request["secrets"]["t"]) == b"hunter2"
    assert done.sent.members["request.json"].mode == 0o600
    assert "hunter2" not in done.err + str(done.server.asked) + str(done.sent.headers)


# -- results -------------------------------------------------------------------------------


def test_quiet_prints_the_id(run: Run) -> None:
    for words in (["-q"], ["--quiet", "--progress=plain"]):
        done = run(*words, "ctx")
        assert (done.out, done.err) == (f"{IMAGE}\n", "")
    assert run("--progress=quiet", "ctx").err == ""


def test_progress_goes_to_stderr(run: Run) -> None:
    done = run("-t", "a:1", "ctx", play=lambda _: [result(tags=["docker.io/library/a:1"])])
    assert done.out == ""
    assert f"Built {IMAGE}\nTagged docker.io/library/a:1\n" in done.err


def test_json_progress_is_the_daemons_lines(run: Run) -> None:
    for mode in ("json", "rawjson"):
        done = run("--progress", mode, "ctx")
        lines = [json.loads(line) for line in done.err.splitlines()]
        assert lines == list(succeed(done.sent))
        assert done.out == ""


def test_files_about_the_result(run: Run, tmp_path: Path) -> None:
    (tmp_path / "id").write_text("an older one")
    told = {"containerimage.digest": IMAGE, "n": 1}
    done = run(
        "--iidfile", "id", "--metadata-file", "meta.json", "ctx",
        play=lambda _: [result(metadata=told)],
    )  # fmt: skip
    assert done.code == 0
    assert (tmp_path / "id").read_text() == IMAGE
    assert json.loads((tmp_path / "meta.json").read_text()) == told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ctx", "id", "meta.json"]


def test_an_older_id_does_not_outlive_a_failure(run: Run, tmp_path: Path) -> None:
    (tmp_path / "id").write_text("an older one")
    assert run("--iidfile", "id", "ctx", play=lambda _: [{"error": "no"}]).code == 1
    assert not (tmp_path / "id").exists()


def output_tar(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size, info.mode = 0 if name.endswith("/") else 4, 0o750
            tar.addfile(info, io.BytesIO(b"made"))
    return buffer.getvalue()


def with_outputs(*kinds: str) -> tuple[Play, Callable[[BuildServer], None]]:
    told = [{"index": i, "type": kind, "token": f"t{i}"} for i, kind in enumerate(kinds)]

    def set_up(server: BuildServer) -> None:
        server.outputs = {f"t{i}": output_tar("./", "./bin/", "bin/x") for i in range(len(kinds))}

    return lambda _: [result(outputs=told)], set_up


def test_a_directory_as_output(run: Run, tmp_path: Path) -> None:
    play, set_up = with_outputs("local")
    (tmp_path / "out").mkdir(mode=0o700)
    (tmp_path / "out" / "mine").write_text("stays")
    done = run("-o", "out", "ctx", play=play, set_up=set_up)
    assert done.code == 0
    assert (tmp_path / "out" / "bin" / "x").read_text() == "made"
    assert (tmp_path / "out" / "bin" / "x").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "out" / "mine").read_text() == "stays"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert done.sent.request["outputs"] == [{"type": "local"}]
    assert "[internal] write local to out" in done.err


def test_an_output_never_leaves_its_directory(run: Run, tmp_path: Path) -> None:
    play, set_up = with_outputs("local")
    (tmp_path / "out").mkdir()
    (tmp_path / "victim").mkdir()
    (tmp_path / "out" / "bin").symlink_to("../victim")
    done = run("-o", "out", "ctx", play=play, set_up=set_up)
    assert done.code == 1
    assert "cannot write out" in done.err
    assert not list((tmp_path / "victim").iterdir())
    (tmp_path / "out" / "bin").unlink()

    def climb(server: BuildServer) -> None:
        server.outputs = {"t0": output_tar("../evil")}

    assert "leads out of it" in run("-o", "out", "ctx", play=play, set_up=climb).err
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("words", [["-o", "out"], ["--cache-to", "type=local,dest=out"]])
def test_an_output_that_is_missing_is_told(run: Run, tmp_path: Path, words: list[str]) -> None:
    done = run(*words, "ctx")
    assert done.code == 1
    assert "the daemon has made no " in done.err
    assert not (tmp_path / "out").exists()


def test_a_file_as_output(run: Run, tmp_path: Path) -> None:
    _, set_up = with_outputs("oci", "cache")
    told = [
        {"index": 0, "type": "oci", "token": "t0"},
        {"index": 1, "type": "cache", "token": "t1"},
    ]
    done = run(
        "-o", "type=oci,dest=a.tar", "--cache-to", "type=inline", "--cache-to",
        "type=local,dest=kept", "ctx", play=lambda _: [result(outputs=told)], set_up=set_up,
    )  # fmt: skip
    assert done.code == 0
    assert (tmp_path / "a.tar").read_bytes() == output_tar("./", "./bin/", "bin/x")
    assert (tmp_path / "kept" / "bin" / "x").read_text() == "made"
    assert not list(tmp_path.glob("*.tmp"))


def test_stdout_as_output(run: Run) -> None:
    play, set_up = with_outputs("tar")
    done = run("-q", "-o", "-", "ctx", play=play, set_up=set_up)
    assert done.out.encode() == output_tar("./", "./bin/", "bin/x")


def test_a_cut_output_leaves_no_file(run: Run, tmp_path: Path) -> None:
    told = [{"index": index, "type": "tar", "token": "t"} for index in (7, 0)]
    done = run("-o", "type=tar,dest=a.tar", "ctx", play=lambda _: [result(outputs=told)])
    assert "output that was not asked for" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ctx"]


# -- failures ------------------------------------------------------------------------------

_EXCERPT = """\
1 |     FROM scratch
2 | >>> RUN make
  |     ^"""
_FAILED = {
    "error": "The command 'make' returned a non-zero code: 2",
    "errorDetail": {"message": "The command 'make' returned a non-zero code: 2"},
    "failed": {
        "excerpt": _EXCERPT, "line": 2, "end_line": 2, "column": 1, "vertex": 2, "exit_code": 2,
        "output": "cc: no input\n", "state": IMAGE,
    },
}  # fmt: skip


def fail(_sent: Sent) -> Iterator[dict]:
    yield started(2, "[2/2] RUN make")
    yield log(2, "cc: no input\n", 2)
    yield finished(2, error="exit code 2")
    yield _FAILED


def test_a_program_that_reads_events_gets_nothing_else(run: Run) -> None:
    done = run("--progress=json", "ctx", play=fail)
    assert (done.code, done.out) == (1, "")
    assert [json.loads(line) for line in done.err.splitlines()] == list(fail(done.sent))


@pytest.mark.parametrize("words", [[], ["-q"], ["--debug"]])
def test_a_step_that_fails(run: Run, words: list[str]) -> None:
    done = run(*words, "ctx", play=fail)
    assert (done.code, done.out) == (1, "")
    assert done.err.endswith(
        "------\n > [2/2] RUN make:\ncc: no input\n------\n"
        f"Dockerfile:2\n{'-' * 20}\n{_EXCERPT}\n{'-' * 20}\n"
        "ERROR: failed to build: The command 'make' returned a non-zero code: 2\n"
        f"The state at which it failed is {IMAGE}\n"
        "Look around in it: estiba run -it --rm abababababab\n"
        + ("" if "--debug" in words else "or build with --debug, which opens a shell there\n")
    )


def test_a_failure_that_is_no_steps(run: Run) -> None:
    done = run("ctx", play=lambda _: [{"error": "unknown instruction: RUM"}])
    assert done.code == 1
    assert done.err.endswith("ERROR: failed to build: unknown instruction: RUM\n")


def test_a_request_that_is_refused(run: Run) -> None:
    def refuse(server: BuildServer) -> None:
        server.refusal = (400, "unknown member of request.json: x")

    done = run("ctx", set_up=refuse)
    assert done.code == 1
    assert "Error response from daemon: unknown member of request.json: x" in done.err


@pytest.mark.parametrize("lines", [[], [started(1, "a")]])
def test_an_answer_without_an_end(run: Run, lines: list[dict]) -> None:
    done = run("ctx", play=lambda _: lines)
    assert done.code == 1
    assert "the daemon ended the build without a result" in done.err


# -- the cache, warnings -------------------------------------------------------------------


def explained(_sent: Sent) -> Iterator[dict]:
    yield started(1, "[1/2] RUN a")
    yield finished(1, cached=True, reason="hit: same text, same base")
    yield started(2, "[2/2] COPY . .")
    yield finished(2, 1.25, reason="miss: sub/file changed")
    yield result()


def test_explain_cache(run: Run) -> None:
    done = run("--explain-cache", "ctx", play=explained)
    assert "#2 CACHED\n#2 cache hit: same text, same base\n" in done.err
    assert "#3 DONE 1.2s\n#3 cache miss: sub/file changed\n" in done.err
    assert (
        "STEP            CACHE  TIME  REASON\n"
        "[1/2] RUN a     hit    0.0s  same text, same base\n"
        "[2/2] COPY . .  miss   1.2s  sub/file changed\n"
    ) in done.err
    assert "STEP" not in run("ctx", play=explained).err


_WARNING = {
    "warning": {
        "rule": "JSONArgsRecommended", "message": "use the JSON form for CMD",
        "detail": "signals reach the program then", "line": 2, "column": 1, "end_line": 2,
    }
}  # fmt: skip


def test_check(run: Run) -> None:
    done = run("--check", "ctx", play=lambda _: [_WARNING, result(image="", warnings=1)])
    assert done.code == 1
    assert done.sent.request["check"] is True
    # Nothing but the Dockerfile is of interest.
    assert done.sent.order == ["request.json", "dockerfile", "dockerignore", "contexts/context"]
    assert done.out == (
        "Check complete, 1 warning has been found!\n"
        "\n"
        "WARNING: JSONArgsRecommended - "
        "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n"
        "use the JSON form for CMD\n"
        "signals reach the program then\n"
        "Dockerfile:2\n"
        "--------------------\n"
        "   1 |     FROM scratch\n"
        "   2 | >>> COPY . /\n"
        "--------------------\n"
    )


def test_warnings_that_are_errors(run: Run) -> None:
    def play(_sent: Sent) -> list[dict]:
        return [_WARNING, {"error": "lint violation found for rules: JSONArgsRecommended"}]

    done = run("--check", "ctx", play=play)
    assert done.code == 1
    assert done.out.startswith("Check complete, 1 warning has been found!\n")
    done = run("ctx", play=play)
    assert done.code == 1
    assert " 1 warning found" in done.err
    assert done.err.endswith("lint violation found for rules: JSONArgsRecommended\n")


def test_check_without_warnings(run: Run) -> None:
    done = run("--call=check", "ctx", play=lambda _: [result(image="")])
    assert (done.code, done.out) == (0, "Check complete, no warnings found.\n")


def test_warnings_of_a_build(run: Run) -> None:
    done = run("ctx", play=lambda _: [_WARNING, result(warnings=1)])
    assert done.code == 0
    assert (
        " 1 warning found (use --check to see more):\n"
        " - JSONArgsRecommended: use the JSON form for CMD (line 2)\n"
    ) in done.err


# -- ssh agents ----------------------------------------------------------------------------


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """An agent that answers every question with the question, and its name."""
    path = tmp_path / "agent"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1000):
                connection.sendall(b"agent: " + data)

    def accept() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield path
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_an_agent_is_lent(run: Run, agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    servers: list[BuildServer] = []
    answers: list[bytes] = []

    def play(sent: Sent) -> Iterator[dict]:
        session, name, connection = servers[0].take_agent()
        assert (session, name) == (sent.request["session"], "default")
        connection.sendall(b"hello")
        answers.append(connection.recv(1000))
        second = servers[0].take_agent()[2]
        second.sendall(b"again")
        answers.append(second.recv(1000))
        connection.sendall(b"still here")
        answers.append(connection.recv(1000))
        for one in (connection, second):
            one.shutdown(socket.SHUT_RDWR)
            one.close()
        yield result()

    assert run("--ssh", "default", "ctx", play=play, set_up=servers.append).code == 0
    assert answers == [b"agent: hello", b"agent: again", b"agent: still here"]


@pytest.mark.skipif(not shutil.which("ssh-agent"), reason="needs OpenSSH's agent")
def test_a_key_gets_an_agent_of_its_own(run: Run, tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of the test", "-f", "key"],
        check=True,
    )
    servers: list[BuildServer] = []
    answers: list[bytes] = []

    def play(_sent: Sent) -> Iterator[dict]:
        connection = servers[0].take_agent()[2]
        connection.sendall(b"\x00\x00\x00\x01\x0b")  # which identities are there?
        answers.append(connection.recv(1000))
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        yield result()

    before = {path.name for path in Path("/tmp").glob("estiba-ssh-*")}
    assert run("--ssh", "git=key", "ctx", play=play, set_up=servers.append).code == 0
    assert b"of the test" in answers[0]
    assert {path.name for path in Path("/tmp").glob("estiba-ssh-*")} == before
    (tmp_path / "nokey").write_text("nothing")
    (tmp_path / "nokey").chmod(0o600)
    assert "the agent takes no such key" in run("--ssh", "git=nokey", "ctx").err
    assert {path.name for path in Path("/tmp").glob("estiba-ssh-*")} == before


# -- ending it -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupt_cancels(number: int, code: int) -> None:
    servers: list[BuildServer] = []

    def play(_sent: Sent) -> Iterator[dict]:
        yield started(1, "[1/1] RUN sleep")
        while not servers[0].gone.wait(0.01):
            yield log(1, "tick\n")

    with build_server(play) as server:
        servers.append(server)
        command = [*ESTIBA, "-H", server.url, "build", "ctx"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            while b"tick" not in (line := process.stderr.readline()):
                assert line, "the build ended"
            process.send_signal(number)
            _, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == code
        assert server.gone.wait(DEADLINE_S)
        assert b"CANCELED" in err
        assert b"Traceback" not in err


# -- completion ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("build --target ", ["base", "final"]),
        ("build -f other --target ", ["o"]),
        ("image build ctx --no-cache-filter b", ["base"]),
        ("builder build -f none --target ", []),
        ("buildx build --progress j", ["json"]),
        ("build -o type=l", ["type=local,dest="]),
        ("build --ch", ["--check"]),
        ("builder ", ["build", "du", "prune"]),
    ],
)
def test_completion(
    line: str, found: list[str], surroundings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (surroundings / "Dockerfile").write_text(
        "FROM x AS base\nRUN a AS b\nfrom --x=y base as final\n"
    )
    (surroundings / "other").write_text("FROM x AS o\n")
    os.chdir(surroundings if "ctx" not in line else surroundings.parent)
    assert complete(line.split(" ")) == 0
    assert capsys.readouterr().out.split() == found
