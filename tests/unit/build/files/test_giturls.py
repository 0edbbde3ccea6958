"""Addresses of git repositories: what they mean, and what is refused."""

from __future__ import annotations

import pytest

from estiba.build.files.giturls import GitSource, is_git_address, parse_git_url
from estiba.model.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h/r.git", GitSource(remote="https://h/r.git")),
        ("https://h:8443/r.git#v1", GitSource(remote="https://h:8443/r.git", ref="v1")),
        ("https://h/r.git#v1:a/b", GitSource(remote="https://h/r.git", ref="v1", subdir="a/b")),
        ("https://h/r.git#:a", GitSource(remote="https://h/r.git", subdir="a")),
        ("git://h/r", GitSource(remote="git://h/r")),
        ("git@h:o/r", GitSource(remote="git@h:o/r")),
        ("git@h:o/r.git#main", GitSource(remote="git@h:o/r.git", ref="main")),
        ("ssh://me@h:2222/r", GitSource(remote="ssh://me@h:2222/r")),
        ("github.com/o/r#main", GitSource(remote="https://github.com/o/r", ref="main")),
        (
            "https://h/r.git?branch=b&subdir=d&submodules=false&keep-git-dir=true&checksum="
            + "a" * 40,
            GitSource(
                remote="https://h/r.git",
                ref="refs/heads/b",
                subdir="d",
                commit="a" * 40,
                submodules=False,
                keep_git_dir=True,
            ),
        ),
        ("https://h/r.git?tag=v1", GitSource(remote="https://h/r.git", ref="refs/tags/v1")),
        ("https://h/r.git?ref=x#x", GitSource(remote="https://h/r.git", ref="x")),
        (
            "https://h/r.git?commit=" + "b" * 40,
            GitSource(remote="https://h/r.git", ref="b" * 40, commit="b" * 40),
        ),
    ],
)  # fmt: skip
def test_what_addresses_mean(text: str, expected: GitSource) -> None:
    assert parse_git_url(text) == expected


def test_a_password_leaves_the_address() -> None:
    source = parse_git_url("https://me:s%65cret@h/r.git#main")
    assert source.remote == "https://h/r.git"
    assert source.authorization == "Basic bWU6c2VjcmV0"
    assert "secret" not in f"{source!r} {source.shown}" and "bWU6" not in repr(source)
    assert source.origin == "https://h/"


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc",
        "ext::sh -c x",
        "ext::sh",
        "-oProxyCommand=x",
        "--upload-pack=x",
        "https://-h/r.git",
        "ssh://-oProxyCommand=x/r",
        "-x@h:r",
        "git@-h:r",
        "ssh://-x@h/r",
        "ssh://a:b@h/r",
        "https:///r.git",
        "https://h/",
        "https://h:x/r.git",
        "https://h/r.git#--upload-pack=x",
        "https://h/r.git#a..b",
        "https://h/r.git#+refs/*:refs/*",
        "https://h/r.git#a b",
        "https://h/r.git#a~1",
        "https://h/r.git#x.lock",
        "https://h/r.git?upload-pack=x",
        "https://h/r.git?ref=a&ref=b",
        "https://h/r.git?ref=a&tag=b",
        "https://h/r.git?ref=a#b",
        "https://h/r.git?branch=-x\n",
        "https://h/r.git?commit=xyz",
        "https://h/r.git?keep-git-dir=maybe",
        "https://h/r.git?subdir=a#:b",
        "https://h/" + "r" * 5000 + ".git",
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid git URL"):
        parse_git_url(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h/r.git", True),
        ("https://h/r.git#x", True),
        ("https://h/r.git?ref=x", True),
        ("https://h/r.tar.gz", False),
        ("https://h/r#x.git", False),
        ("http://h/r", False),
        ("git://h/r", True),
        ("git@h:r", True),
        ("github.com/o/r", True),
        ("ssh://h/r", True),
        ("./git@h", False),
        ("src/file.git", False),
    ],
)
def test_what_is_an_address_of_git(text: str, expected: bool) -> None:
    assert is_git_address(text) is expected
