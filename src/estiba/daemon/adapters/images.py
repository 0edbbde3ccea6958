"""Images for the routes: lists, inspect, tags, and archives in and out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from estiba.containers.engine import Engine
from estiba.daemon.adapters.bridging import each, iterate
from estiba.daemon.adapters.container_filters import matches_label, parse_until
from estiba.daemon.adapters.container_views import ZERO_TIME, timestamp
from estiba.daemon.adapters.download import Download
from estiba.http1 import Body
from estiba.http1.uploads import Upload
from estiba.images import archive
from estiba.images.images import Images
from estiba.images.importing import Description, import_tar
from estiba.images.record import ImageRecord
from estiba.kernel.blocking import run_apart, run_blocking
from estiba.model.digest import Digest
from estiba.model.errors import InvalidArgument, NotFound
from estiba.model.image import Platform, parse_platform
from estiba.model.reference import Reference, parse_reference
from estiba.storage.snapshots import DRIVER
from estiba.storage.tar import Source

Json = dict[str, Any]
Filters = Mapping[str, list[str]]
_FILTERS = {"dangling", "label", "label!", "before", "since", "reference", "until"}


@dataclass(slots=True)
class ImageQueries:
    """`api.ports.Images`."""

    images: Images
    engine: Engine

    async def list_all(self, *, all: bool, filters: Filters, shared_size: bool) -> list[Json]:
        records = self._filtered(self.images.list_all(), filters)
        users = self._users()
        shared = self._shared() if shared_size else {}
        return [
            {
                "Id": record.id,
                "ParentId": record.parent,
                "RepoTags": record.repo_tags or [],
                "RepoDigests": record.repo_digests or [],
                "Created": record.created_ns // 10**9,
                "Size": record.size_bytes,
                "SharedSize": shared.get(record.id, -1),
                "Labels": record.process_config.labels,
                "Containers": len(users.get(record.id, [])),
            }
            for record in records
        ]

    def _users(self) -> dict[Digest, list[str]]:
        users: dict[Digest, list[str]] = {}
        for container in self.engine.records():
            users.setdefault(container.image_id, []).append(container.id[:12])
        return users

    def _shared(self) -> dict[Digest, int]:
        """Bytes of each image in layers that other images stand on too."""
        counts: dict[Digest, int] = {}
        for record in self.images.list_all():
            for chain in record.chain_ids:
                counts[chain] = counts.get(chain, 0) + 1
        return {
            record.id: sum(
                self.images.layer_info(chain).size_bytes
                for chain in record.chain_ids
                if counts[chain] > 1
            )
            for record in self.images.list_all()
        }

    def _filtered(self, records: list[ImageRecord], filters: Filters) -> list[ImageRecord]:
        unknown = set(filters) - _FILTERS
        if unknown:
            raise InvalidArgument(f"invalid filter '{min(unknown)}'")
        for value in filters.get("before", []):
            edge = self.images.resolve(value).created_ns
            records = [record for record in records if record.created_ns < edge]
        for value in filters.get("since", []):
            edge = self.images.resolve(value).created_ns
            records = [record for record in records if record.created_ns > edge]
        for value in filters.get("until", []):
            limit = parse_until(value)
            records = [record for record in records if record.created_ns < limit]
        for value in filters.get("dangling", []):
            if value.lower() not in ("true", "false", "1", "0"):
                raise InvalidArgument(f"invalid filter 'dangling={value[:32]}'")
            wanted = value.lower() in ("true", "1")
            records = [record for record in records if wanted is not bool(record.repo_tags)]
        for value in filters.get("label", []):
            records = [r for r in records if matches_label(r.process_config.labels, value)]
        for value in filters.get("label!", []):
            records = [r for r in records if not matches_label(r.process_config.labels, value)]
        patterns = filters.get("reference", [])
        if patterns:
            records = [kept for record in records if (kept := _matching(record, patterns))]
        return records

    def _of_platform(self, name: str, platform: Platform | None) -> ImageRecord:
        """Raises NotFound, also for an image of another platform than `platform`."""
        record = self.images.resolve(name)
        config = record.config
        own = Platform(os=config.os, architecture=config.architecture, variant=config.variant)
        if platform is not None and not own.serves(platform):
            raise NotFound(
                f"image with reference {name} was found but its platform ({own}) does not match "
                f"the specified platform ({platform})"
            )
        return record

    async def inspect(self, name: str, platform: Platform | None) -> Json:
        record = self._of_platform(name, platform)
        config = record.config
        upper = [str(self.images.layers.diff_path(chain)) for chain in record.chain_ids[-1:]]
        return {
            "Id": record.id,
            "RepoTags": record.repo_tags,
            "RepoDigests": record.repo_digests,
            "Parent": record.parent,
            "Comment": config.history[-1].comment if config.history else config.comment,
            "Created": config.created or ZERO_TIME,
            "DockerVersion": config.docker_version,
            "Author": config.author,
            "Config": _config_view(record),
            "Architecture": config.architecture,
            "Variant": config.variant,
            "Os": config.os,
            "Size": record.size_bytes,
            "GraphDriver": {"Name": DRIVER, "Data": {"UpperDir": upper[0]} if upper else {}},
            "RootFS": {"Type": "layers", "Layers": record.diff_ids},
            "Metadata": {"LastTagTime": timestamp(record.tagged_ns)},
        }

    async def history(self, name: str, platform: Platform | None) -> list[Json]:
        record = self._of_platform(name, platform)
        sizes = [self.images.layer_info(chain).size_bytes for chain in record.chain_ids]
        entries: list[Json] = []
        for entry in record.config.history or []:
            size = 0 if entry.empty_layer or not sizes else sizes.pop(0)
            entries.insert(
                0,
                {
                    "Id": "<missing>",
                    "Created": _unix(entry.created),
                    "CreatedBy": entry.created_by,
                    "Tags": None,
                    "Size": size,
                    "Comment": entry.comment,
                },
            )
        if entries:
            entries[0]["Id"] = record.id
            entries[0]["Tags"] = record.repo_tags or None
        return entries

    async def tag(self, name: str, repository: str, tag: str) -> None:
        target = parse_reference(f"{repository}:{tag}" if tag else repository)
        if target.path == "library/sha256":
            raise InvalidArgument(
                "refusing to create an ambiguous tag using digest algorithm as name"
            )
        await run_blocking(self.images.tag, name, target)

    async def remove(self, name: str, *, force: bool, prune: bool) -> list[Json]:
        if not name.strip():
            raise InvalidArgument("image name cannot be blank")
        users = self._users()
        removed = await run_blocking(
            self.images.remove, name, force=force, in_use=lambda digest: users.get(digest, [])
        )
        return [dict(entry) for entry in removed]

    async def prune(self, filters: Filters) -> Json:
        unknown = set(filters) - {"dangling", "label", "label!", "until"}
        if unknown:
            raise InvalidArgument(f"invalid filter '{min(unknown)}'")
        only_dangling = filters.get("dangling", ["true"])[0].lower() in ("true", "1")
        rest = {name: values for name, values in filters.items() if name != "dangling"}
        users = self._users()
        deleted: list[Json] = []
        freed = 0
        for record in self._filtered(self.images.list_all(), rest):
            if only_dangling and record.repo_tags:
                continue
            gone = await run_blocking(
                self.images.delete_unused, record, lambda digest: users.get(digest, [])
            )
            freed += record.size_bytes if gone else 0
            deleted += [dict(entry) for entry in gone]
        return {"ImagesDeleted": deleted or None, "SpaceReclaimed": freed}


@dataclass(slots=True)
class ImageTransfers:
    """`api.ports.ImageTransfers`."""

    images: Images
    work: Path
    architecture: str

    def platform(self, text: str) -> Platform:
        if not text:
            return Platform(architecture=self.architecture)
        return parse_platform(text, self.architecture)

    async def load(self, body: Body, *, quiet: bool) -> AsyncIterator[Json]:
        source = Upload(body)
        try:
            async for loaded in each(archive.load(self.images, source, self.work)):
                names = [f"Loaded image: {tag}" for tag in loaded.tags]
                for name in names or [f"Loaded image ID: {loaded.record.id}"]:
                    yield {"stream": f"{name}\n"}
        finally:
            source.close()

    async def check_save(self, names: list[str]) -> None:
        for name in names:
            if not self.images.tags_of(name):
                self.images.resolve(name)

    async def save(self, names: list[str]) -> AsyncIterator[bytes]:
        async for piece in iterate(archive.save(self.images, names)):
            yield piece

    async def import_(
        self,
        body: Body,
        *,
        source: str,
        repository: str,
        tag: str,
        message: str,
        changes: list[str],
        platform: Platform,
    ) -> AsyncIterator[Json]:
        name = f"{repository}:{tag}" if tag else repository
        stream: Upload | Download | None = None
        try:
            tags = [parse_reference(name)] if name else []
            if source == "-":
                stream = Upload(body)
            else:
                stream = Download(source)
                yield {"status": f"Downloading from {stream.url}"}
            record = await run_apart(
                self._import, stream, tags, message or f"Imported from {source}", changes, platform
            )
            yield {"status": record.id}
        finally:
            if stream is not None:
                stream.close()

    def _import(
        self,
        source: Source,
        tags: list[Reference],
        message: str,
        changes: list[str],
        platform: Platform,
    ) -> ImageRecord:
        return import_tar(
            self.images,
            source,
            tags=tags,
            description=Description(
                comment=message,
                changes=tuple(line for text in changes for line in text.split("\n")),
            ),
            platform=platform,
        )


def _matching(record: ImageRecord, patterns: list[str]) -> ImageRecord | None:
    """The record with only the tags that match; None when none does."""
    kept = [tag for tag in record.repo_tags if any(_matches(tag, p) for p in patterns)]
    return msgspec.structs.replace(record, repo_tags=kept) if kept else None


def _matches(tag: str, pattern: str) -> bool:
    """As Go's path.Match, where `*` and `?` stop at a slash."""
    name = tag.rpartition(":")[0]
    wanted = pattern.split("/")
    return any(
        len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
        for parts in (tag.split("/"), name.split("/"))
    )


def _config_view(record: ImageRecord) -> Json:
    process = record.process_config
    view: Json = msgspec.to_builtins(process)
    view.setdefault("Env", process.env)
    view.setdefault("Cmd", process.cmd)
    view.setdefault("Entrypoint", process.entrypoint)
    view.setdefault("Labels", process.labels)
    view.setdefault("WorkingDir", process.working_dir)
    view.setdefault("User", process.user)
    return view


def _unix(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        return 0
