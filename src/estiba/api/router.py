"""From method and path to an operation: the table `operations.tsv` is the only source.

A handler registers for an operation by its id; what has none answers 501 naming itself.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

from estiba.api.context import Context
from estiba.http1 import HttpResponse
from estiba.model import errors
from estiba.model.errors import InvalidArgument, NotFound

Route = Callable[[Context], Awaitable[HttpResponse]]

API_VERSION = "1.51"
MIN_API_VERSION = "1.24"

_VERSION = re.compile(r"/v([0-9.]{1,32})(/.*)")
_OWN = """\
Container\tPOST\t/containers/{id}/logs/truncate\tContainerLogsTruncate\t204,404,500
Network\tGET\t/networks/explain\tNetworkExplain\t200,400,404,500
Network\tGET\t/networks/graph\tNetworkGraph\t200,400,500
Network\tGET\t/networks/{id}/policy\tNetworkPolicy\t200,404,500
Network\tPUT\t/networks/{id}/policy\tNetworkPolicySet\t200,400,404,412,500
Network\tDELETE\t/networks/{id}/policy\tNetworkPolicyDelete\t204,404,500
Container\tPUT\t/containers/{id}/egress\tContainerEgress\t200,400,404,412,500
Build\tGET\t/build/outputs/{id}\tBuildOutput\t200,404,500
Build\tPOST\t/build/agents/{id}\tBuildAgent\t101,404,500
Volume\tPOST\t/volumes/{name}/clone\tVolumeClone\t201,400,404,409,500
Volume\tPOST\t/volumes/{name}/rename\tVolumeRename\t204,400,404,409,500
Volume\tPOST\t/volumes/{name}/resize\tVolumeResize\t204,400,404,409,500
Volume\tGET\t/volumes/{name}/snapshots\tVolumeSnapshotList\t200,404,409,500
Volume\tPOST\t/volumes/{name}/snapshots\tVolumeSnapshotCreate\t201,400,404,409,500
Volume\tPOST\t/volumes/{name}/snapshots/{tag}/restore\tVolumeSnapshotRestore\t204,404,409,500
Volume\tDELETE\t/volumes/{name}/snapshots/{tag}\tVolumeSnapshotDelete\t204,404,409,500
Volume\tGET\t/volumes/{name}/backup\tVolumeBackup\t200,404,409,500
Volume\tPOST\t/volumes/{name}/backup/push\tVolumeBackupPush\t200,400,404,409,500
Volume\tPOST\t/volumes/{name}/restore\tVolumeRestore\t201,400,409,413,500
Volume\tPOST\t/volumes/{name}/restore/pull\tVolumeRestorePull\t200,400,500
"""


@dataclass(frozen=True)
class Operation:
    """One row of the table."""

    tag: str
    method: str
    path: str
    id: str
    is_own: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Names of images, plugins and linked containers may hold slashes; others may not."""
        wide = "{name}" in self.path and self.tag in ("Image", "Plugin", "Distribution")
        wide = wide or self.id in ("ContainerDelete", "ContainerInspect")
        parts = re.split(r"\{(\w+)\}", self.path)
        expression = "".join(
            re.escape(part) if index % 2 == 0 else f"(?P<{part}>{'.+' if wide else '[^/]+'})"
            for index, part in enumerate(parts)
        )
        return re.compile(expression)


def operations() -> list[Operation]:
    """The Engine API's operations, and after them the engine's own."""
    text = resources.files("estiba.api").joinpath("operations.tsv").read_text()
    rows = [line.split("\t") for line in text.splitlines()[1:]]
    own = [line.split("\t") for line in _OWN.splitlines()]
    return [
        Operation(tag, method, path, name, is_own)
        for is_own, table in ((False, rows), (True, own))
        for tag, method, path, name, *_ in table
    ]


@dataclass(frozen=True, slots=True)
class Match:
    operation: Operation
    parameters: dict[str, str]
    version: tuple[int, int]


class Router:
    """Holds the handlers; `match` finds the operation of a request."""

    def __init__(self) -> None:
        self._operations = operations()
        self._by_id = {operation.id: operation for operation in self._operations}
        self._handlers: dict[str, Route] = {}
        self._fixed = {
            (operation.method, operation.path): operation
            for operation in self._operations
            if "{" not in operation.path
        }
        self._patterns: dict[tuple[str, str], list[Operation]] = {}
        for operation in self._operations:
            if "{" in operation.path:
                key = (operation.method, operation.path.split("/")[1])
                self._patterns.setdefault(key, []).append(operation)
        for group in self._patterns.values():
            group.sort(key=lambda operation: operation.path.count("/"), reverse=True)

    def add(self, operation_id: str, handler: Route) -> None:
        """Registers the handler of an operation. Raises KeyError for an unknown id."""
        self._handlers[self._by_id[operation_id].id] = handler

    def match(self, method: str, path: str) -> Match:
        """Raises NotFound for an unknown path, InvalidArgument for a version out of range."""
        version, path = split_version(path)
        operation = self._fixed.get((method, "/networks" if path == "/networks/" else path))
        if operation is not None:
            return Match(operation, {}, version)
        segment = path.split("/", 2)[1] if path.startswith("/") else ""
        for candidate in self._patterns.get((method, segment), ()):
            found = candidate.pattern.fullmatch(path)
            if found is not None:
                return Match(candidate, found.groupdict(), version)
        raise NotFound("page not found")

    def handler(self, operation: Operation) -> Route:
        """Raises NotImplemented naming the operation when nobody registered."""
        handler = self._handlers.get(operation.id)
        if handler is None:
            raise errors.NotImplemented(
                f"{operation.id} ({operation.method} {operation.path}) is not built yet: "
                "not supported"
            )
        return handler

    def coverage(self) -> tuple[int, int, list[str]]:
        """Operations served, operations in the API, and those that are missing."""
        whole = [operation for operation in self._operations if not operation.is_own]
        missing = [
            f"{operation.id} ({operation.method} {operation.path})"
            for operation in whole
            if operation.id not in self._handlers
        ]
        return len(whole) - len(missing), len(whole), missing


def parse_version(text: str) -> tuple[int, int]:
    """Major and minor; what is missing is zero, and what follows them does not count."""
    major, minor = [*(int(part or 0) for part in text.split(".")), 0][:2]
    return major, minor


def split_version(path: str) -> tuple[tuple[int, int], str]:
    """The version that a path asks for (the newest without one) and the path without it.

    Raises InvalidArgument, in Docker's words, for a version that is not served.
    """
    found = _VERSION.fullmatch(path)
    if found is None:
        return parse_version(API_VERSION), path
    version = parse_version(found[1])
    if version < parse_version(MIN_API_VERSION):
        raise InvalidArgument(
            f"client version {found[1]} is too old. Minimum supported API version is "
            f"{MIN_API_VERSION}, please upgrade your client to a newer version"
        )
    if version > parse_version(API_VERSION):
        raise InvalidArgument(
            f"client version {found[1]} is too new. Maximum supported API version is {API_VERSION}"
        )
    return version, found[2]
