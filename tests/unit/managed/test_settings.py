from __future__ import annotations

import json

import pytest

from estiba.managed.config import (
    PluginConfig,
    check_privileges,
    implements,
    parse_config,
    privileges_of,
)
from estiba.managed.record import default_settings
from estiba.managed.settings import carried, change
from estiba.model.errors import InvalidArgument

CONFIG = {
    "entrypoint": ["/x"],
    "interface": {
        "socket": "x.sock",
        "types": ["docker.volumedriver/1.0", "docker.networkdriver/1.0", "docker.authz/1.0"],
    },
    "network": {"type": "host"},
    "pidhost": True,
    "IpcHost": True,
    "linux": {
        "capabilities": ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"],
        "allowAllDevices": True,
        "devices": [
            {"name": "fuse", "path": "/dev/fuse", "settable": ["path"]},
            {"name": "later", "settable": ["path"]},
        ],
    },
    "mounts": [
        {"name": "state", "source": "/state", "destination": "/s", "type": "bind",
         "settable": ["source"], "options": ["rbind"]},
        {"destination": "/t", "type": "tmpfs"},
    ],
    "env": [
        {"name": "A", "value": "1", "settable": ["value"]},
        {"name": "B", "settable": ["value", "other"]},
        {"name": "C", "value": "3"},
    ],
    "args": {"name": "args", "value": ["x"], "settable": ["value"]},
}  # fmt: skip


def config(**changes: object) -> PluginConfig:
    return parse_config(json.dumps({**CONFIG, **changes}).encode())


def test_keys_match_in_any_case_and_privileges_are_in_dockers_order() -> None:
    found = config()
    assert [(one.name, one.value) for one in privileges_of(found)] == [
        ("network", ["host"]),
        ("host ipc namespace", ["true"]),
        ("host pid namespace", ["true"]),
        ("mount", ["/state"]),
        ("device", ["/dev/fuse"]),
        ("allow-all-devices", ["true"]),
        ("capabilities", ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]),
    ]
    assert implements(found) == {"VolumeDriver", "NetworkDriver"}
    check_privileges(found, list(reversed(privileges_of(found))))
    for granted in (privileges_of(found)[1:], [*privileges_of(found), privileges_of(found)[0]]):
        with pytest.raises(InvalidArgument, match="incorrect privileges"):
            check_privileges(found, granted)


def test_what_may_be_set_is_set() -> None:
    found = config()
    settings = default_settings(found)
    assert settings.env == ["A=1", "C=3"]
    wishes = ["A=x=y", "state.source=/other", "fuse=/dev/null", "later.path=/dev/zero", "args=p q"]
    changed = change(found, settings, wishes)
    assert changed.env == ["C=3", "A=x=y"]
    assert changed.mounts[0].source == "/other"
    assert [device.path for device in changed.devices] == ["/dev/null", "/dev/zero"]
    assert changed.args == ["p", "q"]
    assert settings == default_settings(found), "the old ones are as they were"


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("C=4", '"C" is not settable'),
        ("A.name=4", '"A.name" is not settable'),
        ("B=4", "multiple fields are settable"),
        ("state.source=relative", "no absolute path"),
        ("state.source=/a/../b", "no absolute path"),
        ("nothing=4", "not found in the plugin configuration"),
        ("=4", "invalid format"),
        ("A=\0", "invalid format"),
    ],
)
def test_what_may_not_be_set_is_told(wish: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        change(config(), default_settings(config()), [wish])


def test_an_upgrade_keeps_what_still_fits() -> None:
    old = config()
    before = change(old, default_settings(old), ["A=kept", "state=/mine", "args=1 2"])
    new = config(
        env=[{"name": "A", "value": "2", "settable": ["value"]}, {"name": "C", "value": "new"}],
        mounts=[],
    )
    after = carried(new, before)
    assert after.env == ["C=new", "A=kept"]
    assert after.mounts == []
    assert after.args == ["1", "2"]
