"""How an image was built: SLSA provenance v1 of a build. Pure.

    predicate = provenance(facts, mode="min")

What a secret or an ssh agent gave is not in it: `BuildFacts` has their ids alone. Build arguments
whose names sound like secrets lose their values, and so do passwords in URLs. The same facts give
the same bytes; with SOURCE_DATE_EPOCH the times are that moment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import msgspec

import estiba
from estiba.images.attestations import SLSA, Predicate
from estiba.model.digest import Digest, hex_of
from estiba.model.errors import InvalidArgument
from estiba.model.image import Platform
from estiba.model.reference import Reference

MIN, MAX = "min", "max"
BUILD_TYPE = "urn:estiba:build:dockerfile:v1"
_BUILDER = "urn:estiba:builder"
_SECRET = re.compile(
    r"(?:\A|[_.-])(?:pass(?:wd|word|phrase)?|pwd|secrets?|tokens?|credentials?|apikey|key|auth|"
    r"sig|signature)(?:\Z|[_.-])",
    re.IGNORECASE,
)
_PROXY = re.compile(r"(?:https?|ftp|no|all)_proxy", re.IGNORECASE)
"""Of the place that built it, often with a password, and no part of what comes out."""

_MAX_TEXT = 1 << 20


@dataclass(frozen=True, slots=True)
class Material:
    """What went into a build from elsewhere. `uri` as `image_uri`, or an http(s) or git URL.

    `digest` is sha256:…, or a git commit as gitCommit:…; empty for what was not pinned.
    """

    uri: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class StepFacts:
    """`name` is the instruction as it stands in the Dockerfile: no argument's value is in it.

    `key` is the cache's; `layer` is empty for a step that changed no file.
    """

    name: str
    stage: str = ""
    line: int = 0
    key: str = ""
    layer: Digest = ""
    cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFacts:
    """All that a statement about a build may say.

    `context` is a URL, empty for files that the client sent; `contexts` are the named ones.
    `secrets` and `ssh` are ids. `dockerfile_text` and `steps` are told with mode=max alone.
    """

    platform: Platform
    started_ns: int
    finished_ns: int
    frontend: str = "dockerfile"
    dockerfile: str = "Dockerfile"
    dockerfile_text: str = ""
    context: str = ""
    contexts: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    no_cache: bool = False
    secrets: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()
    materials: tuple[Material, ...] = ()
    steps: tuple[StepFacts, ...] = ()
    builder: str = ""
    """A URI of who builds; the engine's own if none is given."""

    build: str = ""
    """The id of this build."""

    source_date_epoch: int | None = None


def image_uri(reference: Reference, platform: Platform) -> str:
    """A base image as a material: `pkg:docker/debian@bookworm?platform=linux%2Famd64`."""
    tag = reference.tagged.tag
    version = f"@{quote(tag)}" if tag else ""
    name = "/".join(quote(part) for part in reference.familiar_name.split("/"))
    return f"pkg:docker/{name}{version}?platform={quote(str(platform), safe='')}"


def provenance(facts: BuildFacts, mode: str = MIN) -> Predicate:
    """The statement's own part. Raises InvalidArgument for another mode than min and max."""
    if mode not in (MIN, MAX):
        raise InvalidArgument(f"unknown provenance mode {mode[:32]!r}: use mode=min or mode=max")
    body: dict[str, Any] = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": _parameters(facts),
            "internalParameters": {"builderPlatform": str(facts.platform)},
            "resolvedDependencies": _dependencies(facts),
        },
        "runDetails": {
            "builder": {"id": facts.builder or _BUILDER, "version": {"estiba": estiba.__version__}},
            "metadata": _metadata(facts),
        },
    }
    if mode == MAX:
        body["buildDefinition"]["internalParameters"] |= {
            "dockerfile": facts.dockerfile_text[:_MAX_TEXT],
            "steps": [_step(step, facts) for step in facts.steps],
        }
    return Predicate(SLSA, msgspec.json.encode(body, order="deterministic"))


def _parameters(facts: BuildFacts) -> dict[str, Any]:
    hidden = sorted(name for name in facts.args if _SECRET.search(name) or _PROXY.fullmatch(name))
    args = {name: without_secrets(facts.args[name]) for name in facts.args if name not in hidden}
    request: dict[str, Any] = {
        "frontend": facts.frontend,
        "args": args,
        "labels": dict(facts.labels),
        "target": facts.target,
        "platform": str(facts.platform),
        "network": facts.network,
        "noCache": facts.no_cache,
        "hiddenArgs": hidden,
        "secrets": [{"id": one} for one in facts.secrets],
        "ssh": [{"id": one} for one in facts.ssh],
        "contexts": {name: without_secrets(url) for name, url in facts.contexts.items()},
    }
    return {
        "configSource": {"path": facts.dockerfile, "uri": without_secrets(facts.context)},
        "request": {key: value for key, value in request.items() if value},
    }


def _dependencies(facts: BuildFacts) -> list[dict[str, Any]]:
    unique = dict.fromkeys(
        (without_secrets(material.uri), material.digest) for material in facts.materials
    )
    found = []
    for uri, digest in sorted(unique):
        entry: dict[str, Any] = {"uri": uri}
        if digest:
            entry["digest"] = {digest.partition(":")[0]: hex_of(digest)}
        found.append(entry)
    return found


def _metadata(facts: BuildFacts) -> dict[str, Any]:
    """A build's own id and times would make each statement another one."""
    epoch = facts.source_date_epoch
    if epoch is not None:
        return {"startedOn": _time(epoch), "finishedOn": _time(epoch)}
    return {
        **({"invocationId": facts.build} if facts.build else {}),
        "startedOn": _time(facts.started_ns // 10**9),
        "finishedOn": _time(facts.finished_ns // 10**9),
    }


def _step(step: StepFacts, facts: BuildFacts) -> dict[str, Any]:
    """Whether it was cached, and the cache's own key, differ from host to host."""
    own = {"key": step.key, "cached": step.cached} if facts.source_date_epoch is None else {}
    view = {
        "name": step.name,
        "stage": step.stage,
        "line": step.line,
        "layer": step.layer,
        **own,
    }
    return {key: value for key, value in view.items() if value}


def without_secrets(url: str) -> str:
    """A URL without its user and password, and without values of its query that sound secret."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return url.partition("://")[0] + "://"
    place = parts.netloc.rpartition("@")[2]
    query = parts.query
    if any(_SECRET.search(key) for key, _ in pairs):
        query = urlencode([(key, "" if _SECRET.search(key) else value) for key, value in pairs])
    return urlunsplit((parts.scheme, place, parts.path, query, parts.fragment))


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(max(0, seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
