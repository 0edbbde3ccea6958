"""Mount plans: every way to ask for a mount, and what is refused in which words."""

from __future__ import annotations

import msgspec
import pytest
from tests.support.mountplans import planned
from tests.support.records import make_record

from estiba.containers.record import MountPlan
from estiba.model.container import (
    BindOptions,
    HostConfig,
    ImageOptions,
    Mount,
    TmpfsOptions,
    VolumeDriverConfig,
    VolumeOptions,
)
from estiba.model.errors import InvalidArgument, NotFound

# -- --mount -------------------------------------------------------------------------------


def test_a_bind_by_mount_does_not_make_its_source_unless_asked() -> None:
    (plan,) = planned(HostConfig(mounts=[Mount(type="bind", source="/a/", target="/b")]))
    assert plan == MountPlan(type="bind", source="/a", destination="/b", propagation="rprivate")
    options = BindOptions(
        propagation="rshared",
        create_mountpoint=True,
        non_recursive=True,
        read_only_force_recursive=True,
    )
    mount = Mount(type="bind", source="/a", target="/b", read_only=True, bind_options=options)
    (plan,) = planned(HostConfig(mounts=[mount]))
    assert plan == MountPlan(
        type="bind",
        source="/a",
        destination="/b",
        rw=False,
        propagation="rshared",
        create_source=True,
        non_recursive=True,
        read_only_force_recursive=True,
    )


def test_volumes_by_mount() -> None:
    options = VolumeOptions(
        no_copy=True,
        labels={"a": "b"},
        subpath="in/side",
        driver_config=VolumeDriverConfig(name="nfs", options={"o": "rw"}),
    )
    mounts = [
        Mount(type="volume", source="data", target="/a", volume_options=options),
        Mount(type="volume", target="/b"),
    ]
    named, anonymous = planned(HostConfig(mounts=mounts))
    assert named == MountPlan(
        type="volume",
        name="data",
        destination="/a",
        driver="nfs",
        driver_options={"o": "rw"},
        labels={"a": "b"},
        mode="z",
        no_copy=True,
        subpath="in/side",
    )
    assert anonymous == MountPlan(
        type="volume",
        name="new1",
        destination="/b",
        driver="local",
        mode="z",
        anonymous=True,
    )


def test_an_image_by_mount() -> None:
    mount = Mount(
        type="image", source="tools", target="/t", image_options=ImageOptions(subpath="bin")
    )
    (plan,) = planned(HostConfig(mounts=[mount]))
    assert plan == MountPlan(
        type="image",
        name="tools",
        source="sha256:tools",
        destination="/t",
        layers=["sha256:below", "sha256:above"],
        rw=False,
        propagation="rprivate",
        subpath="bin",
    )


def test_volumes_without_a_name_are_of_the_container_s_driver() -> None:
    host = HostConfig(volume_driver="nfs", binds=["vol:/a"])
    assert [plan.driver for plan in planned(host, volumes=["/b"])] == ["nfs", "nfs"]
    assert [plan.driver for plan in planned(volumes=["/b"])] == ["local"]


@pytest.mark.parametrize(
    ("host", "idmap"),
    [
        (HostConfig(binds=["/src:/dst"]), None),
        (HostConfig(binds=["/src:/dst:idmap"]), ""),
        (HostConfig(binds=["vol:/dst:ro,idmap"]), ""),
        (HostConfig(binds=["/src:/dst:idmap=uids=0-1000-1"]), "uids=0-1000-1"),
        (HostConfig(binds=["/src:/dst"], annotations={"estiba.idmap": "/dst"}), ""),
        (
            HostConfig(
                mounts=[Mount(type="volume", source="vol", target="/dst")],
                annotations={"estiba.idmap": "/dst=uids=0-1-2#5-5-1;gids=0-7-1"},
            ),
            "uids=0-1-2#5-5-1;gids=0-7-1",
        ),
    ],
)
def test_owners_are_mapped_on_request(host: HostConfig, idmap: str | None) -> None:
    (plan,) = planned(host)
    assert plan.idmap == idmap


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("uids=0-1000", "'0-1000' is not STORED-SHOWN-LENGTH"),
        ("uids=a-b-c", "is not STORED-SHOWN-LENGTH"),
        ("uids=0-0-0", "ids go from 0"),
        ("uids=0-4294967294-2", "ids go from 0 to 4294967294"),
        ("uids=0-0-10#5-20-1", "ranges overlap"),
        ("uids=0-0-10#20-9-1", "ranges overlap"),
        ("uids=0-0-1;uids=0-0-1", "use uids="),
        ("users=0-0-1", "use uids="),
        ("uids=" + "#".join(f"{n}-{n}-1" for n in range(341)), "over 340 ranges"),
    ],
)
def test_maps_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        planned(HostConfig(binds=[f"/src:/dst:idmap={text}"]))


def test_a_map_needs_a_mount_with_owners() -> None:
    for host in (HostConfig(), HostConfig(mounts=[Mount(type="tmpfs", target="/dst")])):
        asked = msgspec.structs.replace(host, annotations={"estiba.idmap": "/dst"})
        with pytest.raises(InvalidArgument, match="no bind and no volume is mounted at /dst"):
            planned(asked)


def test_tmpfs_by_mount() -> None:
    size = TmpfsOptions(size_bytes=4096, mode=0o1777)
    mount = Mount(type="tmpfs", target="/run", tmpfs_options=size)
    (plan,) = planned(HostConfig(mounts=[mount]))
    assert plan == MountPlan(type="tmpfs", destination="/run", tmpfs_options=size)


@pytest.mark.parametrize(
    ("mount", "why"),
    [
        (Mount(type="bind", source="a", target="/b"), "mount path must be absolute"),
        (Mount(type="bind", source="", target="/b"), "field Source must not be empty"),
        (Mount(type="bind", source="/a", target="b"), "'b' mount path must be absolute"),
        (Mount(type="bind", source="/a", target=""), "field Target must not be empty"),
        (
            Mount(
                type="bind",
                source="/a",
                target="/b",
                bind_options=BindOptions(propagation="sideways"),
            ),
            "invalid propagation mode: sideways",
        ),
        (Mount(type="tmpfs", source="/a", target="/b"), "field Source must not be specified"),
        (Mount(type="volume", source="/a", target="/b"), "invalid characters"),
        (
            Mount(
                type="volume",
                source="vol",
                target="/b",
                volume_options=VolumeOptions(subpath="../x"),
            ),
            "subpath must be a relative path within the volume",
        ),
        (
            Mount(
                type="volume", source="vol", target="/b", volume_options=VolumeOptions(subpath="/x")
            ),
            "subpath must be a relative path within the volume",
        ),
        (
            Mount(type="volume", target="/b", volume_options=VolumeOptions(subpath="x")),
            "must not set Subpath when using anonymous volumes",
        ),
        (
            Mount(type="bind", source="/a", target="/b", volume_options=VolumeOptions()),
            'VolumeOptions must not be specified on mount type "bind"',
        ),
        (
            Mount(type="volume", target="/b", tmpfs_options=TmpfsOptions()),
            'TmpfsOptions must not be specified on mount type "volume"',
        ),
        (
            Mount(type="tmpfs", target="/b", bind_options=BindOptions()),
            'BindOptions must not be specified on mount type "tmpfs"',
        ),
        (
            Mount(type="volume", target="/b", read_only=True),
            "must not set ReadOnly mode when using anonymous volumes",
        ),
        (
            Mount(
                type="bind",
                source="/a",
                target="/b",
                read_only=True,
                bind_options=BindOptions(
                    read_only_non_recursive=True, read_only_force_recursive=True
                ),
            ),
            "mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive",
        ),
        (Mount(type="image", target="/b"), "field Source must not be empty"),
        (
            Mount(
                type="image", source="a", target="/b", image_options=ImageOptions(subpath="../a")
            ),
            "subpath must be a relative path within the image",
        ),
        (
            Mount(type="image", source="a", target="/b", bind_options=BindOptions()),
            'BindOptions must not be specified on mount type "image"',
        ),
        (
            Mount(
                type="volume",
                source="vol",
                target="/b",
                volume_options=VolumeOptions(subpath="a" * 5000),
            ),
            "over 4095 bytes",
        ),
        (
            Mount(
                type="tmpfs", target="/b", tmpfs_options=TmpfsOptions(options=[["lowerdir", "/"]])
            ),
            "invalid tmpfs option",
        ),
        (Mount(type="npipe", source="a", target="/b"), 'type "npipe": mount type unknown'),
        (Mount(type="", source="a", target="/b"), "unknown"),
    ],
)
def test_mounts_refused(mount: Mount, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        planned(HostConfig(mounts=[mount]))


# -- one mount a place ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(binds=["/a:/d", "/b:/d"]),
        HostConfig(binds=["/a:/d", "/b:/d/"]),
        HostConfig(binds=["/a:/d", "/b://d"]),
        HostConfig(binds=["/a:/d"], mounts=[Mount(type="tmpfs", target="/d/../d")]),
        HostConfig(binds=["/a:/d"], tmpfs={"/d": ""}),
        HostConfig(binds=["/a:/d"], tmpfs={"/d/": "size=1m"}),
        HostConfig(mounts=[Mount(type="volume", target="/d")], tmpfs={"/x/../d": ""}),
    ],
)
def test_two_mounts_at_one_place_are_refused(host: HostConfig) -> None:
    with pytest.raises(InvalidArgument, match="Duplicate mount point: /d"):
        planned(host)


def test_the_image_s_volumes_give_way_to_what_was_asked_for() -> None:
    host = HostConfig(binds=["/a:/bound"], tmpfs={"/temporary": ""})
    plans = planned(host, volumes=["/bound/", "/temporary", "/fresh/"])
    assert [(plan.destination, plan.type, plan.name) for plan in plans] == [
        ("/bound", "bind", ""),
        ("/fresh", "volume", "new1"),
    ]
    assert plans[1].anonymous


def test_parents_come_before_their_children() -> None:
    host = HostConfig(binds=["/1:/a/b/c", "/2:/a", "/3:/a/b", "/4:/z"])
    assert [plan.destination for plan in planned(host)] == ["/a", "/a/b", "/a/b/c", "/z"]


@pytest.mark.parametrize("path", ["relative", "/", ""])
def test_bad_places_of_the_image_s_volumes_and_of_tmpfs(path: str) -> None:
    with pytest.raises(InvalidArgument):
        planned(volumes=[path])
    with pytest.raises(InvalidArgument):
        planned(HostConfig(tmpfs={path: ""}))


# -- another container's mounts ------------------------------------------------------------

OTHER = make_record(
    "other",
    mounts=[
        MountPlan(type="volume", name="v", destination="/v", anonymous=True),
        MountPlan(type="bind", source="/b", destination="/b", rw=False),
        MountPlan(type="tmpfs", destination="/t"),
    ],
)


@pytest.mark.parametrize(
    ("source", "writable"), [("other", True), ("other:rw", True), ("other:ro", False)]
)
def test_volumes_from(source: str, writable: bool) -> None:
    host = HostConfig(volumes_from=[source])
    bind, volume = planned(host, volumes=["/v"], others={"other": OTHER})
    assert (bind.type, bind.rw) == ("bind", False)
    assert (volume.name, volume.rw, volume.no_copy) == ("v", writable, True)
    assert volume.anonymous and not bind.anonymous


def test_an_explicit_mount_wins_over_an_inherited_one() -> None:
    host = HostConfig(volumes_from=["other"], binds=["/mine:/v"])
    plans = planned(host, others={"other": OTHER})
    assert {plan.destination: plan.source for plan in plans} == {"/b": "/b", "/v": "/mine"}


def test_volumes_from_refused() -> None:
    with pytest.raises(InvalidArgument, match="invalid mode: xx"):
        planned(HostConfig(volumes_from=["other:xx"]), others={"other": OTHER})
    with pytest.raises(NotFound):
        planned(HostConfig(volumes_from=["nobody"]))


# -- binds of the engine's own files -------------------------------------------------------


@pytest.mark.parametrize("source", ["/", "/var", "/var/lib/estiba", "/var/lib/estiba/volumes/x"])
def test_a_bind_of_the_data_root_lets_go_of_its_mounts(source: str) -> None:
    (bind,) = planned(HostConfig(binds=[f"{source}:/root"]))
    (mount,) = planned(HostConfig(mounts=[Mount(type="bind", source=source, target="/root")]))
    assert bind.propagation == mount.propagation == "rslave"
    assert planned(HostConfig(binds=[f"{source}:/root:rshared"]))[0].propagation == "rshared"
    for mode in ("private", "rprivate", "slave", "shared"):
        with pytest.raises(InvalidArgument, match='"rslave" or "rshared"'):
            planned(HostConfig(binds=[f"{source}:/root:{mode}"]))


def test_a_bind_beside_the_data_root_is_private() -> None:
    (plan,) = planned(HostConfig(binds=["/var/lib/estiba-other:/root"]))
    assert plan.propagation == "rprivate"
