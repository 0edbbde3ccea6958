"""What clients send for a build: names, credentials, limits, before anything is done with it."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from estiba.api.build_ports import BuildOptions
from estiba.build.request import BuildRequest
from estiba.daemon.adapters.build_inputs import Inputs, parse_tags, registry_credentials
from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import ANONYMOUS, Credentials
from estiba.distribution.settings import RegistrySettings
from estiba.model.container import Ulimit
from estiba.model.errors import InvalidArgument
from estiba.model.image import Platform

HOST = Platform(architecture="amd64")
NO_OPTIONS = BuildOptions(
    dockerfile="", tags=[], extra_hosts=[], remote="", quiet=False, no_cache=False, cache_from=[],
    forces_removal=False,
    pull=False, memory_bytes=0, memory_swap_bytes=0, cpu_shares=0, cpuset_cpus="", cpuset_mems="",
    cpu_period_us=0, cpu_quota_us=0, cgroup_parent="", build_args={}, shm_bytes=0, ulimits=[],
    squash=False, labels={}, network="", platform="", target="",
)  # fmt: skip


# -- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        ([], []),
        (["app"], ["app:latest"]),
        (["me/app:1", "localhost:5000/app"], ["me/app:1", "localhost:5000/app:latest"]),
        (["app", "app:latest", "docker.io/library/app"], ["app:latest"]),
    ],
)
def test_tags(texts: list[str], names: list[str]) -> None:
    assert [tag.familiar for tag in parse_tags(texts)] == names


@pytest.mark.parametrize(
    "text", ["App", "a b", "app:", "../app", "app@sha256:" + "a" * 64, "a" * 300]
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_tags(["fine", text])


# -- credentials ---------------------------------------------------------------------------

ME = {"username": "me", "password": "pw"}


def header(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    ("registry", "domain"),
    [
        ("registry.test", "registry.test"),
        ("registry.test:5000", "registry.test:5000"),
        ("https://registry.test", "registry.test"),
        ("http://registry.test/v2/", "registry.test"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
    ],
)
def test_credentials_are_found_by_the_registry(registry: str, domain: str) -> None:
    found = registry_credentials(header({registry: ME, "other.test": {"username": "x"}}))
    assert found(domain) == Credentials("me", "pw")
    assert found("third.test") == ANONYMOUS


@pytest.mark.parametrize("text", ["", header({}), header(None), "bnVsbA", header({"a.test": None})])
def test_no_credentials(text: str) -> None:
    """Go's client sends null when it was given none."""
    assert registry_credentials(text)("a.test") == ANONYMOUS


def test_both_alphabets_and_no_padding() -> None:
    body = json.dumps({"a.test": {"username": "me", "password": "ÿþ?>~"}}, ensure_ascii=False)
    for encode in (base64.urlsafe_b64encode, base64.b64encode):
        text = encode(body.encode()).decode()
        for form in (text, text.rstrip("="), f" {text} "):
            assert registry_credentials(form)("a.test").password == "ÿþ?>~"


@pytest.mark.parametrize(
    "text",
    [
        "%%%", "a", "é", header([]), header("x"), header(5), header({"a": ME})[:-6] + "!",
        base64.b64encode(b"{").decode(), base64.b64encode(b"\xff\xfe").decode(),
        base64.b64encode(b"[" * 100_000).decode(), "A" * (1 << 20) + "A",
        header({"a.test": {"username": 5}}),
    ],
)  # fmt: skip
def test_what_are_no_credentials(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        registry_credentials(text)
    assert len(str(caught.value)) < 200


def test_a_secret_is_not_in_the_error() -> None:
    with pytest.raises(InvalidArgument) as caught:
        registry_credentials(header({"a.test": {"username": 5, "password": "hunter2"}}))
    assert "hunter2" not in str(caught.value)


# -- the classic form ----------------------------------------------------------------------


class Body:
    """A context, as the client's upload gives it."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._file = io.BytesIO()
        with tarfile.open(fileobj=self._file, mode="w") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        self._file.seek(0)

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(size)


@pytest.fixture
def classic(tmp_path: Path) -> Callable[..., BuildRequest]:
    def read(
        files: dict[str, bytes] | None = None, registries: str = "", **options: Any
    ) -> BuildRequest:
        body = Body(files or {"Dockerfile": b"FROM scratch\n"})
        asked = NO_OPTIONS.__class__(**{**vars_of(NO_OPTIONS), **options})
        return Inputs(HOST, RegistrySettings()).classic(
            body, asked, registries, tmp_path, CancelToken()
        )

    return read


def vars_of(options: BuildOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}


def test_limits(classic: Callable[..., BuildRequest]) -> None:
    limits = classic(
        memory_bytes=1, memory_swap_bytes=-1, cpu_shares=2, cpu_period_us=3, cpu_quota_us=4,
        cpuset_cpus="0-1", cpuset_mems="0", shm_bytes=5, cgroup_parent="/p",
        ulimits=[
            {"Name": "nofile", "Soft": 1, "Hard": 2}, {"Name": "core", "Soft": -1, "Hard": -1},
        ],
    ).limits  # fmt: skip
    assert (limits.memory_bytes, limits.memory_swap_bytes, limits.cpu_shares) == (1, -1, 2)
    assert (limits.cpu_period_us, limits.cpu_quota_us, limits.shm_bytes) == (3, 4, 5)
    assert (limits.cpuset_cpus, limits.cpuset_mems, limits.cgroup_parent) == ("0-1", "0", "/p")
    assert limits.ulimits == (
        Ulimit(name="nofile", soft=1, hard=2), Ulimit(name="core", soft=-1, hard=-1),
    )  # fmt: skip


@pytest.mark.parametrize("value", [{"Name": 5}, {"Soft": "1"}, {"Hard": 1.5}, {"Soft": []}])
def test_what_is_no_ulimit(classic: Callable[..., BuildRequest], value: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="invalid ulimits"):
        classic(ulimits=[value])


def test_everything_is_checked_before_the_context_is_read(tmp_path: Path) -> None:
    class Unread:
        def read(self, size: int = -1, /) -> bytes:
            raise AssertionError("the client's gigabytes were taken for nothing")

    inputs = Inputs(HOST, RegistrySettings())
    for change in ({"tags": ["A"]}, {"platform": "vax/780/x/y"}, {"ulimits": [{"Name": 1}]}):
        asked = BuildOptions(**{**vars_of(NO_OPTIONS), **change})
        with pytest.raises(InvalidArgument):
            inputs.classic(Unread(), asked, "", tmp_path, CancelToken())
    with pytest.raises(InvalidArgument):
        inputs.classic(Unread(), NO_OPTIONS, "%%%", tmp_path, CancelToken())


def test_what_else_is_asked_for(classic: Callable[..., BuildRequest]) -> None:
    found = classic(
        {"d/f": b"FROM scratch\n", "x": b"x"}, header({"a.test": ME}), dockerfile="d/f",
        tags=["a", "b"], build_args={"A": "1"}, labels={"l": "v"}, target="t", network="none",
        extra_hosts=["h:1.2.3.4"], squash=True, pull=True, platform="linux/arm64",
        cache_from=["c:1"],
    )  # fmt: skip
    assert found.dockerfile == b"FROM scratch\n" and found.dockerfile_name == "d/f"
    assert [tag.familiar for tag in found.tags] == ["a:latest", "b:latest"]
    assert (found.build_args, found.labels) == ({"A": "1"}, {"l": "v"})
    assert (found.target, found.network, found.extra_hosts) == ("t", "none", ("h:1.2.3.4",))
    assert found.squash and found.pulls
    assert [str(one) for one in found.platforms] == ["linux/arm64"]
    assert list(found.cache_from) == [{"type": "registry", "ref": "c:1"}]
    assert found.credentials("a.test") == Credentials("me", "pw")
    assert (found.contexts[""].path / "x").read_bytes() == b"x"


def test_the_cache_is_used_or_not(classic: Callable[..., BuildRequest]) -> None:
    assert classic().ignored_stages == ()


def test_the_cache_is_not_used(classic: Callable[..., BuildRequest]) -> None:
    assert classic(no_cache=True).ignored_stages is None
