"""Targets and versions of requests."""

from __future__ import annotations

import pytest

from estiba.api.router import split_version
from estiba.api.targets import split_target
from estiba.model.errors import InvalidArgument


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/v1.41/info?a=%41", ("", "/v1.41/info", "a=%41")),
        ("http://docker:2375/info?x=1", ("docker:2375", "/info", "x=1")),
        ("HTTPS://docker", ("docker", "/", "")),
        ("//v1.41//info", ("", "/v1.41/info", "")),
        ("/images/a%2Fb/json", ("", "/images/a/b/json", "")),
        ("/containers/%C3%A9/json", ("", "/containers/\u00e9/json", "")),
        ("/containers/\xc3\xa9/json", ("", "/containers/\u00e9/json", "")),
        ("/containers/%ff/json", ("", "/containers/\ufffd/json", "")),
        ("*", ("", "*", "")),
    ],
)
def test_targets(target: str, parts: tuple[str, str, str]) -> None:
    assert split_target(target) == parts


@pytest.mark.parametrize("target", ["/%", "/%zz", "/a?b=%4", "http://x/%G0"])
def test_bad_escapes(target: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid URL escape"):
        split_target(target)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1.23/info", "client version 1.23 is too old. Minimum supported API version is 1.24"),
        ("/v1/info", "client version 1 is too old"),
        ("/v1.52/info", "client version 1.52 is too new. Maximum supported API version is 1.51"),
        ("/v2/info", "client version 2 is too new"),
    ],
)
def test_versions_that_are_not_served(path: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        split_version(path)


def test_versions() -> None:
    assert split_version("/v1.24/info") == ((1, 24), "/info")
    assert split_version("/v1.51.7/info") == ((1, 51), "/info")
    assert split_version("/info") == ((1, 51), "/info")
    assert split_version("/version") == ((1, 51), "/version")
