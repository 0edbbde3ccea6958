"""Versions of the API in paths."""

from __future__ import annotations

import pytest

from estiba.api.router import split_version
from estiba.model.errors import InvalidArgument


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
