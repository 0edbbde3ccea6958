"""What `estiba build` asks of the daemon: request.json, made of flags and environment."""

from __future__ import annotations

import os

from estiba.cli.buildspecs import (
    Cache,
    Output,
    attestations,
    caches_from,
    caches_to,
    entitlements,
    listed,
    outputs,
    secrets,
    ssh_sources,
)
from estiba.cli.output import labels_of
from estiba.cli.parse import Arguments, FlagError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from estiba.client.http import Client

_EPOCH = "SOURCE_DATE_EPOCH"
_METHODS = ("build", "check")
_NUMBERS = {
    "memory": "memory", "memory_swap": "memory_swap", "shm_size": "shm_size",
    "cpu_shares": "cpu_shares", "cpu_period": "cpu_period", "cpu_quota": "cpu_quota",
}  # fmt: skip
_WORDS = ("target", "network", "cpuset_cpus", "cpuset_mems", "cgroup_parent")
_SWITCHES = ("no_cache", "pull", "squash")


class Request:
    """What is asked, and what of it is done here: outputs, caches, agents."""

    def __init__(self, given: Arguments) -> None:
        """Raises FlagError and UsageError."""
        self.is_check = _is_check(given)
        self.outputs: list[Output] = outputs(given)
        self.caches_from: list[Cache] = caches_from(given.cache_from)
        self.caches_to: list[Cache] = caches_to(given.cache_to)
        self.ssh = ssh_sources(given.ssh)
        self.body = _body(given) | {
            "check": self.is_check,
            "outputs": [output.sent for output in self.outputs],
            "cache_from": [cache.sent for cache in self.caches_from],
            "cache_to": [cache.sent for cache in self.caches_to],
            "ssh": list(self.ssh),
        }
        if self.ssh:
            self.body["session"] = os.urandom(16).hex()

    def arguments(self, client: Client) -> dict[str, str]:
        """Build arguments, and the user's proxies for this daemon."""
        from estiba.cli.creating import proxies

        own: dict[str, str] = self.body["build_args"]
        usual = proxies(client, [f"{name}=" for name in own])
        return dict(entry.split("=", 1) for entry in usual) | own

    def text(self, more: dict[str, Any]) -> bytes:
        """request.json, without what has its zero value. Raises UsageError for bytes in it that
        are no text."""
        from estiba.client.jsonlite import dumps

        found = {key: value for key, value in (self.body | more).items() if value}
        for key, value in found.items():
            try:
                dumps(value).encode()
            except UnicodeEncodeError:
                what = key.replace("_", " ")
                raise UsageError(f"{what}: not UTF-8: a build takes text only") from None
        return dumps(found).encode()


def _is_check(given: Arguments) -> bool:
    method, _, _ = (given.call or "build").partition(",")
    if method not in _METHODS:
        raise FlagError(
            f'invalid argument "{given.call}" for "--call" flag: {" or ".join(_METHODS)}'
        )
    return bool(given.check) or method == "check"


def _body(given: Arguments) -> dict[str, Any]:
    from estiba.cli.deviceflags import ulimit
    from estiba.cli.netflags import extra_host

    sbom, provenance = attestations(given)
    body: dict[str, Any] = {
        "build_args": build_arguments(given.build_arg),
        "labels": labels_of(given.label),
        "tags": _tags(given.tag),
        "platforms": _platforms(given.platform),
        "no_cache_filter": listed(given.no_cache_filter),
        "extra_hosts": [extra_host(text) for text in given.add_host],
        "ulimits": [ulimit(text) for text in given.ulimit],
        "secrets": secrets(given.secret),
        "allow": entitlements(given.allow),
        "sbom": sbom,
        "provenance": provenance,
    }
    body |= {name: getattr(given, name) for name in (*_WORDS, *_SWITCHES)}
    return body | {name: getattr(given, key) for name, key in _NUMBERS.items()}


def build_arguments(texts: list[str]) -> dict[str, str]:
    """A name alone stands for the environment's value, and for nothing when there is none."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise FlagError(
                f'invalid argument "{text}" for "--build-arg" flag: a name is missing: NAME=VALUE'
            )
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    if _EPOCH not in (text.partition("=")[0] for text in texts) and os.environ.get(_EPOCH):
        found[_EPOCH] = os.environ[_EPOCH]
    return found


def _tags(texts: list[str]) -> list[str]:
    from estiba.cli.refs import reference

    for text in texts:
        try:
            parsed = reference(text)
        except UsageError as error:
            raise FlagError(f'invalid argument "{text}" for "-t, --tag" flag: {error}') from None
        if parsed.digest:
            raise FlagError(
                f'invalid argument "{text}" for "-t, --tag" flag: a name for an image has no digest'
            )
    return list(dict.fromkeys(texts))


def _platforms(texts: list[str]) -> list[str]:
    from estiba.cli.refs import default_platform, platform

    found = listed(texts) or listed([default_platform("")])
    for text in found:
        platform(text)
    return list(dict.fromkeys(found))
