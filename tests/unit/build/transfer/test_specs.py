"""--cache-from and --cache-to: what they may say, and what is told of what they may not."""

from __future__ import annotations

import pytest

from estiba.build.transfer.specs import CacheFrom, CacheTo, parse_cache_from, parse_cache_to
from estiba.model.errors import InvalidArgument
from estiba.model.reference import parse_reference

REF = parse_reference("localhost:5000/team/cache:1")


def test_caches_to_come_from() -> None:
    specs = [
        {"type": "registry", "ref": str(REF)},
        {"type": "local", "src": "/somewhere"},
        {"type": "inline", "name": str(REF)},
        {"ref": str(REF)},
    ]
    assert parse_cache_from(specs) == [
        CacheFrom("registry", REF),
        CacheFrom("local"),
        CacheFrom("inline", REF, prefers_images=True),
        CacheFrom("registry", REF),
    ]
    shown = [str(one) for one in parse_cache_from(specs)]
    assert shown == ["localhost:5000/team/cache:1", "local", *["localhost:5000/team/cache:1"] * 2]


def test_caches_to_go_to() -> None:
    specs = [
        {"type": "inline"},
        {"type": "registry", "ref": "localhost:5000/x", "mode": "max", "ignore-error": "false"},
        {"type": "local", "dest": "/somewhere"},
    ]
    assert parse_cache_to(specs) == [
        CacheTo(0, "inline"),
        CacheTo(
            1, "registry", parse_reference("localhost:5000/x:latest"), "max", ignores_errors=False
        ),
        CacheTo(2, "local"),
    ]


@pytest.mark.parametrize(("value", "asks"), [("1", 1), ("true", 1), ("0", 0), ("", 0)])
def test_a_build_argument_asks_for_a_cache_in_the_image(value: str, asks: int) -> None:
    local = {"type": "local", "dest": "/x"}
    found = parse_cache_to([local], {"BUILDKIT_INLINE_CACHE": value})
    assert found == [CacheTo(0, "local"), CacheTo(1, "inline")][: 1 + asks]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"type": "s3"}, "unknown type 's3': use inline, local, registry"),
        ({"type": "registry"}, "needs ref=NAME"),
        ({"type": "registry", "ref": "UPPER"}, "must be lowercase"),
        ({"type": "local", "src": "/x", "ref": "y"}, "unknown attribute 'ref': it takes src"),
    ],
)
def test_what_cannot_be_come_from(spec: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        parse_cache_from([spec])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"type": "gha"}, "unknown type 'gha'"),
        ({"type": "registry"}, "needs ref=NAME"),
        ({"type": "inline", "mode": "max"}, "type=registry"),
        ({"type": "local", "mode": "all"}, "unknown mode 'all': use min or max"),
        ({"type": "local", "compression": "zstd"}, "unknown attribute 'compression'"),
        ({"type": "local", "ignore-error": "maybe"}, "true or false"),
        ({"type": "registry", "ref": "x@sha256:" + "0" * 64}, "not a digest"),
    ],
)
def test_what_cannot_be_gone_to(spec: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        parse_cache_to([spec])
