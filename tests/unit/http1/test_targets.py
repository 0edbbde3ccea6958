"""Targets of requests: host, path and query."""

from __future__ import annotations

import pytest

from estiba.http1.targets import split_target
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
