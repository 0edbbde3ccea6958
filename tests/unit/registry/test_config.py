"""The registry's flags, and what does not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba.model.errors import InvalidArgument
from estiba.registry.config import RegistryConfig, load, parser
from estiba.registry.listeners import Address, parse_address


def config(*flags: str) -> RegistryConfig:
    return load(parser().parse_args(["serve", "--root", "/tmp/r", *flags]))


def test_defaults() -> None:
    made = config()
    assert (made.root, made.address) == (Path("/tmp/r"), Address("127.0.0.1", 5000))
    assert made.htpasswd is None and not made.uses_tokens and made.tls is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":5000", Address("", 5000)),
        ("0.0.0.0:80", Address("0.0.0.0", 80)),
        ("[::1]:5000", Address("::1", 5000)),
        ("host.example:0", Address("host.example", 0)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["5000", "::1:5000", "host:", "host:x", "host:70000", "a:b:1"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid address"):
        parse_address(text)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--addr :5000", "can be reached by others"),
        ("--addr 0.0.0.0:5000 --self-signed", "can be reached by others"),
        ("--auth token", "--auth needs --htpasswd"),
        ("--htpasswd f --allow-anonymous", "contradict each other"),
        ("--tls-cert f", "go together"),
        ("--tls-client-ca f", "needs --tls-cert"),
        ("--tls-cert f --tls-key f --self-signed x", "contradict each other"),
        ("--public-url nonsense", "invalid --public-url"),
        ('--public-url https://a"b', "invalid --public-url"),
    ],
)
def test_what_does_not_go_together(flags: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        config(*flags.split())


@pytest.mark.parametrize(
    "flags",
    [
        "--addr :5000 --htpasswd f",
        "--addr :5000 --allow-anonymous",
        "--addr :5000 --tls-cert f --tls-key f --tls-client-ca f",
        "--addr [::1]:5000",
        "--addr localhost:5000 --self-signed a,10.0.0.1",
    ],
)
def test_what_may_be_served(flags: str) -> None:
    assert config(*flags.split())


def test_every_flag_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "registry.md").read_text()
    commands = parser()._subparsers
    assert commands is not None
    for command in commands._group_actions[0].choices.values():  # type: ignore[union-attr]
        for action in command._actions:
            for option in action.option_strings:
                assert option in ("-h", "--help") or f"`{option}`" in text, option
