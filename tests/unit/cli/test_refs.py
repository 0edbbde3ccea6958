"""Names of images and platforms as docker's client takes them."""

from __future__ import annotations

import pytest

from estiba.cli.parse import UsageError
from estiba.cli.refs import platform, reference


@pytest.mark.parametrize(
    ("text", "whole", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("localhost:5000/a/b:1", "localhost:5000/a/b:1", "localhost:5000/a/b:1"),
        ("docker.io/x/y", "docker.io/x/y:latest", "x/y:latest"),
    ],
)
def test_names(text: str, whole: str, familiar: str) -> None:
    found = reference(text).tagged
    assert (str(found), found.familiar) == (whole, familiar)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("UPPER", ": repository name (library/UPPER) must be lowercase"),
        ("host.example/a/B:1", ": repository name (a/B) must be lowercase"),
        ("localhost:5000/A", ": repository name (A) must be lowercase"),
        ("a:b:c", ""),
        ("a b", ""),
        ("", ""),
        ("a@sha256:00", ""),
    ],
)
def test_bad_names(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        reference(text)
    assert str(caught.value) == f"invalid reference format{reason}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("linux/amd64", ("linux", "amd64", None)),
        ("Linux/x86_64", ("linux", "amd64", None)),
        ("linux/arm64/v8", ("linux", "arm64", None)),
        ("linux/aarch64", ("linux", "arm64", None)),
        ("linux/arm", ("linux", "arm", "v7")),
        ("linux/armel", ("linux", "arm", "v6")),
        ("linux/arm/v6", ("linux", "arm", "v6")),
        ("riscv64", ("linux", "riscv64", None)),
    ],
)
def test_platforms(text: str, found: tuple[str, str, str | None]) -> None:
    view = platform(text)
    assert (view["os"], view["architecture"], view.get("variant")) == found


@pytest.mark.parametrize("text", ["", "a/", "a/b/c/d", "linux/a md64", "linux//v8"])
def test_bad_platforms(text: str) -> None:
    with pytest.raises(UsageError):
        platform(text)
