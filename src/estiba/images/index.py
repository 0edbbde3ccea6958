"""The index of images: found by reference or id. Pure.

An index never changes: whoever reads one needs no lock and never waits for who writes the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from estiba.images.record import ImageRecord
from estiba.model.digest import Digest
from estiba.model.errors import InvalidArgument, NotFound
from estiba.model.image import Platform
from estiba.model.reference import Reference, parse_reference


@dataclass(frozen=True, slots=True)
class Index:
    records: dict[Digest, ImageRecord] = field(default_factory=dict)
    tags: dict[str, tuple[Digest, ...]] = field(default_factory=dict)
    """Several images only when they are of several platforms; the newest first."""

    def after(self, written: Iterable[ImageRecord], deleted: Iterable[ImageRecord] = ()) -> Index:
        """With `written`, and without `deleted`."""
        records, tags = dict(self.records), dict(self.tags)
        written = list(written)
        for record in (*written, *deleted):
            before = records.pop(record.id, None)
            for tag in before.repo_tags if before else ():
                tags[tag] = tuple(holder for holder in tags[tag] if holder != record.id)
        records |= {record.id: record for record in written}
        for record in written:
            for tag in record.repo_tags:
                holders = {*tags.get(tag, ()), record.id}
                tags[tag] = tuple(sorted(holders, key=lambda one: -records[one].tagged_ns))
        return Index(records, {tag: holders for tag, holders in tags.items() if holders})

    def named(self, reference: Reference) -> list[ImageRecord]:
        """All images that a reference names: one a platform."""
        holders = self.tags.get(reference.tagged.familiar)
        if holders:
            return [self.records[digest] for digest in holders]
        if not reference.digest:
            return []
        return [
            record
            for record in self.records.values()
            if record.is_from(reference) or record.id == reference.digest
        ]

    def find(self, name: str) -> list[ImageRecord]:
        """By reference, id, or an unambiguous beginning of an id.

        Raises NotFound in Docker's words, InvalidArgument for several matches.
        """
        digest = self.id_of(name)
        if digest is not None:
            return [self.records[digest]]
        reference = _parse(name)
        found = self.named(reference)
        if not found:
            raise NotFound(f"No such image: {reference.tagged.familiar}")
        return found

    def id_of(self, name: str) -> Digest | None:
        """The image that `name` names by its id, or None when it is no id."""
        text = name.removeprefix("sha256:")
        if len(text) < 2 or not all(character in "0123456789abcdef" for character in text):
            return None
        if name == text and name + ":latest" in self.tags:
            return None
        wanted = f"sha256:{text}"
        if wanted in self.records:
            return wanted
        matches = [digest for digest in self.records if digest.startswith(wanted)]
        if len(matches) > 1:
            raise InvalidArgument(f"ambiguous image id {name!r}: give more digits")
        return matches[0] if matches else None

    def tags_of(self, repository: str) -> list[str]:
        """All references with a tag of a bare repository; none for anything else."""
        try:
            reference = parse_reference(repository)
        except InvalidArgument:
            return []
        if reference.tag or reference.digest:
            return []
        prefix = f"{reference.familiar_name}:"
        return sorted(tag for tag in self.tags if tag.startswith(prefix))


def choose(
    found: list[ImageRecord], name: str, platform: Platform | None, host: Platform
) -> ImageRecord:
    """Of images under one name. Raises NotFound, also for one of another platform."""
    if platform is None:
        return next((record for record in found if record.platform.serves(host)), found[0])
    for record in found:
        if record.platform.serves(platform):
            return record
    raise NotFound(
        f"image with reference {name} was found but its platform ({found[0].platform}) does not "
        f"match the specified platform ({platform})"
    )


def _parse(name: str) -> Reference:
    try:
        return parse_reference(name)
    except InvalidArgument:
        if name.startswith("sha256:"):
            raise NotFound(f"No such image: {name}") from None
        raise
