"""Images that are made only to be put out: who else wants them, and when they go."""

from __future__ import annotations

import io
import json

import pytest
from tests.kernel.build.transfer.transfer_lab import layer_tar

from estiba.build.passing import Passing
from estiba.images import removal
from estiba.images.images import Images, Naming, NewImage
from estiba.images.record import ImageRecord
from estiba.model.digest import Digest
from estiba.model.reference import parse_reference


class Lab:
    """`in_use` are images that containers stand on."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self.in_use: set[Digest] = set()
        self.passing = Passing(images, lambda image: ["c"] if image in self.in_use else [])
        info = images.ingest(io.BytesIO(layer_tar({"f": b"x"})))
        images.leases.release([info.diff_id])
        rootfs = {"type": "layers", "diff_ids": [info.diff_id]}
        config = {"os": "linux", "architecture": "amd64", "rootfs": rootfs}
        self.new = NewImage(json.dumps(config).encode(), [info])

    def add(self, *, stays: bool = False) -> ImageRecord:
        return self.passing.add(self.new, stays=stays)

    def is_there(self) -> bool:
        return bool(self.images.list_all())


@pytest.fixture
def lab(images: Images) -> Lab:
    return Lab(images)


async def test_it_goes_with_its_layers(lab: Lab) -> None:
    image = lab.add()
    assert lab.is_there()
    lab.passing.drop([image])
    assert not lab.is_there() and not list(lab.images.layers.diff_ids())


async def test_what_was_there_before_stays(lab: Lab) -> None:
    lab.images.add(lab.new, Naming(), "build")
    lab.passing.drop([lab.add()])
    assert lab.is_there()


async def test_what_another_build_keeps_stays(lab: Lab) -> None:
    image = lab.add()
    lab.add(stays=True)
    lab.passing.drop([image])
    assert lab.is_there()


async def test_the_last_of_several_removes_it(lab: Lab) -> None:
    first, second = lab.add(), lab.add()
    lab.passing.drop([first])
    assert lab.is_there()
    lab.passing.drop([second])
    assert not lab.is_there()


async def test_what_got_a_name_stays(lab: Lab) -> None:
    image = lab.add()
    lab.images.tag(image.id, parse_reference("mine:1"))
    lab.passing.drop([image])
    assert lab.is_there()


async def test_what_a_container_stands_on_stays(lab: Lab) -> None:
    image = lab.add()
    lab.in_use.add(image.id)
    lab.passing.drop([image])
    assert lab.is_there()


async def test_what_was_removed_meanwhile_is_no_error(lab: Lab) -> None:
    image = lab.add()
    removal.remove(lab.images, image.id, force=False, in_use=lambda _: [])
    lab.passing.drop([image])
    lab.passing.drop([image])
    assert not lab.is_there()
