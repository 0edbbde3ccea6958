"""--output: what it may say, and what is told of what it may not."""

from __future__ import annotations

import pytest

from estiba.build.outputs import Output, parse_outputs, platform_directory
from estiba.images.saving import GZIP, PLAIN_LAYERS
from estiba.model.errors import InvalidArgument
from estiba.model.image import Platform
from estiba.model.reference import parse_reference

TAGS = (parse_reference("team/app:1"), parse_reference("team/app"))
TAGGED = (parse_reference("team/app:1"), parse_reference("team/app:latest"))


def parse(**attributes: str) -> Output:
    named = {name.replace("__", "."): value for name, value in attributes.items()}
    (output,) = parse_outputs([named], TAGS)
    return output


def test_each_has_its_place() -> None:
    made = parse_outputs([{"type": "image"}, {"type": "local", "dest": "out"}], TAGS)
    assert made == [
        Output(index=0, type="image", names=TAGGED),
        Output(index=1, type="local", names=TAGGED),
    ]
    assert [(one.keeps, one.streams, one.pushes) for one in made] == [
        (True, False, False),
        (False, True, False),
    ]
    assert parse_outputs([]) == []


def test_pushes() -> None:
    assert parse(type="registry").pushes
    assert parse(type="image", push="true").pushes and parse(type="image", push="true").keeps
    assert not parse(type="image", push="false").pushes
    named = parse(type="registry", name="localhost:5000/a, localhost:5000/b:2")
    assert [str(one) for one in named.names] == ["localhost:5000/a:latest", "localhost:5000/b:2"]


def test_archives() -> None:
    made = parse(
        type="oci", compression="gzip", annotation__a="1", **{"annotation-manifest__b__c": "2"}
    )
    assert made.layers == GZIP and made.annotations == {"a": "1", "b.c": "2"}
    assert parse(type="docker", compression="uncompressed").layers == PLAIN_LAYERS
    assert parse(type="docker", tar="true").streams


def test_directories_of_platforms() -> None:
    assert parse(type="local").splits is None
    assert parse(type="local", **{"platform-split": "false"}).splits is False
    assert platform_directory(Platform(architecture="amd64")) == "linux_amd64"
    assert platform_directory(Platform(architecture="arm", variant="v7")) == "linux_arm_v7"


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({}, "unknown type ''"),
        ({"type": "zip"}, "unknown type 'zip': use docker, image, local, oci, registry, tar"),
        ({"type": "local", "name": "x"}, "unknown attribute 'name': it takes dest, platform-split"),
        ({"type": "local", "annotation.a": "1"}, "unknown attribute 'annotation.a'"),
        ({"type": "oci", "compression": "zstd"}, "'zstd': use gzip or uncompressed"),
        ({"type": "registry", "compression": "uncompressed"}, "use gzip"),
        ({"type": "registry", "push": "false"}, "use type=image"),
        ({"type": "image", "push": "perhaps"}, "push is true or false"),
        ({"type": "image", "annotation.a": "1"}, "push=true, or labels"),
        ({"type": "image", "name": "UPPER"}, "must be lowercase"),
        ({"type": "image", "name": f"x@sha256:{'0' * 64}"}, "name a tag"),
        ({"type": "oci", "tar": "false"}, "leave tar=false out"),
        ({"type": "oci", "annotation.a": "x" * (65 << 10)}, "more than 64 KiB"),
    ],
)
def test_what_is_refused(attributes: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        parse_outputs([attributes], TAGS)


@pytest.mark.parametrize("attributes", [{"type": "registry"}, {"type": "image", "push": "1"}])
def test_a_push_needs_a_name(attributes: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="needs a name to push to"):
        parse_outputs([attributes])
