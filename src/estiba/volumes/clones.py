"""Copies of whole volumes, of the same kind or of another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from estiba.kernel.trees import opened_directory
from estiba.model.errors import Conflict
from estiba.volumes.copying import copy_tree
from estiba.volumes.driver import LOCAL
from estiba.volumes.record import ANONYMOUS_LABEL, VolumeRecord
from estiba.volumes.volumes import Volumes
from estiba.volumes.whole import held, make_filled


def clone(
    volumes: Volumes,
    name: str,
    new: str,
    *,
    options: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> VolumeRecord:
    """A local volume `new` with the data of `name` and its labels, with more `labels` over them.

    Without `options` it has those of `name`: the same limit, the same key file; a key that the
    engine made is made anew. One whose options say where its files are becomes a plain one. Of a
    volume in use the copy is what a power cut would have left.

    Raises NotFound, InvalidArgument, AlreadyExists, Conflict, OSError (a full disk).
    """
    record = volumes.get(name)
    if new == name:
        raise Conflict(f"clone {name}: the copy needs a name of its own")
    if options is None:
        options = {} if is_elsewhere(volumes, record) else record.options
    kept = {key: value for key, value in record.labels.items() if key != ANONYMOUS_LABEL}

    with held(volumes, name):

        def fill(target: Path) -> None:
            with volumes.opened(name) as source, opened_directory(target) as copy:
                copy_tree(source, copy)

        made = make_filled(volumes, new, fill, options=options, labels={**kept, **(labels or {})})
    volumes.catalog.announce(new, "clone", {"from": name})
    return made


def is_elsewhere(volumes: Volumes, record: VolumeRecord) -> bool:
    """Whether the volume's files are not the local driver's own."""
    return record.driver != LOCAL or not volumes.local.is_on_disk(record.name)
