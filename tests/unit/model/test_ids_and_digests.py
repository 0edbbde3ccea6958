"""Ids, names and digests: what is accepted, what is refused and in which words."""

from __future__ import annotations

import hashlib
import re

import pytest

from estiba.model.digest import chain_id, digest_of, hex_of, parse_digest
from estiba.model.errors import InvalidArgument
from estiba.model.ids import check_name, new_id, random_name, short


def test_ids_are_hexadecimal_and_their_short_form_is_no_number() -> None:
    ids = {new_id() for _ in range(500)}
    assert len(ids) == 500
    for object_id in ids:
        assert re.fullmatch(r"[0-9a-f]{64}", object_id)
        assert short(object_id) == object_id[:12]
        assert not short(object_id).isdigit()


def test_an_id_that_begins_with_digits_only_is_drawn_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = iter(["1" * 64, "123456789012" + "a" * 52, "12345678901a" + "0" * 52])
    monkeypatch.setattr("secrets.token_hex", lambda _size: next(drawn))
    assert new_id().startswith("12345678901a")


@pytest.mark.parametrize("attempt", range(12))
def test_random_names_are_names(attempt: int) -> None:
    for _ in range(50):
        name = random_name(attempt)
        assert check_name(name) == name
        assert name[-1].isdigit() == (attempt >= 2)


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("web", "web"),
        ("/web", "web"),
        ("a1", "a1"),
        ("0_.-", "0_.-"),
        ("a" * 255, "a" * 255),
    ],
)
def test_names_accepted(name: str, bare: str) -> None:
    assert check_name(name) == bare


@pytest.mark.parametrize(
    "name", ["", "/", "a", "_a", ".a", "-a", "//a", "a/b", "a b", "a\n", "ä1", "a" * 256, "ab\0"]
)
def test_names_refused_with_the_rule(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"(?s)Invalid volume name .*\[a-zA-Z0-9\]"):
        check_name(name, what="volume")


@pytest.mark.parametrize("text", ["sha256:" + "0f" * 32, "sha512:" + "0f" * 64])
def test_digests_accepted(text: str) -> None:
    assert parse_digest(text) == text
    assert hex_of(text) == text.split(":")[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha512:" + "0" * 64,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "md5:" + "0" * 32,
        "SHA256:" + "0" * 64,
        "sha256:" + "0" * 64 + "\n",
        "0" * 64,
    ],
)
def test_digests_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid digest"):
        parse_digest(text)


def test_digest_and_chain_id_follow_the_image_spec() -> None:
    assert digest_of(b"") == "sha256:" + hashlib.sha256(b"").hexdigest()
    first, second = digest_of(b"1"), digest_of(b"2")
    assert chain_id(None, first) == first
    both = hashlib.sha256(f"{first} {second}".encode()).hexdigest()
    assert chain_id(first, second) == f"sha256:{both}"
