"""Images untagged, removed and collected: what `rmi` and `prune` do to the index.

A removal deletes the record first, then what nothing else needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from estiba.images.record import ImageRecord, facts
from estiba.kernel import failpoint
from estiba.model.digest import Digest, chain_id
from estiba.model.errors import Conflict
from estiba.model.event import Event, EventType
from estiba.model.image import Platform
from estiba.model.reference import Reference, parse_reference

if TYPE_CHECKING:
    from estiba.images.images import Images

InUse = Callable[[Digest], list[str]]
"""Short ids of containers that use the image."""

Answers = list[dict[str, str]]


def remove(
    images: Images,
    name: str,
    *,
    force: bool,
    in_use: InUse,
    running: InUse = lambda _: [],
    platforms: Sequence[Platform] = (),
) -> Answers:
    """Untags, and removes the image with its last tag, as `docker rmi` does.

    Of several platforms under one name all go, or those asked for.
    Raises NotFound, or Conflict when containers use it. What running containers use can be
    untagged by name only, whatever `force` says.
    """
    with images.lock:
        record = images.resolve(name, platforms[0] if platforms else None)
        if images.id_of(name) == record.id:
            _check_not_running(record, running(record.id))
            return _remove_by_id(images, record, in_use(record.id), force=force)
        reference = parse_reference(name)
        chosen = [
            found
            for found in images.named(reference)
            if not platforms or any(found.platform.serves(wanted) for wanted in platforms)
        ]
        for found in chosen:
            if len(found.repo_tags) < (1 if reference.digest else 2):
                _check_unused(found, in_use(found.id), force=force, by_id=False)
        answers: Answers = []
        for found in chosen:
            answers += _remove_name(images, found, reference, in_use(found.id))
        collect(images)  # manifests of what was untagged
        return answers


def _remove_by_id(images: Images, record: ImageRecord, users: list[str], *, force: bool) -> Answers:
    repositories = {parse_reference(tag).repository for tag in record.repo_tags}
    if len(repositories) > 1 and not force and not users:
        raise Conflict(
            f"conflict: unable to delete {record.id[7:19]} (must be forced) - image is "
            "referenced in multiple repositories"
        )
    _check_unused(record, users, force=force, by_id=True)
    if not users:
        return _delete(images, record)
    answers = _untag_all(images, record)
    collect(images)
    return answers


def _remove_name(
    images: Images, record: ImageRecord, reference: Reference, users: list[str]
) -> Answers:
    if reference.digest and record.repo_tags:
        return _untag_digests(images, record, reference)
    if not reference.digest and len(record.repo_tags) > 1:
        tag = reference.tagged.familiar
        rest = without_tag(record, tag)
        if all(parse_reference(t).repository != reference.repository for t in rest.repo_tags):
            rest = _without_origins(rest, reference)
        images.write([rest], [_untag_event(record, tag)])
        kept = rest.repo_digests
        gone = [name for name in record.repo_digests if name not in kept]
        return [{"Untagged": name} for name in (tag, *gone)]
    return _untag_all(images, record) if users else _delete(images, record)


def _untag_digests(images: Images, record: ImageRecord, reference: Reference) -> Answers:
    rest = _without_origins(record, reference, only=reference.digest or "")
    images.write([rest], [_untag_event(record, reference.familiar)])
    return [{"Untagged": reference.familiar}]


def _without_origins(record: ImageRecord, reference: Reference, only: Digest = "") -> ImageRecord:
    """Without the origins in the repository, but for those that `only` spares."""
    kept = [
        origin
        for origin in record.origins
        if origin.repository != reference.repository
        or (only and only not in (origin.target, origin.manifest))
    ]
    return msgspec.structs.replace(record, origins=kept)


def _check_unused(record: ImageRecord, users: list[str], *, force: bool, by_id: bool) -> None:
    if users and not force:
        what = record.id[7:19] if by_id or not record.repo_tags else record.repo_tags[0]
        raise Conflict(
            f'conflict: unable to remove repository reference "{what}" (must force) - '
            f"container {users[0]} is using its referenced image {record.id[7:19]}"
        )


def _check_not_running(record: ImageRecord, running: list[str]) -> None:
    if running:
        raise Conflict(
            f"conflict: unable to delete {record.id[7:19]} (cannot be forced) - image is being "
            f"used by running container {running[0]}"
        )


def _untag_all(images: Images, record: ImageRecord) -> Answers:
    events = [_untag_event(record, tag) for tag in record.repo_tags]
    images.write([msgspec.structs.replace(record, repo_tags=[], origins=[])], events)
    return _untagged(record)


def _untagged(record: ImageRecord) -> Answers:
    return [{"Untagged": name} for name in (*record.repo_tags, *record.repo_digests)]


def _delete(images: Images, record: ImageRecord) -> Answers:
    event = Event(EventType.IMAGE, "delete", record.id, facts(record))
    events = [*(_untag_event(record, tag) for tag in record.repo_tags), event]
    images.write([], events, deleted=record)
    answers = [*_untagged(record), {"Deleted": record.id}]
    images.usage.forget(record.id)
    gone = collect(images)
    chain: Digest | None = None
    chains = [(layer, chain := chain_id(chain, layer)) for layer in record.layers]
    answers += [{"Deleted": chain} for layer, chain in reversed(chains) if layer in gone]
    return answers


def delete_unused(images: Images, record: ImageRecord, in_use: InUse) -> Answers:
    """Removes the image and its tags, for prune; nothing when a container uses it, or when it
    has got other tags since `record` was read, as what has just been built does."""
    with images.lock:
        current = images.get(record.id)
        if current is None or in_use(current.id) or current.repo_tags != record.repo_tags:
            return []
        return _delete(images, current)


def forget_pulls(images: Images) -> None:
    """Deletes what pulls have left that broke off."""
    images.leases.forget_pulls()
    collect(images)


def collect(images: Images) -> set[Digest]:
    """Deletes what no image, container or lease needs; returns the layers that went.

    A lease ends when a record or a snapshot has taken its place, so those are read after it.
    """
    with images.lock, images.leases.frozen() as needed:
        needed |= images.snapshot_layers()
        for record in images.list_all():
            needed.update(record.needed())
        doomed = {layer for layer in images.layers.diff_ids() if layer not in needed}
        images.layers.remove(*doomed)
        failpoint.hit("collect.layers")
        for digest in [d for d in images.content.digests() if d not in needed]:
            images.content.remove(digest)
        for digest in [d for d in images.content.partials() if d not in needed]:
            images.content.remove_partial(digest)
    return doomed


def without_tag(record: ImageRecord, tag: str) -> ImageRecord:
    return msgspec.structs.replace(
        record, repo_tags=[kept for kept in record.repo_tags if kept != tag]
    )


def _untag_event(record: ImageRecord, tag: str) -> Event:
    return Event(EventType.IMAGE, "untag", record.id, {"name": tag})
