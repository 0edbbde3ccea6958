"""Passwords, tokens, and limits on guessing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import bcrypt
import pytest

from estiba.model.errors import InvalidArgument
from estiba.registry.auth.htpasswd import Htpasswd, read_htpasswd
from estiba.registry.auth.identity import CATALOG
from estiba.registry.auth.throttle import PER_ADDRESS, PER_NAME, WINDOW_S, Throttle
from estiba.registry.auth.tokens import ACCESS_S, TokenInvalid, TokenMaker, read_key
from estiba.registry.errors import TooManyRequests


def entry(name: str, password: bytes) -> str:
    return f"{name}:{bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()}\n"


async def test_passwords(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text("# people\n\n" + entry("ana", b"secret") + entry("ben", b"x" * 72))
    people = Htpasswd(path)
    for _ in range(2):
        assert await people.verify("ana", "secret")
        assert not await people.verify("ana", "secret2")
        assert not await people.verify("ana", "")
        assert not await people.verify("ana", "secret\0")
        assert not await people.verify("zoe", "secret")
    assert await people.verify("ben", "x" * 100), "htpasswd cuts at 72 bytes"
    assert not await people.verify("ben", "\ud800")


async def test_a_file_that_changes(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(entry("ana", b"old"))
    people = Htpasswd(path)
    assert await people.verify("ana", "old")
    before = people.fingerprint("ana")
    path.write_text(entry("ana", b"new") + entry("ben", b"b"))
    assert not await people.verify("ana", "old")
    assert await people.verify("ana", "new")
    assert await people.verify("ben", "b")
    assert people.fingerprint("ana") != before
    path.write_text("half a li")
    assert await people.verify("ana", "new"), "what cannot be read changes nothing"
    path.unlink()
    assert await people.verify("ana", "new")


async def test_many_at_once(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(entry("ana", b"secret"))
    people = Htpasswd(path)
    verdicts = await asyncio.gather(*(people.verify("ana", "secret") for _ in range(20)))
    assert verdicts == [True] * 20


@pytest.mark.parametrize("line", ["ana", "ana:plain", "ana:$apr1$x$y", ":$2y$05$" + "a" * 53])
def test_lines_that_are_no_bcrypt(tmp_path: Path, line: str) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(line)
    with pytest.raises(InvalidArgument, match="line 1: expected NAME:HASH"):
        read_htpasswd(path)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_tokens() -> None:
    clock = Clock()
    maker = TokenMaker(os.urandom(32), "here", clock)
    grants = {"team/a": frozenset({"pull", "push"}), CATALOG: frozenset({"*"})}
    issued = maker.access("ana", grants)
    identity = maker.read_access(issued.token)
    assert (identity.user, identity.grants) == ("ana", grants)
    clock.now += ACCESS_S
    with pytest.raises(TokenInvalid, match="expired"):
        maker.read_access(issued.token)


def test_tokens_that_are_not_ours() -> None:
    key = os.urandom(32)
    maker = TokenMaker(key, "here")
    token = maker.access("ana", {}).token
    header, payload, signature = token.split(".")
    none = "eyJhbGciOiJub25lIn0"
    bad = [
        "",
        ".",
        "..",
        f"{none}.{payload}.",
        f"{none}.{payload}.{signature}",
        f"{header}.{payload}.",
        f"{header}.{payload}x.{signature}",
        f"{header}.{payload}.{signature[:-1]}",
        token + "é",
        "x" * 20_000,
        maker.refresh("ana", b"f"),
        TokenMaker(key, "there").access("ana", {}).token,
        TokenMaker(os.urandom(32), "here").access("ana", {}).token,
    ]
    for text in bad:
        with pytest.raises(TokenInvalid):
            maker.read_access(text)
    with pytest.raises(TokenInvalid):
        maker.read_refresh(token)
    assert maker.read_refresh(maker.refresh("ana", b"f")) == ("ana", b"f")


def test_the_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "token.key"
    key = read_key(path)
    assert len(key) == 32 and read_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["token.key"]
    path.write_bytes(b"short")
    with pytest.raises(InvalidArgument, match="shorter than 32 bytes"):
        read_key(path)


def test_guessing_is_slowed_down() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    for _ in range(PER_NAME):
        throttle.check("10.0.0.1", "ana")
        throttle.failed("10.0.0.1", "ana")
    with pytest.raises(TooManyRequests) as raised:
        throttle.check("10.0.0.1", "ana")
    assert raised.value.headers == {"Retry-After": "60"}
    throttle.check("10.0.0.2", "ana")
    throttle.check("10.0.0.1", "ben")
    for number in range(PER_ADDRESS - PER_NAME):
        throttle.failed("10.0.0.1", f"name{number}")
    with pytest.raises(TooManyRequests):
        throttle.check("10.0.0.1", "ben")
    clock.now += WINDOW_S
    throttle.check("10.0.0.1", "ana")


def test_a_network_of_ipv6_counts_as_one() -> None:
    throttle = Throttle(Clock())
    for number in range(PER_ADDRESS):
        throttle.failed(f"2001:db8::{number:x}", f"n{number}")
    with pytest.raises(TooManyRequests):
        throttle.check("2001:db8::ffff", "ana")
    throttle.check("2001:db8:0:1::1", "ana")
