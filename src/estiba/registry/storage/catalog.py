"""All repositories: `Catalog` over a driver, and the walk through them.

A folder is a repository if it has a folder that begins with an underscore, which no name may.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from estiba.model.digest import Digest, parse_digest
from estiba.model.errors import InvalidArgument
from estiba.registry.storage import keys
from estiba.registry.storage.contents import Contents
from estiba.registry.storage.errors import BlobUnknown
from estiba.registry.storage.ports import Objects, Page


def walk_repositories(
    objects: Objects, *, after: str = "", holding: str | None = None
) -> Iterator[str]:
    """Names in the order of their path components, those behind `after`.

    `holding` asks for those with this folder. Only the folders that the names lead through
    are listed.
    """
    yield from _walk(objects, (), tuple(after.split("/")) if after else (), holding)


def _walk(
    objects: Objects, path: tuple[str, ...], after: tuple[str, ...], holding: str | None
) -> Iterator[str]:
    folders = sorted(
        entry.name
        for entry in objects.list("/".join((keys.REPOSITORIES, *path)))
        if entry.stat is None
    )
    inner = [name for name in folders if name.startswith("_")]
    if path and not after and (holding in inner if holding else inner):
        yield "/".join(path)
    for name in folders:
        if name.startswith("_") or (after and name < after[0]):
            continue
        if after and name == after[0]:
            # The name itself is no longer wanted, what is below it may be.
            yield from _walk_below(objects, (*path, name), after[1:], holding)
        else:
            yield from _walk(objects, (*path, name), (), holding)


def _walk_below(
    objects: Objects, path: tuple[str, ...], after: tuple[str, ...], holding: str | None
) -> Iterator[str]:
    own = "/".join(path)
    for name in _walk(objects, path, after, holding):
        if name != own:
            yield name


@dataclass(slots=True)
class StoredCatalog:
    """`Catalog`; a repository appears with its first manifest."""

    contents: Contents

    def repositories(self, *, limit: int, last: str = "") -> Page:
        names: list[str] = []
        for name in walk_repositories(self.contents.driver, after=last, holding="_manifests"):
            if len(names) == limit:
                return Page(names, more=True)
            names.append(name)
        return Page(names)

    def size(self, repository: str) -> int:
        total = 0
        for digest in links(self.contents.driver, keys.layers(repository)):
            try:
                total += self.contents.size(digest)
            except BlobUnknown:
                continue
        return total


def links(objects: Objects, prefix: str) -> dict[Digest, float]:
    """The digests that have a link `<alg>/<hex>/link` below `prefix`, with its time."""
    found = {}
    for key, stat in objects.walk(prefix):
        parts = key.removeprefix(f"{prefix}/").split("/")
        if len(parts) == 3 and parts[2] == "link":
            with contextlib.suppress(InvalidArgument):
                found[parse_digest(":".join(parts[:2]))] = stat.mtime
    return found
