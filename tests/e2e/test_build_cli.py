"""`estiba build` with a whole daemon: what it says, what it leaves here, what it leaves there."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.daemon import DEADLINE_S, PrivateDaemon, wait_until
from tests.support.registries import GenuineRegistry, genuine_registry
from tests.support.screen import Screen
from tests.support.terminal import Terminal

pytestmark = pytest.mark.e2e
ESTIBA = [sys.executable, "-m", "estiba.cli.main"]


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the build is called, with a context `ctx` below it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ctx" / "sub").mkdir(parents=True)
    (tmp_path / "ctx" / "sub" / "file").write_text("content\n")
    yield tmp_path / "ctx"


def environment(daemon: PrivateDaemon) -> dict[str, str]:
    return {**daemon.client_environment(), "ESTIBA_HOST": daemon.url}


def estiba(
    daemon: PrivateDaemon, *words: str, stdin: bytes = b"", code: int = 0, **variables: str
) -> tuple[str, str]:
    """STDOUT and STDERR."""
    done = subprocess.run(
        [*ESTIBA, *words], input=stdin, capture_output=True, check=False, timeout=2 * DEADLINE_S,
        env={**environment(daemon), **variables},
    )  # fmt: skip
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode()
    assert done.returncode == code, f"{done.returncode}\n{out}\n{err}"
    return out, err


def write(context: Path, dockerfile: str) -> None:
    (context / "Dockerfile").write_text(dockerfile)


def output_of(daemon: PrivateDaemon, image: str, *command: str) -> str:
    return daemon.run("--network", "none", image, *command)


# -- ways in -------------------------------------------------------------------------------


def test_a_directory(daemon: PrivateDaemon, context: Path) -> None:
    write(context, "FROM busybox\nCOPY sub /there\nRUN echo made >/made\n")
    (context / "ignored").write_text("x")
    (context / ".dockerignore").write_text("ignored\n")
    out, err = estiba(daemon, "build", "-t", "cli:dir", "--label", "a=b", "ctx")
    assert out == ""
    assert "#1 [internal] load build context\n" in err
    assert re.search(r"#\d+ \[.*3/3\] RUN echo made >/made\n", err)
    assert re.search(r"^Built sha256:[0-9a-f]{64}\nTagged cli:dir\n\Z", err, re.M)
    assert output_of(daemon, "cli:dir", "cat", "/there/file", "/made") == "content\nmade\n"
    view = daemon.request("GET", "/images/cli:dir/json")[1]
    assert view["Config"]["Labels"] == {"a": "b"}
    out, err = estiba(daemon, "build", "-q", "ctx")
    assert (re.fullmatch(r"sha256:[0-9a-f]{64}\n", out) is not None, err) == (True, "")
    assert out.strip() == daemon.request("GET", f"/images/{out.strip()}/json")[1]["Id"]


def test_other_contexts(daemon: PrivateDaemon, context: Path, tmp_path: Path) -> None:
    dockerfile = b"FROM busybox\nRUN echo from stdin >/made\n"
    estiba(daemon, "image", "build", "-q", "-t", "cli:stdin", "-", stdin=dockerfile)
    assert output_of(daemon, "cli:stdin", "cat", "/made") == "from stdin\n"

    copying = b"FROM busybox\nCOPY sub/file /made\n"
    estiba(daemon, "buildx", "build", "-q", "-t", "cli:f", "-f", "-", "ctx", stdin=copying)
    assert output_of(daemon, "cli:f", "cat", "/made") == "content\n"

    write(context, copying.decode())
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add("ctx", ".")
    estiba(daemon, "builder", "build", "-q", "-t", "cli:tar", "-", stdin=buffer.getvalue())
    assert output_of(daemon, "cli:tar", "cat", "/made") == "content\n"

    (tmp_path / "Elsewhere").write_text("FROM busybox\nCOPY --from=more note /made\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "note").write_text("of another context\n")
    words = ["-f", "Elsewhere", "--build-context", "more=lib", "-t", "cli:more", "ctx"]
    estiba(daemon, "build", "-q", *words)
    assert output_of(daemon, "cli:more", "cat", "/made") == "of another context\n"


def test_secrets_and_arguments_leave_no_trace(daemon: PrivateDaemon, context: Path) -> None:
    write(
        context,
        "FROM busybox\nARG WORD\nRUN --mount=type=secret,id=t cat /run/secrets/t | wc -c >/n\n"
        "RUN echo $WORD >/word\n",
    )
    words = ["--secret", "id=t,env=TOKEN", "--build-arg", "WORD", "-t", "cli:secret", "ctx"]
    _, err = estiba(daemon, "build", *words, TOKEN="hunter2", WORD="given")
    assert output_of(daemon, "cli:secret", "cat", "/n", "/word").split() == ["7", "given"]
    assert "hunter2" not in err
    assert b"hunter2" not in daemon.docker("save", "cli:secret").stdout
    assert b"hunter2" not in daemon.log.read_bytes()


@pytest.mark.skipif(not shutil.which("ssh-agent"), reason="needs OpenSSH's programs")
def test_an_agent_is_lent(daemon: PrivateDaemon, context: Path) -> None:
    """A program in a step lists the keys of the agent that this client starts for one."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of the test", "-f", "key"],
        check=True,
    )
    program = shutil.which("ssh-add") or ""
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for path in (program, *re.findall(r"=> (/\S+)", linked)):
        shutil.copy(path, context / "sub")
    listing = "LD_LIBRARY_PATH=/ssh /ssh/ssh-add -l"
    write(
        context,
        f"FROM busybox\nCOPY sub /ssh\nRUN --mount=type=ssh {listing}\n"
        f"RUN --mount=type=ssh,id=git {listing}; {listing}\nRUN ! {listing}\n",
    )
    words = ["--ssh", "default=key", "--ssh", "git=key", "ctx"]
    _, err = estiba(daemon, "build", *words)
    assert len(re.findall(r"#\d+ [0-9.]+ 256 SHA256:\S+ of the test \(ED25519\)\n", err)) == 3
    write(context, "FROM busybox\nRUN --mount=type=ssh,required=true true\n")
    _, err = estiba(daemon, "build", "ctx", code=1)
    assert "--ssh default" in err


# -- results -------------------------------------------------------------------------------


def test_outputs(daemon: PrivateDaemon, context: Path, tmp_path: Path) -> None:
    write(
        context,
        "FROM busybox AS make\nRUN mkdir /o && echo x >/o/f && chmod 4711 /o/f && ln -s /etc/x /o/l"
        "\nFROM scratch\nCOPY --from=make /o /\n",
    )
    estiba(daemon, "build", "-o", "out", "ctx")
    assert (tmp_path / "out" / "f").read_text() == "x\n"
    assert (tmp_path / "out" / "f").stat().st_mode & 0o7777 == 0o4711
    assert os.readlink(tmp_path / "out" / "l") == "/etc/x"

    done = subprocess.run(
        [*ESTIBA, "build", "-o", "-", "ctx"], env=environment(daemon), capture_output=True,
        check=True,
    )  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert {name.strip("./") for name in tar.getnames()} >= {"f", "l"}

    with in_terminal(daemon, "build", "-o", "type=tar,dest=b.tar", "ctx") as terminal:
        assert terminal.wait() == 0
    assert b"[internal] write tar to b.tar" in terminal.seen
    with tarfile.open("b.tar") as tar:
        assert "f" in {name.strip("./") for name in tar.getnames()}

    estiba(daemon, "build", "-t", "cli:oci", "-o", "type=oci,dest=a.oci", "ctx")
    with tarfile.open("a.oci") as tar:
        assert "oci-layout" in tar.getnames()
    estiba(daemon, "build", "-t", "cli:docker", "-o", "type=docker,dest=a.tar", "ctx")
    loaded = daemon.docker("load", "-i", "a.tar").stdout
    assert b"cli:docker" in loaded


def images_of(daemon: PrivateDaemon) -> set[str]:
    return {one["Id"] for one in daemon.request("GET", "/images/json")[1]}


def test_what_is_only_put_out_is_no_image_here(daemon: PrivateDaemon, context: Path) -> None:
    """Or it would stand untagged among the images, and its cache could not be pruned."""
    write(context, "FROM busybox\nRUN echo passing >/f\nRUN echo again >/g\n")
    before = images_of(daemon)
    estiba(daemon, "build", "-o", "out", "ctx")
    estiba(daemon, "build", "-o", "type=tar,dest=b.tar", "--squash", "ctx")
    stated = ["--sbom=true", "--provenance=max"]
    estiba(daemon, "build", *stated, "-t", "not:here", "-o", "type=oci,dest=a.oci", "ctx")
    estiba(daemon, "build", *stated, "--squash", "-o", "type=oci,dest=squashed.oci", "ctx")
    assert images_of(daemon) == before
    for archive in ("a.oci", "squashed.oci"):
        with tarfile.open(archive) as tar:
            index = json.load(tar.extractfile("index.json") or io.BytesIO())
            assert len(index["manifests"]) == 3, "the image and what is stated of it"
            named = {name.rpartition("/")[2] for name in tar.getnames()}
            (config,) = (
                json.load(tar.extractfile(f"blobs/sha256/{digest}") or io.BytesIO())["config"]
                for digest in [index["manifests"][0]["digest"].removeprefix("sha256:")]
            )
            assert config["digest"].removeprefix("sha256:") in named
    estiba(daemon, "build", "-o", "out", "--load", "-t", "cli:loaded", "ctx")
    loaded = images_of(daemon) - before
    assert len(loaded) == 1
    estiba(daemon, "build", "-o", "out", "ctx")
    assert images_of(daemon) - before == loaded, "what was there before stays"


def test_what_was_only_put_out_counts_for_the_caches_budget(
    make_daemon: Callable[..., PrivateDaemon], context: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "daemon.json"
    settings.write_text('{"builder": {"gc": {"enabled": true, "defaultKeepStorage": "1MB"}}}')
    daemon = make_daemon("--config-file", str(settings))
    daemon.start()
    daemon.import_busybox()
    write(context, "FROM busybox\nRUN dd if=/dev/zero of=/f bs=1000 count=3000\n")
    estiba(daemon, "build", "-o", "out", "ctx")
    assert (tmp_path / "out" / "f").stat().st_size == 3_000_000
    wait_until(
        lambda: not daemon.request("GET", "/system/df?type=build-cache")[1]["BuildCache"],
        what="the cache to come below its budget",
    )


def test_a_push_that_fails_leaves_no_image_either(daemon: PrivateDaemon, context: Path) -> None:
    write(context, "FROM busybox\nRUN echo unpushed >/f\n")
    before = images_of(daemon)
    pushed = "type=registry,name=127.0.0.1:9/nobody:1"
    estiba(daemon, "build", "-o", pushed, "ctx", code=1)
    assert images_of(daemon) == before


def test_files_about_the_result(daemon: PrivateDaemon, context: Path) -> None:
    write(context, "FROM busybox\nCOPY sub /\n")
    out, _ = estiba(daemon, "build", "-q", "--iidfile", "id", "--metadata-file", "meta", "ctx")
    assert Path("id").read_text() == out.strip()
    assert out.strip() in Path("meta").read_text()
    assert isinstance(json.loads(Path("meta").read_text()), dict)


def test_a_local_cache_travels(daemon: PrivateDaemon, context: Path, tmp_path: Path) -> None:
    write(context, "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid >/made\n")
    estiba(daemon, "build", "-t", "cli:first", "--cache-to", "type=local,dest=kept", "ctx")
    assert (tmp_path / "kept" / "index.json").exists()
    made = output_of(daemon, "cli:first", "cat", "/made")
    daemon.docker("rmi", "cli:first")
    estiba(daemon, "builder", "prune", "-af")
    words = ["--cache-from", "type=local,src=kept", "-t", "cli:again", "ctx"]
    _, err = estiba(daemon, "build", *words)
    assert "CACHED" in err
    assert output_of(daemon, "cli:again", "cat", "/made") == made


def test_the_cache_is_explained(daemon: PrivateDaemon, context: Path) -> None:
    write(context, "FROM busybox\nCOPY sub /sub\nRUN echo $$ >/explained\n")
    estiba(daemon, "build", "-q", "ctx")
    _, err = estiba(daemon, "build", "--explain-cache", "ctx")
    assert re.search(r"#\d+ CACHED\n#\d+ cache hit: .+\n", err)
    assert re.search(r"^STEP +CACHE +TIME +REASON$", err, re.M)
    (context / "sub" / "file").write_text("changed\n")
    _, err = estiba(daemon, "build", "--explain-cache", "ctx")
    rows = dict(re.findall(r"\] (COPY|RUN) .*?  (hit|miss)  ", err.partition("STEP ")[2]))
    assert rows == {"COPY": "miss", "RUN": "miss"}
    assert re.search(r"\] COPY .*miss .*sub/file|\] COPY .*miss .*file", err)


def test_the_cache_is_listed_and_pruned(daemon: PrivateDaemon, context: Path) -> None:
    write(context, "FROM busybox\nRUN echo something big enough >/kept\n")
    estiba(daemon, "build", "-q", "ctx")
    rows = [json.loads(line) for line in estiba(daemon, "builder", "du", "--format", "json")[0]
            .splitlines()]  # fmt: skip
    assert any("something big enough" in row["Description"] for row in rows)
    out, _ = estiba(daemon, "buildx", "du", "--verbose")
    assert "something big enough" in out
    assert re.search(r"^Total: +\d", out, re.M)
    out, _ = estiba(daemon, "builder", "prune", "--all", "--force")
    assert "Deleted build cache objects:\n" in out
    assert "Total reclaimed space: " in out
    assert estiba(daemon, "builder", "du", "--format", "{{.ID}}")[0] == ""


# -- failures ------------------------------------------------------------------------------

_FAILING = "FROM busybox\nRUN echo before >/left && echo the last words && exit 7\n"


def test_a_step_that_fails(daemon: PrivateDaemon, context: Path) -> None:
    write(context, _FAILING)
    _, err = estiba(daemon, "build", "ctx", code=1)
    assert "the last words\n------\nDockerfile:2\n" in err
    assert "\n2 | >>> RUN echo before" in err
    assert "7" in err.partition("ERROR: failed to build: ")[2].splitlines()[0]
    state = re.search(r"The state at which it failed is (sha256:[0-9a-f]{64})", err)
    assert state is not None
    assert output_of(daemon, state[1], "cat", "/left") == "before\n"
    estiba(daemon, "rmi", state[1])


@pytest.mark.parametrize(
    ("dockerfile", "words"),
    [
        ("FROM busybox\nRUM x\n", ["Dockerfile:2", "RUM", "RUN"]),
        ("FROM busybox\nCOPY none /\n", ["Dockerfile:2", "none"]),
        ("FROM busybox\nCOPY --nope x /\n", ["Dockerfile:2", "nope"]),
        ("", ["no"]),
    ],
)
def test_what_cannot_be_built(
    daemon: PrivateDaemon, context: Path, dockerfile: str, words: list[str]
) -> None:
    write(context, dockerfile)
    _, err = estiba(daemon, "build", "ctx", code=1)
    assert [word for word in words if word not in err] == []


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, "sha256:"),
        ("<&-", 0, "sha256:"),
        (">/dev/full", 1, "estiba: cannot write the output: No space left on device\n"),
        ("2>/dev/full", 0, "sha256:"),
        (">/dev/full 2>/dev/full", 1, ""),
    ],
)
def test_output_that_cannot_be_written(
    daemon: PrivateDaemon, context: Path, redirected: str, code: int, said: str
) -> None:
    write(context, "FROM busybox\n")
    script = f'exec "$@" {redirected}'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *ESTIBA, "build", "-q", str(context)], capture_output=True,
        env=environment(daemon), check=False, timeout=2 * DEADLINE_S,
    )  # fmt: skip
    text = (done.stdout + done.stderr).decode()
    assert (done.returncode, text[: len(said) or 100]) == (code, said)


def test_check(daemon: PrivateDaemon, context: Path) -> None:
    write(context, "FROM busybox\nMAINTAINER me\nCMD echo x\n")
    out, _ = estiba(daemon, "build", "--check", "ctx", code=1)
    assert out.startswith("Check complete, 2 warnings have been found!\n")
    assert "WARNING: MaintainerDeprecated - " in out
    assert "Dockerfile:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> MAINT" in out
    # A stage that the target does not need is a part of the file too.
    write(context, "FROM busybox AS spare\nMAINTAINER me\nWORKDIR here\nFROM busybox\n")
    out, _ = estiba(daemon, "build", "--check", "ctx", code=1)
    assert "WARNING: MaintainerDeprecated - " in out and "WARNING: WorkdirRelativePath - " in out
    write(context, 'FROM busybox\nCMD ["echo", "x"]\n')
    out, _ = estiba(daemon, "build", "--call=check", "ctx")
    assert out == "Check complete, no warnings found.\n"


# -- a terminal ----------------------------------------------------------------------------


def in_terminal(daemon: PrivateDaemon, *words: str, rows: int = 24, columns: int = 80) -> Terminal:
    variables = {**environment(daemon), "TERM": "xterm", "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
    return Terminal([*ESTIBA, *words], variables, rows=rows, columns=columns)


def timeless(text: str) -> str:
    text = re.sub(r"Building \d+\.\ds", "Building", text)
    return re.sub(r" +\d+\.\ds$", "", text, flags=re.M)


def test_stages_at_once_on_a_terminal(daemon: PrivateDaemon, context: Path) -> None:
    wait = "while [ ! -e /x/go ]; do sleep 0.05; done"
    write(
        context,
        f"FROM busybox AS one\nRUN echo I am one; sleep 2; echo done >/a\n"
        f"FROM busybox AS two\nRUN printf 'I am \\033[31mtwo\\033[2J\\n'; sleep 2; echo done >/b\n"
        f"FROM busybox\nCOPY --from=one /a /\nCOPY --from=two /b /\n# {wait}\n",
    )
    with in_terminal(daemon, "build", "--no-cache", "-t", "cli:live", "ctx") as terminal:
        terminal.wait_for(b"=> => # I am one")
        terminal.wait_for(b"=> => # I am two")
        assert terminal.wait() == 0
    screen = Screen(24, 80)
    screen.feed(terminal.seen)
    shown = timeless(screen.text)
    assert shown.startswith("[+] Building (")
    assert "FINISHED\n => [internal] load build context\n" in shown
    for words in ("[one 2/2] RUN echo I am one", "[two 2/2] RUN printf"):
        assert words in shown
    assert "=> => #" not in shown
    assert re.search(r"\n\nBuilt sha256:[0-9a-f]{64}\nTagged cli:live$", shown)
    assert screen.has_cursor


def test_a_shell_in_the_failed_state(daemon: PrivateDaemon, context: Path) -> None:
    write(context, "FROM busybox\nENV WORD=inside\nWORKDIR /w\n" + _FAILING.partition("\n")[2])
    with in_terminal(daemon, "build", "--debug", "ctx") as terminal:
        terminal.wait_for(b"A shell in the state at which it failed")
        terminal.wait_for(b"#")
        terminal.type("echo $WORD $(cat /left) $(pwd)\n")
        terminal.wait_for(b"inside before /w")
        terminal.type("exit\n")
        assert terminal.wait() == 1
    assert daemon.docker("ps", "-aq").stdout == b""


def test_a_terminal_that_goes_takes_the_shell_along(daemon: PrivateDaemon, context: Path) -> None:
    write(context, _FAILING)
    with in_terminal(daemon, "build", "--debug", "ctx") as terminal:
        terminal.wait_for(b"A shell in the state at which it failed")
        terminal.wait_for(b"/ # ")
        assert daemon.docker("ps", "-q").stdout
        assert terminal.hang_up() == 128 + signal.SIGHUP
    assert daemon.docker("ps", "-aq").stdout == b""


def test_a_failed_state_without_a_shell(daemon: PrivateDaemon, context: Path) -> None:
    write(context, "FROM busybox\nRUN echo x > /left; rm /bin/sh; exit 3\n")
    with in_terminal(daemon, "build", "--debug", "ctx") as terminal:
        terminal.wait_for(b"No shell could be opened")
        terminal.wait_for(b"The state at which it failed is sha256:")
        terminal.wait_for(b"DIRECTORY")
        found = re.search(rb"estiba cp \$\((estiba create .*)\):/", terminal.seen)
        assert terminal.wait() == 1
    assert found is not None
    container = daemon.docker(*found[1].decode().split()[1:]).stdout.decode().strip()
    try:
        assert b"x" in daemon.docker("cp", f"{container}:/left", "-").stdout
    finally:
        daemon.docker("rm", container)


def test_ctrl_c_ends_the_build(daemon: PrivateDaemon, context: Path) -> None:
    marker = "31415"
    write(context, f"FROM busybox\nRUN echo begun; exec sleep {marker}\n")

    def sleepers() -> list[str]:
        found = subprocess.run(
            ["pgrep", "-xf", f"sleep {marker}"], capture_output=True, check=False
        )
        return found.stdout.decode().split()

    with in_terminal(daemon, "build", "ctx") as terminal:
        terminal.wait_for(b"# begun")
        wait_until(lambda: len(sleepers()) == 1, what="the step's program")
        terminal.type("\x03")
        assert terminal.wait() == 130
    wait_until(lambda: not sleepers(), what="the step's end")
    screen = Screen(24, 80)
    screen.feed(terminal.seen.replace(b"^C", b""))
    assert "CANCELED" in screen.text
    assert screen.has_cursor


def test_a_killed_client_ends_the_build(daemon: PrivateDaemon, context: Path) -> None:
    marker = "27182"
    write(context, f"FROM busybox\nRUN echo begun; exec sleep {marker}\n")
    command = [*ESTIBA, "build", "ctx"]
    with subprocess.Popen(command, env=environment(daemon), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while b"begun\n" not in (line := process.stderr.readline()) or b"RUN" in line:
            assert line, "the build ended"
        process.send_signal(signal.SIGKILL)

    def is_over() -> bool:
        return subprocess.run(["pgrep", "-xf", f"sleep {marker}"], capture_output=True,
                              check=False).returncode == 1  # fmt: skip

    wait_until(is_over, what="the step's end")


# -- registries ----------------------------------------------------------------------------


@pytest.mark.skipif(not GenuineRegistry.is_installed(), reason="docker-registry is not installed")
def test_a_registry_with_a_password(
    daemon: PrivateDaemon, context: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The client's credentials reach it, for the push and for the base image."""
    root = tmp_path_factory.mktemp("registry")
    with genuine_registry(root, users={"joe": "s3cret"}) as registry:
        name = f"{registry.host}/team/base:1"
        write(context, "FROM busybox\nRUN head -c 3000000 /dev/urandom >/big\n")
        _, err = estiba(daemon, "build", "--push", "-t", name, "ctx", code=1)
        assert "ERROR: failed to build: " in err
        words = ["login", "-u", "joe", "--password-stdin", registry.host]
        estiba(daemon, *words, stdin=b"s3cret\n")
        _, err = estiba(daemon, "build", "--push", "-t", name, "--metadata-file", "meta", "ctx")
        assert "push" in err
        digest = json.loads(Path("meta").read_text())["containerimage.digest"]
        assert digest.startswith("sha256:")

        daemon.docker("rmi", name)
        estiba(daemon, "builder", "prune", "-af")
        write(context, f"FROM {name}\nCOPY sub /\n")
        with in_terminal(daemon, "build", "--pull", "-t", "cli:pulled", "ctx") as terminal:
            assert terminal.wait() == 0
        screen = Screen(24, 80)
        screen.feed(terminal.seen)
        assert re.search(r"=> \[internal\] pull \S+/team/base:1", screen.text)
        assert output_of(daemon, "cli:pulled", "wc", "-c", "/big").startswith("3000000")
        assert "s3cret" not in err
        assert b"s3cret" not in daemon.log.read_bytes()
