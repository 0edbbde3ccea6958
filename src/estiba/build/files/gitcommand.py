"""Running the host's `git` on what is not trusted.

No configuration of host or user, no hooks, no prompts, no helper programs, no protocol but
http, https, git and ssh. Secrets go through the environment, which only root and git itself can
read, never into arguments. Each command is a process group of its own, which ends as a whole.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from estiba.distribution.cancel import CancelToken
from estiba.kernel.trees import tree_size
from estiba.model.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    LimitExceeded,
    Unavailable,
)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_OUTPUT_BYTES = 4 << 20
_MAX_SHOWN_CHARS = 1000
_POLL_S = 0.1
_MEASURED_EVERY_S = 2.0
_ADVICE = ("hint:", "warning:", "Please make sure", "and the repository exists")
_CHUNK = 64 << 10
_SSH = "ssh -F none -o BatchMode=yes -o ForwardAgent=no -o PermitLocalCommand=no"
_CONFIG = (
    ("protocol.allow", "never"),
    ("protocol.http.allow", "always"),
    ("protocol.https.allow", "always"),
    ("protocol.git.allow", "always"),
    ("protocol.ssh.allow", "always"),
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.askPass", "/bin/false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("credential.helper", ""),
    ("init.templateDir", ""),
    ("init.defaultBranch", "main"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("advice.detachedHead", "false"),
    ("http.followRedirects", "initial"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "120"),
    ("safe.directory", "*"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GitLimits:
    time_s: float = 1800.0
    size_bytes: int = 32 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class GitAccess:
    """How repositories are reached. `token` is that of GIT_AUTH_TOKEN, `header` the value of
    GIT_AUTH_HEADER; `proxies` the environment's words for them.

    Without `known_hosts` a host of ssh is believed unless the engine's host knows another key.
    """

    token: str = field(default="", repr=False)
    header: str = field(default="", repr=False)
    ssh_agent: Path | None = None
    known_hosts: Path | None = None
    proxies: dict[str, str] = field(default_factory=dict, repr=False)


class Git:
    """Commands in the directory `work`, with `home` as an empty home. One thread at a time."""

    def __init__(
        self,
        work: Path,
        home: Path,
        *,
        access: GitAccess,
        authorization: tuple[str, str] | None,
        limits: GitLimits,
        cancel: CancelToken,
    ) -> None:
        """`authorization`: (origin, value of the header). Raises FailedPrecondition without git."""
        found = shutil.which("git", path=_PATH)
        if found is None:
            raise FailedPrecondition(
                "git is not installed on the engine's host: install it "
                "(Debian: apt-get install git), or send the files as the build context"
            )
        self._program = found
        self._work = work
        self._environment = _environment(home, access, authorization)
        # No repository around the directory has a say.
        self._environment["GIT_CEILING_DIRECTORIES"] = os.path.realpath(work.parent)
        self._secrets = [authorization[1]] if authorization else []
        self._deadline = time.monotonic() + limits.time_s
        self._limits = limits
        self._cancel = cancel

    def run(self, *arguments: str, shown: str) -> str:
        """What it writes to its output.

        Raises Unavailable with git's own words when it fails, DeadlineExceeded, LimitExceeded,
        Cancelled.
        """
        self._cancel.check()
        process = subprocess.Popen(
            [self._program, *arguments],
            cwd=self._work,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            umask=0o022,
        )
        try:
            with self._cancel.ending_with(lambda: _end(process)):
                output, errors = self._outcome(process, shown)
        finally:
            # Whatever git started shares its group, which exists as long as it is not reaped.
            _end(process)
            code = process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        self._cancel.check()
        if code != 0:
            raise Unavailable(f"git cannot {shown}: {self._words(errors, code)}")
        return output.decode(errors="replace")

    def _outcome(self, process: subprocess.Popen[bytes], shown: str) -> tuple[bytes, bytes]:
        """Once it has ended; who else holds its pipes is not waited for."""
        assert process.stdout is not None and process.stderr is not None
        collected = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
        ended = os.pidfd_open(process.pid)
        measured = time.monotonic()
        try:
            with selectors.DefaultSelector() as selector:
                for fd in (*collected, ended):
                    selector.register(fd, selectors.EVENT_READ)
                while ended in selector.get_map():
                    for key, _ in selector.select(_POLL_S):
                        if key.fd == ended or not _read(key.fd, collected[key.fd]):
                            selector.unregister(key.fd)
                    self._check_time(shown)
                    if time.monotonic() - measured > _MEASURED_EVERY_S:
                        self.check_size(shown)
                        measured = time.monotonic()
        finally:
            os.close(ended)
        for fd, data in collected.items():
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                while _read(fd, data):
                    pass
        output, errors = collected.values()
        return bytes(output), bytes(errors)

    def _check_time(self, shown: str) -> None:
        if time.monotonic() > self._deadline:
            raise DeadlineExceeded(f"git took longer than {self._limits.time_s:.0f} s to {shown}")

    def check_size(self, shown: str) -> None:
        """Raises LimitExceeded."""
        if tree_size(self._work) > self._limits.size_bytes:
            raise LimitExceeded(
                f"more than {self._limits.size_bytes} bytes came in when git was to {shown}"
            )

    def _words(self, errors: bytes, code: int) -> str:
        text = errors.decode(errors="replace").strip()
        for secret in self._secrets:
            text = text.replace(secret, "***")
        told = [
            line.strip()
            for line in text.splitlines()
            if line.strip() and not line.startswith(_ADVICE)
        ]
        return " ".join(told)[-_MAX_SHOWN_CHARS:] or f"exit code {code}"


def _read(fd: int, into: bytearray) -> bool:
    """False at the end. What is too much is read and dropped."""
    piece = os.read(fd, _CHUNK)
    if len(into) < _MAX_OUTPUT_BYTES:
        into += piece
    return bool(piece)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole group; harmless when it is gone, as its leader is not reaped before."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _environment(
    home: Path, access: GitAccess, authorization: tuple[str, str] | None
) -> dict[str, str]:
    config: list[tuple[str, str]] = list(_CONFIG)
    if authorization is not None:
        origin, value = authorization
        config.append((f"http.{origin}.extraHeader", f"Authorization: {value}"))
        # Git would send the header along to wherever the server points.
        config.append(("http.followRedirects", "false"))
    known = access.known_hosts or Path("/dev/null")
    trust = "yes" if access.known_hosts else "accept-new"
    environment = {
        "PATH": _PATH,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "SSH_ASKPASS_REQUIRE": "never",
        "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_SSH_COMMAND": f"{_SSH} -o StrictHostKeyChecking={trust} "
        f"-o UserKnownHostsFile={_quoted(known)}",
        "GIT_SSH_VARIANT": "ssh",
        **access.proxies,
    }
    if access.ssh_agent is not None:
        environment["SSH_AUTH_SOCK"] = str(access.ssh_agent)
    environment["GIT_CONFIG_COUNT"] = str(len(config))
    for number, (key, value) in enumerate(config):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return environment


def _quoted(path: Path) -> str:
    """For the shell that git hands its ssh command to, and for ssh's own list of files."""
    return "'\"" + str(path).replace("'", "'\\''") + "\"'"
