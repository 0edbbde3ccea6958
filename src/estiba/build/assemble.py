"""The config of a finished image: what the stage says of itself, with times, layers and history.

Pure. The same steps give the same bytes: a step that was found brings the time of its making.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from estiba.build import history
from estiba.build.ops import Step
from estiba.build.state import StepResult
from estiba.images.record import parse_time
from estiba.model.digest import Digest
from estiba.model.image import HistoryEntry, ImageConfig, RootFs

_FIRST_S, _LAST_S = -62135596800, 253402300799  # the years 1 to 9999


def time_text(moment_ns: int) -> str:
    """RFC 3339, with as many digits as count; what no calendar has is its first or last second."""
    seconds, fraction = divmod(moment_ns, 10**9)
    seconds = min(max(seconds, _FIRST_S), _LAST_S)
    text = datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{text}{digits}Z"


def image_config(
    config: ImageConfig,
    done: Sequence[tuple[Step, StepResult | None]],
    layers: Sequence[Digest],
    *,
    now_ns: int,
    epoch_ns: int | None = None,
) -> ImageConfig:
    """`config` is the stage's, with the history of its base image.

    `now_ns` is the time of an image that has no other; with `epoch_ns` all times are that one.
    """
    made = [_layer_time(result) for _, result in done]
    moment = epoch_ns
    if moment is None:
        first = next((one for one in made if one is not None), now_ns)
        moment = parse_time(config.created) or first
    entries = []
    for (step, _), made_ns in zip(done, made, strict=True):
        if made_ns is not None and epoch_ns is None:
            moment = made_ns
        if not step.created_by:
            continue
        entries.append(
            HistoryEntry(
                created=time_text(moment),
                created_by=step.created_by,
                comment=history.COMMENT,
                empty_layer=made_ns is None,
            )
        )
    return msgspec.structs.replace(
        config,
        created=time_text(moment),
        rootfs=RootFs(diff_ids=list(layers)),
        history=[*config.history, *entries],
    )


def _layer_time(result: StepResult | None) -> int | None:
    return result.created_ns if result is not None and result.layer is not None else None


def squashed_history(
    config: ImageConfig, base: ImageConfig | None, created: str
) -> list[HistoryEntry]:
    """One entry with a layer behind those of the base, and the others without."""
    below = list(base.history) if base is not None else []
    own = [msgspec.structs.replace(e, empty_layer=True) for e in config.history[len(below) :]]
    merged = HistoryEntry(created=created, comment="merge of the layers above the base image")
    return [*below, *own, merged]
