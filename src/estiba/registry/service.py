"""What the handlers share: the storage, the gate, and whom to tell of what happened."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from estiba.kernel.blocking import run_blocking
from estiba.model.digest import Digest
from estiba.registry.auth.gate import Gate
from estiba.registry.call import Call
from estiba.registry.events import Events, Target
from estiba.registry.metrics import Metrics
from estiba.registry.storage.errors import RegistryError
from estiba.registry.storage.ports import BlobInfo, Registry, StoredManifest

P = ParamSpec("P")
T = TypeVar("T")

_REMEMBERED_HOLDERS = 10_000
_SEARCHED_REPOSITORIES = 256


class Service:
    """One for each server; called in the event loop but for `holders`."""

    def __init__(
        self,
        registry: Registry,
        gate: Gate,
        events: Events,
        metrics: Metrics,
        *,
        read_only: bool = False,
    ) -> None:
        self.registry = registry
        self.gate = gate
        self.events = events
        self.metrics = metrics
        self.read_only = read_only or registry.read_only
        self._holders: OrderedDict[Digest, str] = OrderedDict()

    async def work(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a call of the storage that may take its time."""
        return await run_blocking(function, *args, **kwargs)

    def holders(self, digest: Digest) -> list[str]:
        """Repositories that may hold a blob: the one that is remembered, then what a search of
        some finds (distribution-spec 1.1, mounting without `from`). Blocks.
        """
        found = [self._holders[digest]] if digest in self._holders else []
        for name in self.registry.catalog.repositories(limit=_SEARCHED_REPOSITORIES).names:
            try:
                self.registry.blobs.stat(name, digest)
                found.append(name)
            except RegistryError:
                continue
        return found

    # -- what happened ---------------------------------------------------------------------

    def pulled_blob(self, call: Call, size: int) -> None:
        """A HEAD is no pull."""
        if call.request.method == "GET":
            self._remember(call.route.reference, call.route.repository)
            target = _blob_target(call.route.repository, call.route.reference, size)
            self._publish("pull", call, target)

    def pushed_blob(self, call: Call, info: BlobInfo) -> None:
        self._remember(info.digest, call.route.repository)
        self._publish("push", call, _blob_target(call.route.repository, info.digest, info.size))

    def mounted_blob(self, call: Call, info: BlobInfo, source: str) -> None:
        target = _blob_target(call.route.repository, info.digest, info.size, source)
        self._publish("mount", call, target)

    def pulled_manifest(self, call: Call, manifest: StoredManifest) -> None:
        if call.request.method == "GET":
            self._publish("pull", call, _manifest_target(call, manifest))

    def pushed_manifest(self, call: Call, manifest: StoredManifest) -> None:
        self._publish("push", call, _manifest_target(call, manifest))

    def deleted(self, call: Call, digest: Digest) -> None:
        tag = "" if ":" in call.route.reference else call.route.reference
        self._publish("delete", call, Target(call.route.repository, digest, tag=tag))

    def _remember(self, digest: Digest, repository: str) -> None:
        self._holders[digest] = repository
        if len(self._holders) > _REMEMBERED_HOLDERS:
            self._holders.popitem(last=False)

    def _publish(self, action: str, call: Call, target: Target) -> None:
        self.events.publish(
            action, target, call.request, user=call.identity.user, address=call.address
        )


def _blob_target(repository: str, digest: Digest, size: int, source: str = "") -> Target:
    path = f"/v2/{repository}/blobs/{digest}"
    return Target(repository, digest, size, path=path, source=source)


def _manifest_target(call: Call, manifest: StoredManifest) -> Target:
    repository, reference = call.route.repository, call.route.reference
    return Target(
        repository,
        manifest.digest,
        len(manifest.body),
        manifest.media_type,
        tag="" if ":" in reference else reference,
        path=f"/v2/{repository}/manifests/{manifest.digest}",
    )
