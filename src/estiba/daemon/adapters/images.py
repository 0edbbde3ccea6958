"""Images for the routes: lists, inspect, tags, removal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from estiba.containers.engine import Engine
from estiba.daemon.adapters.container_views import ZERO_TIME, timestamp
from estiba.daemon.adapters.image_filters import check_known, filtered, parse_bool
from estiba.images import removal
from estiba.images.attestations import current_referrers
from estiba.images.images import Images
from estiba.images.record import ImageRecord
from estiba.kernel.blocking import run_blocking
from estiba.model.digest import Digest
from estiba.model.errors import InvalidArgument
from estiba.model.event import EventType, prune_event
from estiba.model.image import MEDIA_MANIFEST, Platform
from estiba.model.reference import parse_reference
from estiba.model.sizes import parse_bytes
from estiba.storage.snapshots import DRIVER

Json = dict[str, Any]
Filters = Mapping[str, list[str]]


@dataclass(slots=True)
class ImageQueries:
    """`api.ports.Images`."""

    images: Images
    engine: Engine

    async def list_all(
        self, *, all: bool, filters: Filters, shared_size: bool, manifests: bool = False
    ) -> list[Json]:
        records = filtered(self.images, self.images.list_all(), filters)
        users = self._users()
        shared = await run_blocking(self._shared) if shared_size else {}
        return [
            {
                "Id": record.id,
                "ParentId": record.parent,
                "RepoTags": record.repo_tags or [],
                "RepoDigests": record.repo_digests or [],
                "Created": record.created_ns // 10**9,
                "Size": record.size_bytes,
                "SharedSize": shared.get(record.id, -1),
                "Labels": record.labels,
                "Containers": len(users.get(record.id, [])),
                "LastUsedAt": timestamp(self.images.usage.last_ns(record.id)),
                **({"Manifests": _manifests(record, users)} if manifests else {}),
            }
            for record in records
        ]

    def users_of(self, image: Digest) -> list[str]:
        """Short ids of the containers that stand on it."""
        return self._users().get(image, [])

    def _users(self, *, only_running: bool = False) -> dict[Digest, list[str]]:
        users: dict[Digest, list[str]] = {}
        for container in self.engine.records():
            if only_running and not container.state.is_up:
                continue
            mounted = {Digest(plan.source) for plan in container.mounts if plan.type == "image"}
            for image in {container.image_id} | mounted:
                users.setdefault(image, []).append(container.id[:12])
        return users

    def _shared(self) -> dict[Digest, int]:
        """Bytes of each image in layers that other images stand on too."""
        records = self.images.list_all()
        counts = Counter(layer for record in records for layer in record.layers)
        infos = ((layer, self.images.layers.info(layer)) for layer in counts if counts[layer] > 1)
        sizes = {layer: info.size_bytes for layer, info in infos if info is not None}
        return {
            record.id: sum(sizes.get(layer, 0) for layer in record.layers) for record in records
        }

    async def inspect(self, name: str, platform: Platform | None) -> Json:
        record = self.images.resolve(name, platform)
        config = record.config
        upper = [str(self.images.layers.diff_path(layer)) for layer in record.layers[-1:]]
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
            "RootFS": {"Type": "layers", "Layers": record.layers},
            "Metadata": {"LastTagTime": timestamp(record.tagged_ns)},
            "LastUsedAt": timestamp(self.images.usage.last_ns(record.id)),
            **({"ArtifactType": record.artifact} if record.artifact else {}),
        }

    async def history(self, name: str, platform: Platform | None) -> list[Json]:
        record = self.images.resolve(name, platform)
        sizes = [self.images.layer_info(layer).size_bytes for layer in record.layers]
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

    async def attestations(
        self, name: str, platform: Platform | None, *, types: list[str], statements: bool
    ) -> list[Json]:
        record = self.images.resolve(name, platform)
        if not record.attestations:
            return []
        found = await run_blocking(current_referrers, self.images, record)
        return [
            {
                "Descriptor": msgspec.to_builtins(one.layer),
                "PredicateType": one.predicate_type,
                **({"Statement": msgspec.Raw(one.statement)} if statements else {}),
            }
            for one in found
            if not types or one.predicate_type in types
        ]

    async def tag(self, name: str, repository: str, tag: str) -> None:
        target = parse_reference(repository).with_tag(tag)
        if target.path == "library/sha256":
            raise InvalidArgument(
                "refusing to create an ambiguous tag using digest algorithm as name"
            )
        await run_blocking(self.images.tag, name, target)

    async def remove(
        self, name: str, *, force: bool, prune: bool, platforms: list[Platform]
    ) -> list[Json]:
        if not name.strip():
            raise InvalidArgument("image name cannot be blank")
        users, running = self._users(), self._users(only_running=True)
        removed = await run_blocking(
            removal.remove,
            self.images,
            name,
            force=force,
            in_use=lambda digest: users.get(digest, []),
            running=lambda digest: running.get(digest, []),
            platforms=platforms,
        )
        return [dict(entry) for entry in removed]

    async def prune(self, filters: Filters) -> Json:
        check_known(filters, {"dangling", "label", "label!", "until", "lru", "keep"})
        users = self._users()
        unused = [record for record in self._prunable(filters) if record.id not in users]
        deleted: list[Json] = []
        before = await run_blocking(self.layers_bytes)
        keep_bytes = _keep_bytes(filters)
        await run_blocking(removal.forget_pulls, self.images)
        for record in unused:
            if keep_bytes is not None and await run_blocking(self.layers_bytes) <= keep_bytes:
                break
            gone = await run_blocking(
                removal.delete_unused,
                self.images,
                record,
                self.users_of,
            )
            deleted += [dict(entry) for entry in gone]
        freed = max(0, before - await run_blocking(self.layers_bytes))
        event = prune_event(EventType.IMAGE, freed)
        await self.images.store.commit(lambda tx: tx.add_event(event))
        return {"ImagesDeleted": deleted or None, "SpaceReclaimed": freed}

    def _prunable(self, filters: Filters) -> list[ImageRecord]:
        """In the order in which they go: with `lru` the least recently used first."""
        rest = {name: filters[name] for name in ("label", "label!", "until") if name in filters}
        records = filtered(self.images, self.images.list_all(), rest)
        if any(parse_bool("lru", value) for value in filters.get("lru", [])):
            return sorted(records, key=lambda r: (self.images.usage.last_ns(r.id), r.created_ns))
        only_dangling = parse_bool("dangling", (filters.get("dangling") or ["true"])[0])
        return [record for record in records if not (only_dangling and record.repo_tags)]

    def layers_bytes(self) -> int:
        """Of all layers' files, each once."""
        infos = (self.images.layers.info(layer) for layer in self.images.layers.diff_ids())
        return sum(info.size_bytes for info in infos if info is not None)


def _manifests(record: ImageRecord, users: dict[Digest, list[str]]) -> list[Json]:
    """OpenAPI ImageManifestSummary: what is here is unpacked, and none of it packed."""
    if record.artifact or not record.origins:
        return []
    digest = record.origins[-1].manifest
    return [
        {
            "ID": digest,
            "Descriptor": {"mediaType": MEDIA_MANIFEST, "digest": digest, "size": 0},
            "Available": True,
            "Size": {"Total": record.size_bytes, "Content": 0},
            "Kind": "image",
            "ImageData": {
                "Platform": msgspec.to_builtins(record.platform),
                "Containers": users.get(record.id, []),
                "Size": {"Unpacked": record.size_bytes},
            },
        }
    ]


def _keep_bytes(filters: Filters) -> int | None:
    """How much `prune` with `lru` leaves. Raises InvalidArgument."""
    if not filters.get("keep"):
        return None
    if not filters.get("lru"):
        raise InvalidArgument("the filter keep=SIZE needs lru=true: what is used least goes first")
    return parse_bytes(filters["keep"][0])


def _config_view(record: ImageRecord) -> Json:
    process = record.process_config
    view: Json = msgspec.to_builtins(process)
    view.setdefault("Env", process.env)
    view.setdefault("Cmd", process.cmd)
    view.setdefault("Entrypoint", process.entrypoint)
    view.setdefault("Labels", process.labels)
    view.setdefault("WorkingDir", process.working_dir)
    view.setdefault("User", process.user)
    view.setdefault("OnBuild", None)
    return view


def _unix(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        return 0
