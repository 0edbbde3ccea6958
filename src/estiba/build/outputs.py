"""What becomes of a finished image (`--output`): files, an archive, a push, or the store alone.

    outputs = parse_outputs(request, tags)             # before anything is built
    pieces = stream(parts, output, records)            # local, tar, oci, docker: tar to the client
    pushed = push(hub, output, records, tell)          # registry, and image with push=true

The images are in the store already, one a platform; nothing here changes them or their tags. All
but `parse_outputs` blocks.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from estiba.build.transfer.imports import Hub
from estiba.build.transfer.specs import check_attributes, flag
from estiba.distribution.cancel import CancelToken
from estiba.images import saving
from estiba.images.images import Images
from estiba.images.progress import Progress
from estiba.images.pushing import Pusher
from estiba.images.record import ImageRecord
from estiba.kernel.trees import opened_directory, walk
from estiba.model.digest import Digest
from estiba.model.errors import InvalidArgument
from estiba.model.image import Platform
from estiba.model.reference import Reference, parse_reference
from estiba.storage.pack import Packer, pack_end
from estiba.storage.snapshots import SnapshotStore

IMAGE, REGISTRY, LOCAL, TAR, OCI, DOCKER = "image", "registry", "local", "tar", "oci", "docker"
_ATTRIBUTES = {
    IMAGE: {"name", "push", "compression"},
    REGISTRY: {"name", "push", "compression"},
    LOCAL: {"dest", "platform-split"},
    TAR: {"dest", "platform-split"},
    OCI: {"dest", "name", "compression", "tar"},
    DOCKER: {"dest", "name", "compression", "tar"},
}
_ANNOTATION = ("annotation.", "annotation-manifest.")
_ANNOTATED = (IMAGE, REGISTRY, OCI, DOCKER)
_ARCHIVES = {OCI: saving.OCI, DOCKER: saving.DOCKER}
_LAYERS = {"": saving.AS_IT_CAME, "gzip": saving.GZIP, "uncompressed": saving.PLAIN_LAYERS}
_MAX_ANNOTATION = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """`index` is its place in the request. `names` are its own, or else the build's tags."""

    index: int
    type: str
    names: tuple[Reference, ...] = ()
    pushes: bool = False
    splits: bool | None = None
    """A directory for each platform; None: when there are several."""

    layers: str = saving.AS_IT_CAME
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def streams(self) -> bool:
        """Whether the client gets it, as tar."""
        return self.type in (LOCAL, TAR, OCI, DOCKER)

    @property
    def keeps(self) -> bool:
        """Whether the store's image is to bear `names`."""
        return self.type == IMAGE


@dataclass(frozen=True, slots=True)
class Parts:
    """What streams are made of. `newest_ns`: no file of `local` and `tar` is newer."""

    images: Images
    snapshots: SnapshotStore
    newest_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Pushed:
    """A manifest, or an index of several platforms, under one name."""

    reference: Reference
    digest: Digest
    size: int


# -- what is asked for ---------------------------------------------------------------------


def parse_outputs(
    request: Sequence[Mapping[str, str]], tags: Sequence[Reference] = ()
) -> list[Output]:
    """Raises InvalidArgument for what is unknown, and for a push without a name."""
    return [_parse(index, attributes, tags) for index, attributes in enumerate(request)]


def _parse(index: int, attributes: Mapping[str, str], tags: Sequence[Reference]) -> Output:
    kind = attributes.get("type", "")
    if kind not in _ATTRIBUTES:
        raise InvalidArgument(
            f"--output: unknown type {kind[:32]!r}: use {', '.join(sorted(_ATTRIBUTES))}"
        )
    what = f"--output type={kind}"
    notes = _annotations(attributes) if kind in _ANNOTATED else {}
    rest = {
        key: value
        for key, value in attributes.items()
        if not (kind in _ANNOTATED and key.startswith(_ANNOTATION))
    }
    check_attributes(what, rest, _ATTRIBUTES[kind])
    names = _names(attributes.get("name", "")) or tuple(one.tagged for one in tags)
    pushes = flag(what, "push", attributes.get("push", str(kind == REGISTRY).lower()))
    splits = attributes.get("platform-split")
    output = Output(
        index=index,
        type=kind,
        names=names,
        pushes=pushes and kind in (IMAGE, REGISTRY),
        splits=None if splits is None else flag(what, "platform-split", splits),
        layers=_compression(what, kind, attributes.get("compression", "")),
        annotations=notes,
    )
    _check(what, output)
    if not flag(what, "tar", attributes.get("tar", "true")):
        raise InvalidArgument(f"{what}: only an archive is made: leave tar=false out")
    return output


def _check(what: str, output: Output) -> None:
    if output.type == REGISTRY and not output.pushes:
        raise InvalidArgument(f"{what} pushes: use type=image for an image that stays here")
    if output.pushes and not output.names:
        raise InvalidArgument(f"{what} needs a name to push to: -t NAME or name=NAME")
    if output.annotations and output.type == IMAGE and not output.pushes:
        raise InvalidArgument(
            f"{what}: annotations are a manifest's, which the image gets when it is pushed or "
            "saved: use push=true, or labels"
        )


def _names(text: str) -> tuple[Reference, ...]:
    names = [parse_reference(one.strip()) for one in text.split(",") if one.strip()]
    for name in names:
        if name.digest:
            raise InvalidArgument(f"--output: name={name.familiar} has a digest: name a tag")
    return tuple(name.tagged for name in names)


def _compression(what: str, kind: str, text: str) -> str:
    known = ("gzip",) if kind in (IMAGE, REGISTRY) else ("gzip", "uncompressed")
    if text and text not in known:
        raise InvalidArgument(
            f"{what}: unknown compression {text[:32]!r}: use {' or '.join(known)}"
        )
    return _LAYERS[text]


def _annotations(attributes: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, value in attributes.items():
        for prefix in _ANNOTATION:
            if name.startswith(prefix) and (key := name.removeprefix(prefix)):
                found[key] = value
    if sum(len(key) + len(value) for key, value in found.items()) > _MAX_ANNOTATION:
        raise InvalidArgument("--output: annotations of more than 64 KiB")
    return found


# -- to the client -------------------------------------------------------------------------


def stream(
    parts: Parts, output: Output, records: Sequence[ImageRecord]
) -> Generator[bytes, None, None]:
    """A tar: the files of the images, or an archive of them. Close it when it is left early.

    Raises NotFound, DataLoss.
    """
    records = current(parts.images, records)
    if output.type in _ARCHIVES:
        return saving.archive(
            parts.images,
            records,
            [name.familiar for name in output.names],
            _ARCHIVES[output.type],
            layers=output.layers,
            annotations=output.annotations,
        )
    return _files(parts, output, records)


def _files(
    parts: Parts, output: Output, records: Sequence[ImageRecord]
) -> Generator[bytes, None, None]:
    """Device nodes and owners are as in the image: what becomes of them is the reader's affair."""
    is_split = output.splits if output.splits is not None else len(records) > 1
    if len(records) > 1 and not is_split:
        raise InvalidArgument("the files of several platforms need a directory each")
    with parts.images.kept(*records):
        for record in records:
            prefix = f"{platform_directory(record.platform)}/" if is_split else ""
            with (
                parts.snapshots.view(record.layers) as root,
                opened_directory(root) as fd,
                closing(_packed(parts, fd, prefix)) as pieces,
            ):
                yield from pieces
    yield pack_end()


def _packed(parts: Parts, fd: int, prefix: str) -> Generator[bytes, None, None]:
    """A layer that stands alone has marks of what it deletes; there is nothing to delete."""
    marks = {
        found.path
        for found in walk(fd, prefix)
        if stat.S_ISCHR(found.status.st_mode) and found.status.st_rdev == 0
    }
    packer = Packer(without=marks, newest_ns=parts.newest_ns)
    if prefix:
        yield from packer.root(fd, prefix.rstrip("/"))
    yield from packer.tree(fd, prefix)


def platform_directory(platform: Platform) -> str:
    """As `linux_amd64`, `linux_arm_v7`."""
    return str(platform).replace("/", "_")


# -- to a registry -------------------------------------------------------------------------


def push(
    hub: Hub, output: Output, records: Sequence[ImageRecord], tell: Callable[[Progress], None]
) -> list[Pushed]:
    """Under all names, with what is stated of the images.

    Raises Unauthorized, Forbidden, Unavailable, InvalidArgument, NotFound, DataLoss, Cancelled.
    """
    pusher = Pusher(hub.images, hub.settings, hub.parallel)
    pushed: list[Pushed] = []
    token = CancelToken()
    with hub.cancel.ending_with(token.cancel):
        for name in output.names:
            now = current(hub.images, records)
            steps = pusher.push_images([name], now, hub.credentials, token, output.annotations)
            pushed += _told(name, steps, tell)
    return pushed


def current(images: Images, records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """As they are known now: with what is stated of them, and where they are already."""
    return [images.get(record.id) or record for record in records]


def _told(
    name: Reference, steps: Iterator[Progress], tell: Callable[[Progress], None]
) -> Iterator[Pushed]:
    for step in steps:
        tell(step)
        if step.pushed is not None:
            _, digest, size = step.pushed
            yield Pushed(name, digest, size)
