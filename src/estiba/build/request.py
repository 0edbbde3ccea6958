"""What a build is asked for, once it is read and checked. Frozen data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from estiba.build.ops import Input
from estiba.build.ports import ConnectAgent, RunLimits
from estiba.build.trees import Context
from estiba.distribution.credentials import ANONYMOUS, Credentials
from estiba.model.image import Platform
from estiba.model.reference import Reference


def nobody(_domain: str) -> Credentials:
    return ANONYMOUS


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """`work` is a directory of the build's own, below which the contexts lie.

    `ignored_stages` is None when the cache is not to be used at all. `credentials` gives those for
    a registry's domain.
    """

    work: Path
    dockerfile: bytes
    dockerfile_name: str = "Dockerfile"
    remote: str = ""
    """Where the main context came from, when the client did not send it."""

    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[Reference, ...] = ()
    platforms: tuple[Platform, ...] = ()
    ignored_stages: tuple[str, ...] | None = ()
    pulls: bool = False
    contexts: Mapping[str, Context] = field(default_factory=dict)
    named: Mapping[str, Input] = field(default_factory=dict)
    network: str = ""
    extra_hosts: tuple[str, ...] = ()
    limits: RunLimits = field(default_factory=RunLimits)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    agents: Mapping[str, ConnectAgent] = field(default_factory=dict)
    allowed: frozenset[str] = frozenset()
    squash: bool = False
    keeps_failed: bool = True
    """What a failed RUN left, as an image without a name."""

    checks_only: bool = False
    sbom: bool = False
    provenance: str = ""
    outputs: tuple[Mapping[str, str], ...] = ()
    cache_from: tuple[Mapping[str, str], ...] = ()
    cache_to: tuple[Mapping[str, str], ...] = ()
    caches: Mapping[int, Path] = field(default_factory=dict)
    """Local caches that the client sent, by their place in `cache_from`."""

    credentials: Callable[[str], Credentials] = field(default=nobody, repr=False)
