"""Configs of finished images: times, history, layers; the same steps give the same bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from estiba.build.assemble import image_config, squashed_history, time_text
from estiba.build.dockerfile.instructions import Instruction, Position, Span
from estiba.build.ops import Step
from estiba.build.state import Layer, StepResult
from estiba.model.image import (
    HistoryEntry,
    ImageConfig,
    ImageProcessConfig,
    encode_config,
)

SECOND = 10**9
NOW = 1_700_000_000 * SECOND
SPAN = Span(Position(1, 1), Position(1, 2))
BASE = ImageConfig(
    created="2020-01-01T00:00:00Z",
    history=[HistoryEntry(created="2019-12-31T00:00:00Z", created_by="base", comment="kept")],
)


def layer() -> Layer:
    return Layer("sha256:1", asyncio.Future())


async def done(*times: int | str | None) -> list[tuple[Step, StepResult | None]]:
    """A step each: its layer's time; None only changes the config, "" changed nothing."""
    steps: list[tuple[Step, StepResult | None]] = []
    for index, made in enumerate(times):
        text = f"STEP {index}"
        step = Step(
            index=index,
            instruction=Instruction(keyword="STEP", text=text, span=SPAN),
            name=text,
            created_by=f"{text} # buildkit",
        )
        result = None
        if made == "":
            result = StepResult("r", None, 5 * SECOND)
        elif isinstance(made, int):
            result = StepResult("r", layer(), made * SECOND)
        steps.append((step, result))
    return steps


def shown(config: ImageConfig) -> str:
    """`created` of the image, then the entries; small letters have no layer."""
    entries = [f"{'e' if e.empty_layer else 'L'}{e.created[:19]}" for e in config.history]
    return " ".join([config.created[:19], *entries]).replace("1970-01-01T00:00:", "")


async def built(base: ImageConfig, *times: int | str | None, **options: Any) -> str:
    return shown(image_config(base, await done(*times), [], now_ns=NOW, **options))


SCRATCH = ImageConfig()
NOW_TEXT = "2023-11-14T22:13:20"


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ([], NOW_TEXT),
        ([None], f"{NOW_TEXT} e{NOW_TEXT}"),
        ([""], f"{NOW_TEXT} e{NOW_TEXT}"),
        ([10], "10 L10"),
        ([10, None, 20, "", None], "20 L10 e10 L20 e20 e20"),
        ([None, "", 10], "10 e10 e10 L10"),
        ([30, 20], "20 L30 L20"),
    ],
)
async def test_times_from_scratch(times: list[Any], words: str) -> None:
    """What has no layer has the time of the layer before it, or of the first one."""
    assert await built(SCRATCH, *times) == words


async def test_found_steps_bring_their_time() -> None:
    """Built an hour later from the cache: the same bytes."""
    steps = await done(None, 10, None)
    early = image_config(SCRATCH, steps, ["sha256:1"], now_ns=NOW)
    late = image_config(SCRATCH, steps, ["sha256:1"], now_ns=NOW + 3600 * SECOND)
    assert encode_config(early) == encode_config(late)


async def test_times_over_a_base() -> None:
    base = "2020-01-01T00:00:00"
    assert await built(BASE, None) == f"{base} L2019-12-31T00:00:00 e{base}"
    assert await built(BASE, None, 10, None) == f"10 L2019-12-31T00:00:00 e{base} L10 e10"
    assert await built(BASE) == f"{base} L2019-12-31T00:00:00"


@pytest.mark.parametrize("epoch", [0, 59])
@pytest.mark.parametrize("base", [SCRATCH, BASE])
async def test_a_source_date_is_every_time(epoch: int, base: ImageConfig) -> None:
    """0 too; what the base says of itself stays."""
    words = await built(base, None, 10, None, epoch_ns=epoch * SECOND)
    own = f"e{epoch:02} L{epoch:02} e{epoch:02}"
    below = "L2019-12-31T00:00:00 " if base is BASE else ""
    assert words == f"{epoch:02} {below}{own}"


async def test_everything_else() -> None:
    process = ImageProcessConfig(cmd=["sh"], env=["A=1"])
    base = ImageConfig(config=process, architecture="arm64", author="me", history=BASE.history)
    layers = ["sha256:1", "sha256:2"]
    config = image_config(base, await done(10, ""), layers, now_ns=NOW)
    assert config.rootfs.diff_ids == layers
    assert (config.architecture, config.author, config.config) == ("arm64", "me", process)
    assert config.history == [
        *BASE.history,
        HistoryEntry(
            created="1970-01-01T00:00:10Z",
            created_by="STEP 0 # buildkit",
            comment="buildkit.dockerfile.v0",
        ),
        HistoryEntry(
            created="1970-01-01T00:00:10Z",
            created_by="STEP 1 # buildkit",
            comment="buildkit.dockerfile.v0",
            empty_layer=True,
        ),
    ]


@pytest.mark.parametrize(
    "created",
    ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "0001-01-01T00:00:00+23:00",
     "9999-12-31T23:59:59-23:00", "yesterday", ""],
)  # fmt: skip
async def test_a_base_of_any_age(created: str) -> None:
    """Go's zero time is common; the others are what a stranger may write."""
    base = ImageConfig(created=created)
    config = image_config(base, await done(None), [], now_ns=NOW)
    datetime.strptime(config.created[:20].rstrip("Z."), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    assert len(config.created.partition("-")[0]) == 4
    if created.startswith("0001-01-01T00:00:00Z"):
        assert config.created == created


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (-62135596800 * SECOND, "0001-01-01T00:00:00Z"),
        (253402300799 * SECOND, "9999-12-31T23:59:59Z"),
        (10**30, "9999-12-31T23:59:59Z"),
        (-(10**30), "0001-01-01T00:00:00Z"),
    ],
)
def test_times_as_text(moment: int, text: str) -> None:
    assert time_text(moment) == text


# -- squashed ------------------------------------------------------------------------------


def entry(text: str, *, empty: bool = False) -> HistoryEntry:
    return HistoryEntry(created="t", created_by=text, empty_layer=empty)


def squashed(own: Sequence[HistoryEntry], base: ImageConfig | None) -> list[str]:
    below = base.history if base else []
    config = ImageConfig(history=[*below, *own])
    return [
        f"{'e' if one.empty_layer else 'L'} {one.created_by or one.comment}"
        for one in squashed_history(config, base, "now")
    ]


MERGED = "L merge of the layers above the base image"


def test_one_layer_above_the_base() -> None:
    """As many entries with a layer as there are layers, and none of the words is lost."""
    own = [entry("RUN a"), entry("ENV b", empty=True), entry("RUN c")]
    base = ImageConfig(history=[entry("base 1"), entry("base 2", empty=True), entry("base 3")])
    assert squashed(own, base) == [
        "L base 1", "e base 2", "L base 3", "e RUN a", "e ENV b", "e RUN c", MERGED,
    ]  # fmt: skip
    assert squashed(own, None) == ["e RUN a", "e ENV b", "e RUN c", MERGED]


def test_a_base_without_history() -> None:
    assert squashed([entry("RUN a")], ImageConfig()) == ["e RUN a", MERGED]


def test_the_merged_layer_has_its_time() -> None:
    assert squashed_history(ImageConfig(), None, "now")[-1].created == "now"
