"""Image configs as other engines write them."""

from __future__ import annotations

import json

import msgspec
import pytest

from estiba.model.image import ImageConfig, parse_config

PLAIN = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}


def test_null_members_are_zero_values() -> None:
    """Docker writes null for every map and list of a config that is not set."""
    names = ("ExposedPorts", "Volumes", "OnBuild", "Labels", "Cmd", "Env", "Healthcheck")
    config = {**PLAIN, "config": dict.fromkeys(names), "history": None, "comment": None}
    assert parse_config(json.dumps(config)) == parse_config(json.dumps(PLAIN))
    health = {**PLAIN, "config": {"Healthcheck": {"Test": None, "Interval": 5}}}
    check = parse_config(json.dumps(health)).config.healthcheck
    assert check is not None
    assert (check.test, check.interval) == ([], 5)


def test_other_damage_is_an_error() -> None:
    for text in ('{"config": {"Env": [1], "Cmd": null}}', "[]", "{", '{"rootfs": 3}'):
        with pytest.raises(msgspec.DecodeError):
            parse_config(text)
    assert parse_config("{}") == ImageConfig()
