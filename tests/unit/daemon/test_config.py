"""Settings of the daemon: what is wrong with them is said before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from estiba.daemon.config import DaemonConfig, load, parser
from estiba.model.errors import InvalidArgument


def loaded(folder: Path, *flags: str, **content: Any) -> DaemonConfig:
    path = folder / "daemon.json"
    path.write_text(json.dumps({name.replace("_", "-"): item for name, item in content.items()}))
    return load(parser().parse_args(["--config-file", str(path), *flags]))


def test_both_places(tmp_path: Path) -> None:
    config = loaded(tmp_path, "--fixed-cidr", "10.9.0.128/25", bip="10.9.0.1/24", mtu=1400)
    assert (config.bip, config.fixed_cidr, config.mtu) == ("10.9.0.1/24", "10.9.0.128/25", 1400)


def test_publish_policy(tmp_path: Path) -> None:
    assert loaded(tmp_path).publish_policy == "host"
    assert loaded(tmp_path, publish_policy="open").publish_policy == "open"
    assert loaded(tmp_path, "--publish-policy", "open").publish_policy == "open"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"mtu": "wide"}, "wrong kind"),
        ({"default_address_pools": [{"size": 24}]}, "wrong kind|base"),
        ({"runtimes": {"x": {}}}, "wrong kind|path"),
        ({"log_level": "loud"}, "invalid log-level 'loud'"),
        ({"log_driver": "fluentd"}, "no log driver named 'fluentd'"),
        ({"log_opts": {"max-size": "huge"}}, "invalid size"),
        ({"log_opts": {"colour": "blue"}}, "unknown log opt 'colour'"),
        ({"publish_policy": "shut"}, "invalid publish-policy 'shut': use host or open"),
        ({"nonsense": 1}, "unknown setting: nonsense"),
    ],
)
def test_what_is_wrong(tmp_path: Path, content: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        loaded(tmp_path, **content)
