"""The completion scripts, loaded in the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon
from tests.support.terminal import Terminal

pytestmark = pytest.mark.e2e


@pytest.fixture
def environment(daemon: PrivateDaemon) -> Iterator[dict[str, str]]:
    """With `estiba` on PATH, a container that runs and one that does not."""
    daemon.docker("run", "-d", "--network", "none", "--name", "up", "busybox", "sleep", "1000")
    daemon.docker("create", "--network", "none", "--name", "down", "busybox")
    config = daemon.root / "docker-config" / "config.json"
    config.parent.mkdir(exist_ok=True)
    config.write_text('{"auths": {"known.example": {}}}')
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    yield {**daemon.client_environment(), "PATH": path, "TERM": "dumb", "PS1": "> "}
    daemon.docker("rm", "-f", "up", "down")


_CASES = [
    ("estiba stat", ["stats"]),
    ("estiba run --netw", ["--network", "--network-alias"]),
    ("estiba stop ", ["up"]),
    ("estiba start ", ["down"]),
    ("estiba rm ", ["down", "up"]),
    ("estiba rmi busybox:", ["busybox:latest"]),
    ("estiba cp u", ["up:"]),
    ("estiba run --pull ", ["always", "missing", "never"]),
    ("estiba push ", ["busybox:latest"]),
    ("estiba logout ", ["known.example"]),
    ("estiba registry ", ["gc", "serve"]),
    ("estiba save --format ", ["docker", "oci"]),
    ("estiba manifest an", ["annotate"]),
]


def test_bash(environment: dict[str, str]) -> None:
    for line, wanted in _CASES:
        script = (
            "source <(estiba completion bash)\n"
            f"COMP_LINE='{line}' COMP_POINT={len(line)}\n"
            "_estiba 2>/dev/null\n"
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True,
                              env=environment, timeout=30, check=True)  # fmt: skip
        # bash has what stands before a colon already.
        shown = [word.rpartition(":")[2] if ":" in line else word for word in wanted]
        assert done.stdout.split() == shown, line


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish(environment: dict[str, str]) -> None:
    for line, wanted in _CASES:
        script = f"source (estiba completion fish | psub); complete -C '{line}'"
        done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True,
                              text=True, env=environment, timeout=30, check=True)  # fmt: skip
        assert set(wanted) <= set(done.stdout.split()), line


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh(environment: dict[str, str]) -> None:
    with Terminal(["zsh", "-f", "-i"], environment) as terminal:
        terminal.type("autoload -Uz compinit; compinit -D -u; echo rea''dy\n")
        terminal.wait_for(b"ready")
        terminal.type("source <(estiba completion zsh); echo load''ed\n")
        terminal.wait_for(b"loaded")
        for line, whole in (
            ("estiba stop u", b"estiba stop up"),
            ("estiba rmi busybox:l", b"estiba rmi busybox:latest"),
            ("estiba cp u", b"estiba cp up:"),
        ):
            terminal.type(f"{line}\t")
            terminal.wait_for(whole)
            terminal.type("\x15")
