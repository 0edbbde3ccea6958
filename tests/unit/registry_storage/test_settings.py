"""Flags of the storage: read, or refused with their names."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from estiba.model.errors import InvalidArgument
from estiba.registry.storage.settings import (
    StorageSettings,
    add_serving_flags,
    add_storage_flags,
    parse_size,
    storage_settings,
)


def parse(*arguments: str) -> StorageSettings:
    parser = argparse.ArgumentParser()
    add_storage_flags(parser)
    add_serving_flags(parser)
    return storage_settings(Path("/root"), vars(parser.parse_args(arguments)))


def test_without_flags() -> None:
    settings = parse()
    assert settings == StorageSettings(Path("/root"))
    assert not settings.limits


def test_a_bucket() -> None:
    s3 = parse("--s3-bucket", "b", "--s3-prefix", "x/y", "--s3-endpoint", "http://h:1").s3
    assert s3 is not None
    assert (s3.bucket, s3.prefix, s3.endpoint, s3.redirect) == ("b", "x/y", "http://h:1", False)


def test_limits_and_times() -> None:
    settings = parse(
        "--quota", "1.5GB", "--quota-for", "team/a=10kb", "--quota-for", "b=7", "--gc-grace", "90m",
        "--gc-interval", "0", "--delete-untagged",
    )  # fmt: skip
    assert settings.limits.total == 3 << 29
    assert settings.limits.prefixes == {"team/a": 10240, "b": 7}
    assert (settings.grace, settings.interval, settings.delete_untagged) == (5400, 0, True)


def test_an_upstream(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    settings = parse(
        "--proxy", "https://Registry.example:5000/some/where", "--proxy-user", "me",
        "--proxy-password-file", str(password), "--proxy-ttl", "10",
    )  # fmt: skip
    upstream = settings.upstream
    assert upstream is not None
    assert (upstream.domain, upstream.prefix) == ("registry.example:5000", "some/where")
    assert (upstream.credentials.username, upstream.credentials.password) == ("me", "secret")
    assert upstream.ttl == 10 and not upstream.settings.is_insecure(upstream.domain)
    assert "secret" not in repr(settings)
    for url, domain in (
        ("https://registry-1.docker.io", "docker.io"), ("http://127.0.0.1:5000", "127.0.0.1:5000"),
        ("https://docker.io/", "docker.io"), ("http://plain.example", "plain.example"),
    ):  # fmt: skip
        upstream = parse("--proxy", url).upstream
        assert upstream is not None and upstream.domain == domain
    assert upstream.settings.is_insecure("plain.example")


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["--s3-prefix", "x"], "--s3-prefix needs --s3-bucket"),
        (["--s3-redirect"], "--s3-redirect needs --s3-bucket"),
        (["--quota", "much"], "--quota 'much'"),
        (["--quota", "-1"], "--quota"),
        (["--quota-for", "10GB"], "--quota-for '10GB'"),
        (["--quota-for", "../x=10GB"], "--quota-for '../x=10GB'"),
        (["--quota-for", "a="], "--quota-for ''"),
        (["--gc-grace", "soon"], "--gc-grace 'soon'"),
        (["--proxy", "ftp://x.y"], "--proxy 'ftp://x.y'"),
        (["--proxy", "https://x.y/?q"], "--proxy"),
        (["--proxy", "https://plain/"], "--proxy"),
        (["--proxy", "https://user:pass@x.y"], "--proxy"),
        (["--proxy", "x.y"], "--proxy 'x.y'"),
        (["--proxy-user", "me"], "need --proxy URL"),
        (["--proxy", "https://x.y", "--proxy-user", "me"], "go together"),
        (
            ["--proxy", "https://x.y", "--proxy-user", "me", "--proxy-password-file", "/none"],
            "/none",
        ),
    ],
)
def test_what_is_refused(arguments: list[str], flag: str) -> None:
    if "-1" in arguments:
        arguments = ["--quota=-1"]
    with pytest.raises(InvalidArgument) as caught:
        parse(*arguments)
    assert flag in str(caught.value)
    assert "pass@" not in str(caught.value)


def test_sizes() -> None:
    for text, size in (("0", 0), ("10b", 10), ("1k", 1024), ("2 MiB", None), ("3MiB", 3 << 20)):
        if size is None:
            with pytest.raises(InvalidArgument):
                parse_size("--quota", text)
        else:
            assert parse_size("--quota", text) == size
