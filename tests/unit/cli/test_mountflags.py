"""`--mount` as docker's client reads it, and what it has not: mapped owners."""

from __future__ import annotations

import pytest

from estiba.cli.mountflags import parse_mount, split_mounts
from estiba.cli.parse import FlagError


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("bind-recursive=writable", "'bind-recursive=writable' requires 'readonly'"),
        ("bind-recursive=readonly", "'bind-recursive=readonly' requires 'readonly'"),
        ("ro,bind-recursive=readonly", "requires 'bind-propagation=rprivate'"),
        ("bind-recursive=x", 'x .must be "enabled", "disabled", "writable", or "readonly".'),
        ("image-subpath=x", "cannot mix 'image-.' options with mount type 'bind'"),
        ("tmpfs-size=1z", "invalid value for tmpfs-size: 1z"),
        ("readonly=x", "invalid value for readonly: x"),
        ("nonsense", "invalid field 'nonsense' must be a key=value pair"),
    ],
)
def test_mounts_refused(text: str, why: str) -> None:
    with pytest.raises(FlagError, match=why):
        parse_mount(f"type=bind,src=/a,dst=/b,{text}")


def test_an_image() -> None:
    assert parse_mount("type=image,src=tools,dst=/t,image-subpath=bin") == {
        "Type": "image",
        "Source": "tools",
        "Target": "/t",
        "ImageOptions": {"Subpath": "bin"},
    }


def test_mapped_owners_travel_as_an_annotation() -> None:
    texts = [
        "type=bind,src=/a,dst=/b,idmap",
        "type=volume,src=v,dst=/c,idmap=uids=0-1000-1",
        "type=volume,src=v,dst=/d",
    ]
    mounts, annotations = split_mounts(texts, {"x": "y"})
    assert mounts == [
        {"Type": "bind", "Source": "/a", "Target": "/b"},
        {"Type": "volume", "Source": "v", "Target": "/c"},
        {"Type": "volume", "Source": "v", "Target": "/d"},
    ]
    assert annotations == {"x": "y", "estiba.idmap": "/b,/c=uids=0-1000-1"}
    assert split_mounts(texts[:1], {"estiba.idmap": "/e"})[1] == {"estiba.idmap": "/e,/b"}
    assert split_mounts(texts[2:], {}) == (mounts[2:], {})
    with pytest.raises(FlagError, match="no target with a comma"):
        split_mounts(['type=bind,src=/a,"dst=/b,c",idmap'], {})
