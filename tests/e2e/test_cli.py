"""The estiba client against a whole daemon, and beside the docker client."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("clean")]


def estiba(
    daemon: PrivateDaemon, *arguments: str, stdin: bytes = b"", check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "estiba.cli.main", *arguments],
        input=stdin, capture_output=True, timeout=60, check=False,
        env={**daemon.client_environment(), "ESTIBA_HOST": daemon.url},
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stderr.decode()
    return done


def test_run_passes_streams_and_codes(daemon: PrivateDaemon) -> None:
    done = estiba(daemon, "run", "--rm", "-i", "busybox", "sh", "-c", "cat; exit 3",
                  stdin=b"in\n", check=False)  # fmt: skip
    assert (done.stdout, done.returncode) == (b"in\n", 3)
    device = ["--device-read-bps", "/dev/nope:1mb"]
    done = estiba(daemon, "run", "--rm", *device, "busybox", "true", check=False)
    assert done.returncode == 125  # the missing file is not the program
    for command, code in (("nosuch", 127), ("/etc/passwd", 126)):
        done = estiba(daemon, "run", "--rm", "busybox", command, check=False)
        assert done.returncode == code
    assert estiba(daemon, "run", "--bad-flag", "busybox", check=False).returncode == 125
    assert estiba(daemon, "run", "nosuchimage", check=False).returncode == 125


def in_terminal(daemon: PrivateDaemon, *arguments: str) -> Terminal:
    """estiba under a terminal of 30 rows and 100 columns."""
    environment = {**daemon.client_environment(), "ESTIBA_HOST": daemon.url}
    return Terminal([sys.executable, "-m", "estiba.cli.main", *arguments], environment)


def test_terminals_have_sizes_that_follow_the_users(daemon: PrivateDaemon) -> None:
    estiba(daemon, "run", "-d", "--name", "box", "busybox", "sleep", "1000")
    for arguments in (["run", "-it", "--rm", "busybox", "sh"], ["exec", "-it", "box", "sh"]):
        with in_terminal(daemon, *arguments) as terminal:
            terminal.wait_for(b"#")
            terminal.type("tty; stty size\n")
            terminal.wait_for(b"/dev/pts/")
            terminal.wait_for(b"30 100")
            terminal.resize(44, 132)
            # The program learns of it when the signal has made its way.
            terminal.type("while [ \"$(stty size)\" != '44 132' ]; do sleep 0.05; done; exit 3\n")
            assert terminal.wait() == 3


def test_detaching_and_coming_back(daemon: PrivateDaemon) -> None:
    with in_terminal(daemon, "run", "-it", "--name", "left", "busybox", "sh") as terminal:
        terminal.wait_for(b"#")
        terminal.type(b"\x10\x11")
        assert terminal.wait() == 0
    assert daemon.inspect("left")["State"]["Running"]
    with in_terminal(daemon, "attach", "--detach-keys", "ctrl-x,y", "left") as terminal:
        # Typed before estiba has the terminal, and for the program all the same.
        terminal.type("echo $((40+2))\n")
        terminal.wait_for(b"42")
        terminal.type(b"\x18y")
        assert terminal.wait() == 1
        assert b"read escape sequence" in terminal.seen
    with in_terminal(daemon, "attach", "left") as terminal:
        terminal.type("exit 7\n")
        assert terminal.wait() == 7


def test_signals_are_passed_on(daemon: PrivateDaemon) -> None:
    program = "trap 'echo got; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    for flags in (["-it"], []):
        with in_terminal(daemon, "run", *flags, "--rm", "busybox", "sh", "-c", program) as terminal:
            terminal.wait_for(b"ready")
            terminal.type(b"\x03")
            assert terminal.wait() == 9
            assert b"got" in terminal.seen


def test_ssh_runs_the_far_client(daemon: PrivateDaemon, tmp_path: Path) -> None:
    (tmp_path / "ssh").write_text('#!/bin/sh\nfor word; do :; done\nexec sh -c "$word"\n')
    (tmp_path / "ssh").chmod(0o755)
    environment = daemon.client_environment()
    environment.pop("DOCKER_HOST")
    path = f"{tmp_path}:{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "estiba.cli.main", "-H", f"ssh://me@far{daemon.socket}",
         "run", "-i", "--rm", "busybox", "sh", "-c", "cat; exit 4"],
        input=b"through", capture_output=True, timeout=60, check=False,
        env={**environment, "PATH": path},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == (b"through", 4), done.stderr.decode()


def test_what_stands_around_a_container_that_is_made(daemon: PrivateDaemon) -> None:
    done = estiba(daemon, "create", "--cidfile", "/nope/id", "busybox", check=False)
    assert done.returncode == 1 and b"failed to create the container ID file" in done.stderr
    assert daemon.docker("ps", "-aq").stdout == b""
    file = daemon.root / "id"
    estiba(daemon, "create", "--cidfile", str(file), "nosuchimage", check=False)
    assert not file.exists()
    (daemon.root / "docker-config").mkdir(exist_ok=True)
    (daemon.root / "docker-config" / "config.json").write_text(
        json.dumps({"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "a,b"}}})
    )
    estiba(daemon, "create", "--name", "box", "--cidfile", str(file), "-e", "no_proxy=x", "busybox")
    (daemon.root / "docker-config" / "config.json").unlink()
    environment = daemon.inspect("box")["Config"]["Env"]
    assert {"HTTP_PROXY=http://p:1", "http_proxy=http://p:1", "NO_PROXY=a,b"} <= {*environment}
    assert "no_proxy=x" in environment and "no_proxy=a,b" not in environment
    assert file.read_text() == daemon.inspect("box")["Id"]
    file.unlink()


_ON_ITS_OWN = """
for folder in /run/estiba /var/lib/estiba /var/log; do
    mkdir -p $folder && mount -t tmpfs tmpfs $folder
done
estiba() { %s -m estiba.cli.main "$@"; }
estiba stop a b; echo code $?
exec 9>/var/lib/estiba/lock; flock 9
estiba -H unix:///run/estiba/estiba.sock --autostart ps; echo code $?
exec 9>&-
ESTIBA_AUTOSTART=1 estiba start nosuch; echo code $?
estiba version --format '{{.Server.ApiVersion}}'
ls /var/log /run/estiba/estibad.pid
"""


def test_the_daemon_is_started_when_asked_to(daemon: PrivateDaemon) -> None:
    """In namespaces of its own, as it is about the default socket; all ends with its process 1."""
    environment = {key: value for key, value in os.environ.items() if key != "DOCKER_HOST"}
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
         "sh", "-c", _ON_ITS_OWN % shlex.quote(sys.executable)],
        capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip
    answers = [*["code", "1"] * 3, "1.51", "/run/estiba/estibad.pid", "/var/log:", "estiba.log"]
    assert done.stdout.split() == answers, done.stderr
    assert done.stderr.count("No daemon answers") == 1 and "estiba --autostart" in done.stderr
    assert f"{shlex.quote(str(Path(sys.executable).with_name('estibad')))} &" in done.stderr
    assert "did not start: another daemon uses the data root /var/lib/estiba" in done.stderr
    assert "No such container: nosuch" in done.stderr


def test_what_is_to_come_says_so(daemon: PrivateDaemon) -> None:
    for arguments, words in (
        (["trust", "sign", "x"], b"signed images are to come"),
        (["start", "--checkpoint", "x", "y"], b"needs checkpoints"),
    ):
        done = estiba(daemon, *arguments, check=False)
        assert done.returncode == 1 and words in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["ps", "-a", "--format", "{{.Names}} {{.Image}} {{.Command}} {{.State}}"],
        ["ps", "-aq"],
        ["ps", "-a", "--no-trunc", "--format", "{{.ID}}"],
        ["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}"],
        ["inspect", "same", "--format", "{{.Name}} {{json .Config.Cmd}} {{.State.Status}}"],
        ["inspect", "same", "-f", "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}"],
        ["inspect", "same", "-f", "{{if .State.Running}}yes{{else}}no{{end}} {{len .Id}}"],
        ["inspect", "same", "-f", '{{index .Config.Labels "a.b"}} {{upper .Name}}'],
        ["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"],
        ["volume", "ls", "-q"],
        ["port", "same"],
        ["diff", "same"],
        ["history", "busybox", "--format", "{{.CreatedBy}}|{{.Comment}}"],
        ["exec", "same", "echo", "hi"],
        ["logs", "same"],
        ["logs", "--tail", "1", "same"],
        ["info", "--format", "{{.CgroupVersion}} {{.Driver}}"],
        ["version", "--format", "{{.Server.Version}}"],
    ],
    ids=" ".join,
)
def test_the_same_output_as_docker(daemon: PrivateDaemon, arguments: list[str]) -> None:
    daemon.docker(
        "run", "-d", "--name", "same", "-l", "a.b=c", "-l", "d=e", "-p", "127.0.0.1:0:80",
        "busybox", "sh", "-c", "touch /made; echo one; echo two; sleep 1000",
    )  # fmt: skip
    wait_until(lambda: b"two" in daemon.docker("logs", "same").stdout, what="its last line")
    assert estiba(daemon, *arguments).stdout == daemon.docker(*arguments).stdout


def test_lifecycle_words(daemon: PrivateDaemon) -> None:
    estiba(daemon, "create", "--name", "box", "busybox", "sleep", "1000")
    for words in (["start"], ["pause"], ["unpause"], ["restart", "-t", "0"], ["stop", "-t", "0"]):
        assert estiba(daemon, *words, "box").stdout == b"box\n"
    assert estiba(daemon, "wait", "box").stdout == b"137\n"
    estiba(daemon, "rename", "box", "other")
    estiba(daemon, "update", "--memory", "64m", "--memory-swap", "64m", "other")
    assert daemon.inspect("other")["HostConfig"]["Memory"] == 64 << 20
    assert estiba(daemon, "rm", "other").stdout == b"other\n"
    assert estiba(daemon, "rm", "other", check=False).returncode == 1


def test_flags_reach_the_container(daemon: PrivateDaemon, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nFROM_FILE=1\n")
    estiba(
        daemon, "create", "--name", "box", "-e", "A=b", "--env-file", str(tmp_path / "env"),
        "-v", f"{tmp_path}:/host:ro", "--mount", "type=tmpfs,target=/t,tmpfs-size=1m",
        "-p", "127.0.0.1:18000-18001:80-81/tcp", "--restart", "on-unhealthy:3", "--cpus", "0.5",
        "-m", "64m", "--ulimit", "nofile=100:200", "--add-host", "db=10.1.2.3", "--init",
        "--health-cmd", "true", "--health-interval", "1m30s", "-w", "/tmp", "-u", "1:2",
        "--entrypoint", "sleep", "busybox", "5",
    )  # fmt: skip
    view = daemon.inspect("box")
    host, config = view["HostConfig"], view["Config"]
    assert config["Env"][:2] == ["FROM_FILE=1", "A=b"]
    assert host["Binds"] == [f"{tmp_path}:/host:ro"]
    assert host["Mounts"][0]["TmpfsOptions"]["SizeBytes"] == 1 << 20
    assert host["PortBindings"]["81/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "18001"}]
    assert host["RestartPolicy"] == {"Name": "on-unhealthy", "MaximumRetryCount": 3}
    assert host["NanoCpus"] == 500_000_000
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 100, "Hard": 200}]
    assert host["ExtraHosts"] == ["db:10.1.2.3"]
    assert host["Init"] is True
    assert config["Healthcheck"]["Interval"] == 90_000_000_000
    assert (config["WorkingDir"], config["User"]) == ("/tmp", "1:2")
    assert (config["Entrypoint"], config["Cmd"]) == (["sleep"], ["5"])


def test_copy_both_ways(daemon: PrivateDaemon, tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file").write_text("content")
    (tmp_path / "tree" / "link").symlink_to("sub/file")
    estiba(daemon, "create", "--name", "box", "busybox", "sleep", "1000")
    estiba(daemon, "cp", str(tmp_path / "tree"), "box:/tmp")
    estiba(daemon, "cp", str(tmp_path / "tree" / "."), "box:/srv/")
    estiba(daemon, "cp", str(tmp_path / "tree" / "sub" / "file"), "box:/tmp/renamed")
    estiba(daemon, "start", "box")
    listed = estiba(daemon, "exec", "box", "cat", "/tmp/tree/link", "/srv/sub/file", "/tmp/renamed")
    assert listed.stdout == b"content" * 3
    estiba(daemon, "cp", "box:/tmp/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "sub" / "file").read_text() == "content"
    assert os.readlink(tmp_path / "back" / "link") == "sub/file"
    (tmp_path / "here").mkdir()
    estiba(daemon, "cp", "box:/tmp/renamed", str(tmp_path / "here"))
    assert (tmp_path / "here" / "renamed").read_text() == "content"
    stream = estiba(daemon, "cp", "box:/tmp/tree", "-").stdout
    estiba(daemon, "cp", "-", "box:/home", stdin=stream)
    assert estiba(daemon, "exec", "box", "cat", "/home/tree/link").stdout == b"content"
    assert estiba(daemon, "cp", "box:/none", "-", check=False).returncode == 1


def test_images_in_and_out(daemon: PrivateDaemon, tmp_path: Path) -> None:
    estiba(daemon, "run", "--name", "box", "busybox", "touch", "/made")
    estiba(daemon, "commit", "-m", "note", "-c", "ENV A=b", "box", "made:1")
    estiba(daemon, "save", "-o", str(tmp_path / "archive"), "made:1")
    estiba(daemon, "rmi", "made:1")
    assert estiba(daemon, "load", "-i", str(tmp_path / "archive")).stdout == (
        b"Loaded image: made:1\n"
    )
    estiba(daemon, "tag", "made:1", "made:2")
    estiba(daemon, "export", "-o", str(tmp_path / "tar"), "box")
    estiba(daemon, "import", str(tmp_path / "tar"), "flat:1")
    assert estiba(daemon, "run", "--rm", "flat:1", "ls", "/made").stdout == b"/made\n"
    estiba(daemon, "rmi", "-f", "made:1", "made:2", "flat:1")


def test_import_from_a_url(daemon: PrivateDaemon, tmp_path: Path) -> None:
    estiba(daemon, "run", "--name", "box", "busybox", "touch", "/made")
    estiba(daemon, "export", "-o", str(tmp_path / "tar"), "box")

    def handler(*arguments: Any) -> SimpleHTTPRequestHandler:
        return SimpleHTTPRequestHandler(*arguments, directory=str(tmp_path))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        shown = daemon.docker("import", f"{url}/tar", "far:1").stdout.decode()
        assert shown.splitlines()[0] == f"Downloading from {url}/tar"
        assert estiba(daemon, "run", "--rm", "far:1", "ls", "/made").stdout == b"/made\n"
        for words, reason in (
            ([f"{url}/nope"], b"with status 404"),
            ([f"{url}/tar", "BAD:x"], b"invalid reference format"),
            (["https://127.0.0.1:1/x"], b"Connection refused"),
            (["ftp://127.0.0.1/x"], b"use http://, https:// or -"),
        ):
            done = estiba(daemon, "import", *words, check=False)
            assert done.returncode == 1 and reason in done.stderr, done.stderr
        server.shutdown()
    estiba(daemon, "rmi", "-f", "far:1")


def test_bootstrap_makes_a_working_image(daemon: PrivateDaemon) -> None:
    assert estiba(daemon, "image", "bootstrap", "busybox").stdout == b"busybox:latest\n"
    assert estiba(daemon, "run", "--rm", "busybox", "id", "-un").stdout == b"root\n"


def test_logs_truncate_and_events(daemon: PrivateDaemon) -> None:
    estiba(daemon, "run", "--name", "box", "busybox", "echo", "line")
    assert estiba(daemon, "logs", "box").stdout == b"line\n"
    estiba(daemon, "logs", "--truncate", "box")
    assert estiba(daemon, "logs", "box").stdout == b""
    until = str(int(time.time()) + 1)
    done = estiba(
        daemon, "events", "--since", "1m", "--until", until, "-f", "container=box",
        "--format", "{{.Action}}",
    )  # fmt: skip
    assert b"die" in done.stdout


def test_stats_and_top(daemon: PrivateDaemon) -> None:
    estiba(daemon, "run", "-d", "--name", "busy", "busybox", "sh", "-c", "while :; do :; done")
    done = estiba(daemon, "stats", "--no-stream", "--format", "json", "busy")
    row = json.loads(done.stdout)
    # A machine full of other work gives it little; one that is idle shows 0.00.
    assert float(row["CPUPerc"].rstrip("%")) > 2
    assert b"while" in estiba(daemon, "top", "busy").stdout
    assert estiba(daemon, "top", "busy", "-o", "pid,comm").stdout.startswith(b"PID")


def test_completion_and_help(daemon: PrivateDaemon) -> None:
    estiba(daemon, "create", "--name", "completed", "busybox")
    assert b"complete -o default" in estiba(daemon, "completion", "bash").stdout
    for shell in ("zsh", "fish"):
        assert b"__complete" in estiba(daemon, "completion", shell).stdout
    assert b"start" in estiba(daemon, "__complete", "st").stdout
    assert b"completed" in estiba(daemon, "__complete", "start", "com").stdout
    assert b"--detach" in estiba(daemon, "__complete", "run", "--de").stdout
    assert b"--publish" in estiba(daemon, "run", "--help").stdout
    assert b"Commands:" in estiba(daemon, "--help").stdout


def test_no_daemon(daemon: PrivateDaemon) -> None:
    done = estiba(daemon, "-H", "unix:///nowhere.sock", "ps", check=False)
    assert done.returncode == 1 and b"Cannot connect" in done.stderr
