"""From a request's body and options to what the builder is asked for."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from estiba.api.build_ports import BuildOptions
from estiba.build.files.context import (
    apply_ignore,
    parse_ignore,
    read_dockerfile,
    read_ignore,
    receive,
    receive_bundle,
)
from estiba.build.files.git import check_out
from estiba.build.files.giturls import is_git_address, parse_git_url
from estiba.build.files.remote import download, is_web_address, parse_remote
from estiba.build.ops import ContextInput, GitInput, ImageInput, Input
from estiba.build.ports import ConnectAgent, RunLimits
from estiba.build.request import BuildRequest
from estiba.build.trees import Context, git_access
from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import ANONYMOUS, Credentials, credentials_from
from estiba.distribution.settings import RegistrySettings
from estiba.images.images import check_taggable
from estiba.model.container import Ulimit
from estiba.model.decoding import from_json, from_plain
from estiba.model.errors import InvalidArgument, LimitExceeded
from estiba.model.image import Platform, parse_platform
from estiba.model.reference import Reference, parse_reference
from estiba.storage.compress import is_compressed
from estiba.storage.tar import Source

_MAX_HEADER_CHARS = 1 << 20
_MAX_SECRET_BYTES = 500 << 10
_HEAD_BYTES = 512
_HUB = ("index.docker.io", "docker.io", "registry-1.docker.io")
_MOST = {
    "platforms": 64, "outputs": 64, "cache_from": 64, "cache_to": 64, "ssh": 64, "tags": 1000,
    "contexts": 1000, "secrets": 1000, "ulimits": 100, "extra_hosts": 10_000, "labels": 10_000,
    "build_args": 10_000, "no_cache_filter": 10_000, "allow": 100,
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")


class Bundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """request.json of `estiba build` (docs/api.md)."""

    dockerfile: str = ""
    remote: str = ""
    target: str = ""
    build_args: dict[str, str] = {}
    labels: dict[str, str] = {}
    tags: list[str] = []
    platforms: list[str] = []
    no_cache: bool = False
    no_cache_filter: list[str] = []
    pull: bool = False
    network: str = ""
    extra_hosts: list[str] = []
    shm_size: int = 0
    ulimits: list[Ulimit] = []
    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cgroup_parent: str = ""
    contexts: dict[str, str] = {}
    secrets: dict[str, str] = {}
    ssh: list[str] = []
    session: str = ""
    outputs: list[dict[str, str]] = []
    cache_from: list[dict[str, str]] = []
    cache_to: list[dict[str, str]] = []
    sbom: bool = False
    provenance: str = ""
    squash: bool = False
    check: bool = False
    allow: list[str] = []


@dataclass(frozen=True, slots=True)
class Inputs:
    """Reads what clients send; all of it blocks. `work` is the build's own directory."""

    host: Platform
    settings: RegistrySettings

    # -- the classic form ------------------------------------------------------------------

    def classic(
        self,
        source: Source,
        options: BuildOptions,
        registries: str,
        work: Path,
        cancel: CancelToken,
    ) -> BuildRequest:
        """Raises InvalidArgument, LimitExceeded and what a remote context raises."""
        limits = RunLimits(
            memory_bytes=options.memory_bytes,
            memory_swap_bytes=options.memory_swap_bytes,
            cpu_shares=options.cpu_shares,
            cpu_period_us=options.cpu_period_us,
            cpu_quota_us=options.cpu_quota_us,
            cpuset_cpus=options.cpuset_cpus,
            cpuset_mems=options.cpuset_mems,
            shm_bytes=options.shm_bytes,
            ulimits=tuple(_ulimit(one) for one in options.ulimits),
            cgroup_parent=options.cgroup_parent,
        )
        tags = parse_tags(options.tags)
        credentials = registry_credentials(registries)
        platforms = self._platforms([options.platform] if options.platform else [])
        directory = work / "context"
        name = options.dockerfile or "Dockerfile"
        if options.remote:
            directory, text = self._remote_context(options.remote, directory, {}, cancel)
            if text is not None:
                name = "Dockerfile"
        else:
            directory.mkdir()
            receive(source, directory)
            text = None
        dockerfile, context = _main_context(directory, name, text, None)
        return BuildRequest(
            work=work,
            dockerfile=dockerfile,
            dockerfile_name=name,
            remote=options.remote,
            target=options.target,
            build_args=options.build_args,
            labels=options.labels,
            tags=tags,
            platforms=platforms,
            ignored_stages=None if options.no_cache else (),
            keeps_failed=not options.forces_removal,
            pulls=options.pull,
            contexts={"": context},
            network=options.network,
            extra_hosts=tuple(options.extra_hosts),
            limits=limits,
            squash=options.squash,
            cache_from=tuple({"type": "registry", "ref": ref} for ref in options.cache_from),
            credentials=credentials,
        )

    # -- the form of `estiba build` --------------------------------------------------------

    def bundle(
        self,
        source: Source,
        registries: str,
        work: Path,
        agents: Callable[[str, list[str]], Mapping[str, ConnectAgent]],
        cancel: CancelToken,
    ) -> BuildRequest:
        """`agents` opens the client's session. Raises as `classic`."""
        credentials = registry_credentials(registries)
        received = receive_bundle(source, work)
        asked = _decode_bundle(received.request)
        _check_counts(asked)
        secrets = _secrets(asked.secrets)
        directory = received.contexts.get("context", work / "context")
        text: bytes | None = received.dockerfile
        if asked.remote:
            directory, fetched = self._remote_context(
                asked.remote, work / "remote", secrets, cancel
            )
            text = text if text is not None else fetched
        name = asked.dockerfile or "Dockerfile"
        dockerfile, context = _main_context(directory, name, text, received.dockerignore)
        named, contexts = _named_contexts(asked.contexts, received.contexts, self._target(asked))
        return BuildRequest(
            work=work,
            dockerfile=dockerfile,
            dockerfile_name=name,
            remote=asked.remote,
            target=asked.target,
            build_args=asked.build_args,
            labels=asked.labels,
            tags=parse_tags(asked.tags),
            platforms=self._platforms(asked.platforms),
            ignored_stages=None if asked.no_cache else tuple(asked.no_cache_filter),
            pulls=asked.pull,
            contexts={"": context, **contexts},
            named=named,
            network=asked.network,
            extra_hosts=tuple(asked.extra_hosts),
            limits=_limits(asked),
            secrets=secrets,
            agents=agents(asked.session, asked.ssh) if asked.ssh else {},
            allowed=frozenset(asked.allow),
            squash=asked.squash,
            checks_only=asked.check,
            sbom=asked.sbom,
            provenance=asked.provenance,
            outputs=tuple(asked.outputs),
            cache_from=tuple(asked.cache_from),
            cache_to=tuple(asked.cache_to),
            caches=received.caches,
            credentials=credentials,
        )

    def _remote_context(
        self, url: str, directory: Path, secrets: Mapping[str, bytes], cancel: CancelToken
    ) -> tuple[Path, bytes | None]:
        """Fetched here; with the Dockerfile when the address leads to that alone."""
        directory.mkdir()
        if is_git_address(url):
            source = parse_git_url(url)
            access = git_access(secrets, source)
            return check_out(source, directory, access=access, cancel=cancel).root, None
        if not is_web_address(url):
            raise InvalidArgument(
                f"unable to prepare the context {url[:128]!r}: give a git or http(s) address"
            )
        found = download(parse_remote(url), directory, settings=self.settings, cancel=cancel)
        assert found.path is not None
        with open(found.path, "rb") as file:
            head = file.read(_HEAD_BYTES)
        if b"\0" not in head and not is_compressed(head):
            text = read_dockerfile(directory, found.name)
            found.path.unlink()
            return directory, text
        unpacked = directory.with_name(f"{directory.name}-unpacked")
        unpacked.mkdir()
        with open(found.path, "rb") as file:
            receive(file, unpacked)
        return unpacked, None

    def _target(self, asked: Bundle) -> Platform:
        return next(iter(self._platforms(asked.platforms)), self.host)

    def _platforms(self, texts: list[str]) -> tuple[Platform, ...]:
        found = [parse_platform(text, self.host.architecture) for text in texts]
        return tuple(dict.fromkeys(found))


def _decode_bundle(body: bytes) -> Bundle:
    try:
        return from_json(body, Bundle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"request.json of the build is not as it must be: {error}") from error


def _check_counts(asked: Bundle) -> None:
    """Each of these is work, or a place in memory or on the disk. Raises LimitExceeded."""
    for name, limit in _MOST.items():
        count = len(getattr(asked, name))
        if count > limit:
            raise LimitExceeded(f"request.json: {count} {name}: at most {limit}")


def parse_tags(texts: list[str]) -> tuple[Reference, ...]:
    """Raises InvalidArgument for what is no name of an image."""
    tags = []
    for text in texts:
        tag = parse_reference(text).tagged
        check_taggable(tag)
        tags.append(tag)
    return tuple(dict.fromkeys(tags))


def registry_credentials(header: str) -> Callable[[str], Credentials]:
    """X-Registry-Config: AuthConfigs by registry, JSON in base64url. Raises InvalidArgument."""
    if len(header) > _MAX_HEADER_CHARS:
        raise InvalidArgument("invalid X-Registry-Config header: longer than 1 MiB")
    if not header:
        return lambda _domain: ANONYMOUS
    try:
        plain = header.strip().rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
        value = json.loads(base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True))
    except (ValueError, RecursionError, binascii.Error):
        raise InvalidArgument("invalid X-Registry-Config header: not JSON in base64") from None
    if value is None:
        value = {}  # as Go's client sends no credentials
    if not isinstance(value, dict):
        raise InvalidArgument("invalid X-Registry-Config header: not a JSON object")
    known = {
        _domain(name): credentials_from(config)
        for name, config in value.items()
        if isinstance(config, dict)
    }
    return lambda domain: known.get(_domain(domain), ANONYMOUS)


def _domain(name: str) -> str:
    host = name.split("://", 1)[-1].split("/", 1)[0]
    return _HUB[1] if host in _HUB else host


def _main_context(
    directory: Path, name: str, text: bytes | None, ignore: bytes | None
) -> tuple[bytes, Context]:
    """The Dockerfile, and the context without what its ignore file names."""
    if not directory.is_dir():
        # Only a Dockerfile came.
        directory.mkdir(parents=True)
    dockerfile = text if text is not None else read_dockerfile(directory, name)
    rules = parse_ignore(ignore) if ignore is not None else read_ignore(directory, name)
    apply_ignore(directory, rules)
    return dockerfile, Context(directory, rules)


def _named_contexts(
    wanted: dict[str, str], sent: dict[str, Path], platform: Platform
) -> tuple[dict[str, Input], dict[str, Context]]:
    named: dict[str, Input] = {}
    contexts: dict[str, Context] = {}
    for name, value in wanted.items():
        if not _NAME.fullmatch(name) or name == "context":
            raise InvalidArgument(f"invalid name of a build context: {name[:64]!r}")
        if value == "local":
            if name not in sent:
                raise InvalidArgument(f"build context {name}: nothing of it was sent")
            contexts[name] = Context(sent[name])
            named[name.lower()] = ContextInput(name)
        elif value.startswith("docker-image://"):
            named[name.lower()] = ImageInput(value.removeprefix("docker-image://"), platform)
        elif is_git_address(value):
            named[name.lower()] = GitInput(value)
        else:
            raise InvalidArgument(
                f"build context {name}: {value[:128]!r}: give a directory, a git address or "
                "docker-image://NAME"
            )
    return named, contexts


def _limits(asked: Bundle) -> RunLimits:
    return RunLimits(
        memory_bytes=asked.memory,
        memory_swap_bytes=asked.memory_swap,
        cpu_shares=asked.cpu_shares,
        cpu_period_us=asked.cpu_period,
        cpu_quota_us=asked.cpu_quota,
        cpuset_cpus=asked.cpuset_cpus,
        cpuset_mems=asked.cpuset_mems,
        shm_bytes=asked.shm_size,
        ulimits=tuple(asked.ulimits),
        cgroup_parent=asked.cgroup_parent,
    )


def _secrets(given: dict[str, str]) -> dict[str, bytes]:
    secrets = {}
    for name, text in given.items():
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidArgument(f"secret {name[:64]}: not base64") from None
        if len(data) > _MAX_SECRET_BYTES:
            raise InvalidArgument(f"secret {name[:64]}: larger than {_MAX_SECRET_BYTES} bytes")
        secrets[name] = data
    return secrets


def _ulimit(value: dict[str, Any]) -> Ulimit:
    try:
        return from_plain(value, Ulimit)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid ulimits: {error}") from error
