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


def time_text(moment_ns: int) -> str:
    """RFC 3339, with as many digits as count."""
    seconds, fraction = divmod(moment_ns, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
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
    moment = parse_time(config.created) or (0 if any(r and r.layer for _, r in done) else now_ns)
    entries = []
    for step, result in done:
        if result is not None and result.layer is not None:
            moment = result.created_ns
        shown = moment if epoch_ns is None else epoch_ns
        entries.append(
            HistoryEntry(
                created=time_text(shown or now_ns),
                created_by=step.created_by,
                comment=history.COMMENT,
                empty_layer=result is None or result.layer is None,
            )
        )
    if epoch_ns is not None:
        moment = epoch_ns
    return msgspec.structs.replace(
        config,
        created=time_text(moment),
        rootfs=RootFs(diff_ids=list(layers)),
        history=[*config.history, *entries],
    )


def squashed_history(
    config: ImageConfig, base: ImageConfig | None, created: str
) -> list[HistoryEntry]:
    """One entry with a layer behind those of the base, and the others without."""
    below = list(base.history) if base is not None else []
    own = [msgspec.structs.replace(e, empty_layer=True) for e in config.history[len(below) :]]
    merged = HistoryEntry(created=created, comment="merge of the layers above the base image")
    return [*below, *own, merged]
