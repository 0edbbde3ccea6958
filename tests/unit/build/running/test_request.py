"""A RUN in the terms of a container, and the runtime's last word."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba.build.ports import RunLimits, RunRequest, SecretMount, SshMount, TmpfsMount
from estiba.build.running.complaint import Complaint
from estiba.build.running.request import (
    Defaults,
    cgroup_of,
    check_request,
    container_config,
    host_config,
    hostname_of,
)
from estiba.model.container import Ulimit
from estiba.model.errors import CommandNotExecutable, CommandNotFound, InvalidArgument

ID = "ab" * 32
MB = 1 << 20


def request(**wanted: object) -> RunRequest:
    return RunRequest(id=ID, root=Path("/tree"), **{"argv": ("true",), **wanted})  # type: ignore[arg-type]


async def connect() -> tuple[int, object]:
    raise OSError


def test_a_plain_step_has_a_containers_defaults() -> None:
    host = host_config(request(), Defaults(), cgroup_v2=False)
    assert (host.network_mode, host.privileged, host.cgroupns_mode) == ("bridge", False, "private")
    assert (host.shm_size, host.security_opt, host.memory, host.memory_swap) == (64 * MB, [], 0, 0)
    assert cgroup_of(request(), Defaults()) == f"/estiba/build-{ID}"
    assert hostname_of(request()) == "build"


def test_the_engines_settings_hold_for_steps() -> None:
    defaults = Defaults(
        shm_bytes=MB,
        seccomp="{}",
        no_new_privileges=True,
        ulimits=(Ulimit(name="core", soft=1, hard=1), Ulimit(name="nofile", soft=1, hard=1)),
    )
    own = RunLimits(ulimits=(Ulimit(name="core", soft=0, hard=0),), memory_bytes=4 * MB)
    host = host_config(request(limits=own), defaults, cgroup_v2=False)
    assert host.security_opt == ["seccomp={}", "no-new-privileges"]
    assert [(limit.name, limit.soft) for limit in host.ulimits] == [("core", 0), ("nofile", 1)]
    assert (host.memory, host.memory_swap, host.shm_size) == (4 * MB, 8 * MB, MB)
    insecure = host_config(request(insecure=True), defaults, cgroup_v2=False)
    assert insecure.privileged
    assert insecure.cgroupns_mode == "host"
    assert insecure.security_opt == ["no-new-privileges"]
    assert host_config(request(insecure=True), defaults, cgroup_v2=True).cgroupns_mode == "private"


def test_variables_of_secrets_and_agents() -> None:
    mounts = (
        SecretMount(b"hush", env="TOKEN"),
        SecretMount(b"file", target="/x"),
        SshMount(connect, "/first"),  # type: ignore[arg-type]
        SshMount(connect, "/second"),  # type: ignore[arg-type]
    )
    assert container_config(request(mounts=mounts, env=("A=b",))).env == [
        "A=b",
        "SSH_AUTH_SOCK=/first",
        "TOKEN=hush",
    ]
    own = request(mounts=mounts[2:], env=("SSH_AUTH_SOCK=/own",))
    assert container_config(own).env == ["SSH_AUTH_SOCK=/own"]
    with pytest.raises(InvalidArgument) as failure:
        container_config(request(mounts=(SecretMount(b"hush\0", env="TOKEN"),)))
    assert "hush" not in str(failure.value)


@pytest.mark.parametrize(
    ("wanted", "because"),
    [
        ({"argv": ()}, "no command"),
        ({"argv": ("",)}, "no command"),
        ({"argv": ("a\0",)}, "NUL"),
        ({"env": ("A=\0",)}, "NUL"),
        ({"cwd": "/\0"}, "NUL"),
        ({"argv": ("\udcff",)}, "not UTF-8"),
        ({"argv": ("x" * (128 << 10),)}, "too long"),
        ({"env": ("x" * 100_000,) * 11}, "too long"),
        ({"mounts": (TmpfsMount("/x"),) * 129}, "more than 128"),
    ],
)
def test_what_no_run_can_be_made_of(wanted: dict[str, object], because: str) -> None:
    with pytest.raises(InvalidArgument, match=because):
        check_request(request(**wanted))


@pytest.mark.parametrize("parent", ["/..", "a/../../b", "x\0", "x" * 2000])
def test_a_cgroup_parent_stays_in_the_tree(parent: str) -> None:
    with pytest.raises(InvalidArgument, match="cgroup parent"):
        cgroup_of(request(limits=RunLimits(cgroup_parent=parent)), Defaults())


CRUN = (
    b'{"msg":"exec container process %s`/x`: %s","level":"error","time":"2026-01-01T00:00:00Z"}\n'
)


@pytest.mark.parametrize(
    ("word", "error"),
    [
        (CRUN % (b"(missing dynamic library?) ", b"No such file or directory"), CommandNotFound),
        (CRUN % (b"", b"Exec format error"), CommandNotExecutable),
        (CRUN % (b"", b"Permission denied"), CommandNotExecutable),
        (b"exec /x: no such file or directory\n", CommandNotFound),
        (b"exec /x: exec format error\n", CommandNotExecutable),
    ],
)
def test_the_runtimes_last_word_is_an_error(word: bytes, error: type[Exception]) -> None:
    said: list[tuple[int, bytes]] = []
    complaint = Complaint(lambda stream, data: said.append((stream, data)))
    complaint(2, word)
    assert isinstance(complaint.settle(1, "/x"), error)
    assert said == []


@pytest.mark.parametrize(
    ("chunks", "code"),
    [
        ([(2, b"exec /x: something else\n")], 1),
        ([(2, b"exec /x: exec format error\n")], 2),
        ([(1, b"exec /x: exec format error\n")], 1),
        ([(1, b"a"), (2, b"exec /x: exec format error\n")], 1),
        ([(2, b"exec /x: exec format error\n"), (2, b"more")], 1),
        ([], 1),
    ],
)
def test_what_the_program_says_is_passed_on(chunks: list[tuple[int, bytes]], code: int) -> None:
    said: list[tuple[int, bytes]] = []
    complaint = Complaint(lambda stream, data: said.append((stream, data)))
    for stream, data in chunks:
        complaint(stream, data)
    assert complaint.settle(code, "/x") is None
    assert said == chunks
