"""Work on whole volumes: held while something reads them, made full, given another name.

All functions block and may be called from any thread.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from estiba.kernel import failpoint
from estiba.model.errors import AlreadyExists, Conflict, InvalidArgument
from estiba.model.ids import new_id
from estiba.model.sizes import parse_ram_bytes
from estiba.volumes.driver import LOCAL
from estiba.volumes.record import VolumeRecord, check_name
from estiba.volumes.volumes import HOLDER, Volumes

_ROUNDING = 4096
"""A file system is a whole number of blocks."""


@contextmanager
def held(volumes: Volumes, name: str) -> Iterator[Path]:
    """The directory with the data, which stays meanwhile, whoever else uses it.

    Raises NotFound, OSError.
    """
    user = f"{HOLDER}{new_id()}"
    try:
        yield volumes.mount(name, user=user)
    finally:
        volumes.release(name, user=user)


@contextmanager
def alone(volumes: Volumes, name: str) -> Iterator[None]:
    """As `held`, and nobody uses the volume or can begin to. Raises Conflict."""
    with volumes.locked(name):
        volumes.check_idle(name)
        try:
            volumes.driver(volumes.get(name).driver).mount(name, HOLDER)
            yield
        finally:
            volumes.driver(volumes.get(name).driver).unmount(name, HOLDER)


def kept(volumes: Volumes, name: str) -> Path:
    """The directory that holds `_data` and its snapshots while the volume is held.

    Raises NotFound, Conflict.
    """
    check_kept(volumes, name)
    return volumes.local.inside(name) or volumes.local.directory(name)


def check_kept(volumes: Volumes, name: str) -> None:
    """Raises NotFound, Conflict for a volume whose files lie elsewhere."""
    if volumes.get(name).driver != LOCAL or not volumes.local.is_on_disk(name):
        raise Conflict(
            f"volume {name}: its files lie where its driver or its options say: clone it, "
            "and work on the copy"
        )


def make_filled(
    volumes: Volumes,
    name: str,
    fill: Callable[[Path], None],
    *,
    options: Mapping[str, str],
    labels: Mapping[str, str],
) -> VolumeRecord:
    """A new local volume that appears once `fill` has put everything into its directory.

    Raises InvalidArgument, AlreadyExists, and what `fill` raises.
    """
    check_name(name)
    volumes.check_options(name, options)
    _check_free(volumes, name)
    with volumes.local.made_aside(name, options) as made:
        fill(made.data)
        made.finish()
        # Not before: what fills it may be a client that takes its time.
        with volumes.locked(name):
            _check_free(volumes, name)
            made.place()
            failpoint.hit("volumes.made")
            record = VolumeRecord(
                name=name, created_ns=time.time_ns(), labels=dict(labels), options=dict(options)
            )
            volumes.catalog.put(record, "create")
    return record


def _check_free(volumes: Volumes, name: str) -> None:
    if volumes.has(name):
        raise AlreadyExists(f"volume {name} exists already: remove it or choose another name")


def rename(volumes: Volumes, name: str, new: str, *, users: Iterable[str] = ()) -> VolumeRecord:
    """Gives a local volume another name; `users` are the containers that have it.

    Raises NotFound, AlreadyExists, Conflict for one that anybody has.
    """
    check_name(new)
    if name == new:
        raise InvalidArgument(f"rename {name}: that is its name already")
    with contextlib.ExitStack() as stack:
        for one in sorted((name, new)):
            stack.enter_context(volumes.locked(one))
        record = volumes.get(name)
        if record.driver != LOCAL:
            raise Conflict(f"rename {name}: a volume of the driver {record.driver} keeps its name")
        if containers := list(users):
            raise Conflict(
                f"rename {name}: volume is in use - [{', '.join(containers)}]: containers know "
                "it by its name: remove them first"
            )
        volumes.check_idle(name)
        if volumes.has(new) or volumes.local.directory(new).exists():
            raise AlreadyExists(f"volume {new} exists already: choose another name")
        moved = msgspec.structs.replace(record, name=new, moved_from=name)
        volumes.catalog.rename(record, moved)
        failpoint.hit("volumes.renamed")
        return volumes.finish_rename(moved)


def resize(volumes: Volumes, name: str, size: str) -> VolumeRecord:
    """A larger limit for a volume that has one and that nobody uses.

    Raises NotFound, InvalidArgument, Conflict, and what a mount raises.
    """
    with volumes.locked(name):
        record = volumes.get(name)
        if "size" not in record.options:
            raise Conflict(
                f"resize {name}: the volume has no limit: a clone with --opt size={size} has one"
            )
        if parse_ram_bytes(size) < parse_ram_bytes(record.options["size"]):
            raise InvalidArgument(
                f"resize {name}: {size} is less than it has ({record.options['size']}): a smaller "
                f"one is made by a clone with --opt size={size}"
            )
        volumes.check_idle(name)
        grown = msgspec.structs.replace(record, options={**record.options, "size": size})
        volumes.check_options(name, grown.options)
        volumes.local.note_options(name, grown.options)
        volumes.catalog.put(grown, "resize")
        failpoint.hit("volumes.resized")
        try:
            volumes.local.mount(name, HOLDER)
            has = volumes.local.get(name).status
        finally:
            volumes.local.unmount(name, HOLDER)
        if has.get("SizeNow", 0) < has.get("Size", 0) - _ROUNDING:
            raise Conflict(
                f"resize {name}: somebody still has the volume mounted in a namespace of his own: "
                "it grows when it is mounted anew after that"
            )
    return grown
