"""`estiba build` on a Docker Engine: the request as its classic builder takes it.

What that builder knows nothing of is refused, with the flag's name.
"""

from __future__ import annotations

import os
import sys

from estiba.cli import buildsource
from estiba.cli.buildoutputs import write_whole
from estiba.cli.buildrequest import Request
from estiba.cli.parse import Arguments, UsageError
from estiba.cli.progress import show_progress
from estiba.client.buildcontext import gathered
from estiba.client.credentials import config_header
from estiba.client.http import Client
from estiba.client.jsonlite import dumps
from estiba.client.tarstream import END, member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from estiba.cli.buildsource import Source

_UNKNOWN = {
    "allow": "--allow", "attest": "--attest", "build_context": "--build-context",
    "cache_to": "--cache-to", "explain_cache": "--explain-cache",
    "metadata_file": "--metadata-file", "no_cache_filter": "--no-cache-filter",
    "output": "--output", "provenance": "--provenance", "push": "--push", "sbom": "--sbom",
    "secret": "--secret", "ssh": "--ssh", "check": "--check", "call": "--call", "debug": "--debug",
}  # fmt: skip
_LIMITS = {
    "memory": "memory", "memswap": "memory_swap", "cpushares": "cpu_shares",
    "cpuperiod": "cpu_period", "cpuquota": "cpu_quota", "cpusetcpus": "cpuset_cpus",
    "cpusetmems": "cpuset_mems", "cgroupparent": "cgroup_parent", "shmsize": "shm_size",
}  # fmt: skip


def build_classic(client: Client, given: Arguments, request: Request) -> int:
    """Raises UsageError for a flag that is not for this daemon, ClientError when it fails."""
    for key, flag in _UNKNOWN.items():
        if getattr(given, key):
            raise UsageError(
                f"the daemon at {client.host.url} is a Docker Engine: {flag} needs estibad"
            )
    source = buildsource.find(given)
    name = source.dockerfile
    if source.is_text_sent:
        name = f".dockerfile.{os.urandom(8).hex()}"
    response = client.call(
        "POST",
        "/build",
        _query(client, request, source.remote, name),
        source=gathered(_body(source, name)),
        headers=config_header(),
    )
    ids: list[str] = []
    try:
        show_progress(_noted(response.lines(), ids), quiet=bool(given.quiet), err=True)
    finally:
        response.close()
    image = ids[-1] if ids else ""
    if given.iidfile:
        write_whole(given.iidfile, [image.encode()])
    if given.quiet:
        print(image)
        sys.stdout.flush()
    return 0


def _noted(lines: Iterable[Any], ids: list[str]) -> Iterator[Any]:
    for line in lines:
        aux = line.get("aux")
        if isinstance(aux, dict) and aux.get("ID"):
            ids.append(str(aux["ID"]))
        yield line


def _query(client: Client, request: Request, remote: str, dockerfile: str) -> dict[str, Any]:
    body = request.body
    platforms: list[str] = body["platforms"]
    if len(platforms) > 1:
        raise UsageError(f"the daemon at {client.host.url} builds for one platform at a time")
    found = {
        "t": body["tags"],
        "dockerfile": dockerfile or None,
        "remote": remote or None,
        "nocache": body["no_cache"],
        "pull": body["pull"],
        "squash": body["squash"],
        "rm": True,
        "target": body["target"] or None,
        "platform": platforms[0] if platforms else None,
        "networkmode": body["network"] or None,
        "buildargs": request.arguments(client) or None,
        "labels": body["labels"] or None,
        "extrahosts": body["extra_hosts"],
        "ulimits": dumps(body["ulimits"]) if body["ulimits"] else None,
        "cachefrom": dumps([c.sent["ref"] for c in request.caches_from if "ref" in c.sent]),
    }
    return found | {name: body[key] or None for name, key in _LIMITS.items()}


def _body(source: Source, name: str) -> Iterator[bytes]:
    """A Dockerfile from elsewhere lies in the context under a name of its own, ignored there."""
    yield from source.context(".")
    if source.is_text_sent and source.text is not None:
        yield member(name, source.text)
        ignored = [(source.ignore or b"").rstrip(b"\n"), name.encode(), b".dockerignore"]
        yield member(".dockerignore", b"\n".join([line for line in ignored if line]) + b"\n")
    yield END
