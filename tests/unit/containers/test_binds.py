"""Binds as `-v` writes them: every form, and what is refused in which words."""

from __future__ import annotations

import pytest

from estiba.containers.binds import parse_bind
from estiba.containers.record import MountPlan
from estiba.model.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        (
            "/src:/dst",
            MountPlan(
                type="bind",
                source="/src",
                destination="/dst",
                create_source=True,
            ),
        ),
        (
            "/src/../a/:/dst/./b/:ro,rslave",
            MountPlan(
                type="bind",
                source="/a",
                destination="/dst/b",
                mode="ro,rslave",
                rw=False,
                propagation="rslave",
                create_source=True,
            ),
        ),
        (
            "data:/var/lib/data",
            MountPlan(type="volume", name="data", destination="/var/lib/data", mode="z"),
        ),
        (
            "data:/d:ro,nocopy",
            MountPlan(
                type="volume",
                name="data",
                destination="/d",
                mode="ro,nocopy",
                rw=False,
                no_copy=True,
            ),
        ),
    ],
)
def test_binds(text: str, plan: MountPlan) -> None:
    assert parse_bind(text, str) == plan


def test_the_volume_driver_is_that_of_the_request() -> None:
    assert parse_bind("data:/d", str, driver="nfs").driver == "nfs"


def test_a_bind_of_a_destination_alone_is_an_anonymous_volume() -> None:
    plan = parse_bind("/data/", lambda: "new")
    assert (plan.type, plan.name, plan.destination, plan.anonymous) == (
        "volume",
        "new",
        "/data",
        True,
    )


@pytest.mark.parametrize("mode", ["rw", "z", "Z", "cached", "delegated", "consistent", "shared"])
def test_other_modes_leave_a_bind_writable(mode: str) -> None:
    plan = parse_bind(f"/a:/b:{mode}", str)
    assert plan.rw
    assert plan.mode == mode


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "invalid volume specification"),
        ("a", "mount path must be absolute"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:shared,slave", "invalid mode: shared,slave"),
        ("/a:/b:nocopy", 'type "bind": field VolumeOptions must not be specified'),
        ("data:/b:rshared", 'type "volume": field BindOptions must not be specified'),
        ("d:/b", "volume name is too short"),
        (":/b", "invalid volume specification"),
        ("/a:", "invalid volume specification"),
        ("/a:/b:ro:z", "invalid volume specification"),
        ("/a:b", "must be absolute"),
        ("/a:/", "destination can't be '/'"),
        ("/a:/x/..", "destination can't be '/'"),
        ("/a://", "destination can't be '/'"),
        ("/a:/b:rx", "invalid mode: rx"),
        ("/a:/b:ro,wo", "invalid mode: ro,wo"),
        ("./a:/b", "use absolute path"),
        ("a b:/b", "invalid characters"),
        ("-a:/b", "invalid characters"),
        ("a" * 256 + ":/b", "invalid characters"),
        ("/a:/b\0c", "bad characters"),
        ("/a:/" + "b" * 4095, "over 4095"),
    ],
)
def test_binds_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        parse_bind(text, str)
